from __future__ import annotations

from zoneinfo import ZoneInfo

from croniter import croniter
from django.conf import settings
from django.core.exceptions import ValidationError
from django.core.validators import RegexValidator
from django.db import models
from pydantic import ValidationError as SchemaError

from agents.spec import DepartmentSpec, kind
from agents.statements import Statement


def validate_time_zone(name: str) -> None:
    """Refuse a time zone that this machine does not know."""
    try:
        ZoneInfo(name)
    except (KeyError, ValueError, OSError) as error:
        raise ValidationError(
            f"{name!r} is not a time zone. Write it as in the IANA list, for example Europe/Berlin."
        ) from error


class Department(models.Model):
    """A team at work: one instance of a kind. One client, one department; no row crosses."""

    class State(models.TextChoices):
        RUNNING = "running", "running"
        DRAINING = "draining", "draining"
        HOLDING_SENDS = "holding_sends", "holding sends"
        STOPPED = "stopped", "stopped"

    WORKING = (State.RUNNING, State.HOLDING_SENDS)
    """States in which new agent runs may start."""

    kind = models.SlugField(help_text="Which kind of department: declared in code by an installed app.")
    slug = models.SlugField(unique=True)
    name = models.CharField(max_length=120)
    state = models.CharField(max_length=16, choices=State, default=State.RUNNING)
    state_reason = models.CharField(max_length=300, blank=True, editable=False)
    state_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, blank=True, on_delete=models.SET_NULL, related_name="+", editable=False
    )
    state_since = models.DateTimeField(null=True, blank=True, editable=False)
    time_zone = models.CharField(max_length=64, default="UTC", validators=[validate_time_zone])
    settings = models.JSONField(
        default=dict, blank=True, help_text="ICP, our company, brand guide, tone, cadence: see the kind's settings."
    )
    schedule = models.CharField(
        max_length=100,
        blank=True,
        default="0 */6 * * *",
        help_text="Cron expression in the department's time zone; marks open items due. Empty: never.",
    )
    schedule_last_at = models.DateTimeField(null=True, blank=True, editable=False)
    schedule_next_at = models.DateTimeField(null=True, blank=True, editable=False)
    api_key_env = models.CharField(
        max_length=64,
        default="ANTHROPIC_API_KEY",
        validators=[RegexValidator(r"^[A-Z][A-Z0-9_]*$", "Name an environment variable, for example ACME_API_KEY.")],
        help_text="Name of the environment variable that holds the API key. The key itself is never stored.",
    )
    webhook_secret_env = models.CharField(
        max_length=64,
        default="KONTOR_WEBHOOK_SECRET",
        validators=[RegexValidator(r"^[A-Z][A-Z0-9_]*$", "Name an environment variable.")],
        help_text="Name of the environment variable that holds the secret of inbound webhooks.",
    )
    stopped_by_error = models.TextField(
        blank=True, help_text="Why the line stands still (401, 402, 403 of the model API); empty when it does not."
    )
    next_probe_at = models.DateTimeField(null=True, blank=True)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ("name",)
        constraints = [
            models.CheckConstraint(
                condition=models.Q(state__in=["running", "draining", "holding_sends", "stopped"]),
                name="department_state_known",
            )
        ]
        # Of members, by role: runs.backends.
        permissions = [
            ("see_department", "May see everything of the department"),
            ("answer_reviews", "May answer what agents ask in the department"),
            ("operate_department", "May steer the work of the department and what leaves it"),
            ("administer_department", "May set up the department and switch it on and off"),
        ]

    def __str__(self) -> str:
        return self.name

    @property
    def spec(self) -> DepartmentSpec:
        """What the installed app declares for this kind; LookupError if the app is gone."""
        return kind(self.kind)

    def clean(self) -> None:
        if self.schedule.strip() and not croniter.is_valid(self.schedule):
            raise ValidationError({"schedule": "This is no cron expression. Every six hours is 0 */6 * * *."})
        try:
            self.spec.settings_schema.model_validate(self.settings)
        except LookupError as error:
            raise ValidationError({"kind": str(error)}) from error
        except SchemaError as error:
            lines = [f"{'.'.join(map(str, e['loc'])) or 'settings'}: {e['msg']}" for e in error.errors()]
            raise ValidationError({"settings": lines}) from error


class Installation(models.Model):
    """The switch for everything: one row, whose state holds for every department beside the department's own."""

    state = models.CharField(max_length=16, choices=Department.State, default=Department.State.RUNNING)
    state_reason = models.CharField(max_length=300, blank=True)
    state_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, blank=True, on_delete=models.SET_NULL, related_name="+"
    )
    state_since = models.DateTimeField(null=True, blank=True)

    class Meta:
        constraints = [
            models.CheckConstraint(condition=models.Q(pk=1), name="one_installation"),
            models.CheckConstraint(
                condition=models.Q(state__in=["running", "draining", "holding_sends", "stopped"]),
                name="installation_state_known",
            ),
        ]

    def __str__(self) -> str:
        return f"the installation ({self.state})"

    @classmethod
    def read(cls) -> Installation:
        """The row; one that is missing means running. Who switched it is read where somebody asks."""
        found = _INSTALLATION.objects()
        return found[0] if found else cls(pk=1)


_INSTALLATION = Statement(lambda: Installation.objects.filter(pk=1))


class Member(models.Model):
    """A person's place in a department."""

    class Role(models.TextChoices):
        VIEWER = "viewer", "viewer"
        REVIEWER = "reviewer", "reviewer"
        OPERATOR = "operator", "operator"
        ADMINISTRATOR = "administrator", "administrator"

    department = models.ForeignKey(Department, on_delete=models.CASCADE, related_name="members")
    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="memberships")
    role = models.CharField(max_length=16, choices=Role, default=Role.OPERATOR)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["department", "user"], name="one_membership_per_department"),
        ]

    def __str__(self) -> str:
        return f"{self.user} ({self.role}, {self.department})"
