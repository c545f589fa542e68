"""Who may name which variable of the environment, where secrets are: all departments share one environment."""

from __future__ import annotations

from collections.abc import Collection

from django.conf import settings
from django.contrib.auth.models import User
from django.db.models import QuerySet

from agents.models import Agent, Department, Member
from runs.channels import SLACK_URL
from runs.models import Channel

OURS = frozenset(
    {
        *("SECRET_KEY", "SECRET_KEY_FALLBACKS", "DATABASE_URL", "REDIS_URL", "EMAIL_URL", "ANYMAIL"),
        *("KONTOR_METRICS_TOKEN", "KONTOR_PING_URL", SLACK_URL),
    }
)
"""Secrets of the installation itself, which nobody may name."""
SYSTEMS = (
    *("POSTGRES", "PG", "REDIS_", "EMAIL_", "DATABASE_", "DJANGO_", "SECRET_", "OTEL_"),
    *("AWS_", "AZURE_", "GOOGLE_", "GCP_", "KUBERNETES_", "DOCKER_", "SENTRY_"),
)
"""How variables begin that are read by what Kontor stands on: its libraries, its machine, its cloud."""
KONTOR = "KONTOR_"
SLACK = "slack:"


def why_not_name(*, department: Department, user: User, names: Collection[str]) -> str:
    """Why the person may not have the department use these variables; empty if they may.

    One client's administrator must not spend another's money, nor write where only another may, nor look for what
    else is in the environment: they name what is named after a department of theirs, or is used by one already.
    Whoever runs the installation names any other.
    """
    names = sorted({name for name in names if name})
    if ours := [name for name in names if name in OURS or name.startswith(SYSTEMS)]:
        return f"{ours[0]} is a secret of the installation itself. Name a variable of the department's own."
    if not names or user.is_superuser:
        return ""
    administered = Member.objects.filter(user=user, role=Member.Role.ADMINISTRATOR).values_list("department", flat=True)
    theirs = {department.pk, *administered}
    used, beginnings = variables_used(Department.objects.filter(pk__in=theirs)), _beginnings()
    for name in names:
        if name not in used and _named_after(name, beginnings) not in theirs:
            own = _beginning(department.slug)
            begin = "" if _is_the_installations(own) else f" Its own begin with {own}."
            return f"{name} is not a variable of this department.{begin} Whoever runs this installation can name it."
    return ""


def variables_in(target: str) -> list[str]:
    """The variable that a target of alerts names: ``slack:ACME_SLACK_URL``."""
    target = target.strip()
    return [target.removeprefix(SLACK).strip()] if target.startswith(SLACK) else []


def variables_used(departments: QuerySet[Department]) -> set[str]:
    """The variables that the departments name now."""
    columns = departments.values_list("api_key_env", "webhook_secret_env")
    targets = Agent.objects.filter(department__in=departments).values_list("escalate_channel", flat=True)
    channels = Channel.objects.filter(department__in=departments).values_list("secret_env", flat=True)
    return {name for row in columns for name in row} | {n for each in targets for n in variables_in(each)} | {*channels}


def _beginning(slug: str) -> str:
    return f"{slug.upper().replace('-', '_')}_"


def _beginnings() -> dict[str, int]:
    """How the variables of each department begin."""
    return {_beginning(slug): pk for pk, slug in Department.objects.values_list("pk", "slug")}


def _is_the_installations(beginning: str) -> bool:
    """Whether variables of the installation begin so, too: a department called anthropic has none of its own."""
    own = (name for name in dir(settings) if settings.is_overridden(name))  # type: ignore[misc]
    return beginning.startswith(KONTOR) or any(name.startswith(beginning) for name in (*OURS, *SYSTEMS, *own))


def _named_after(name: str, beginnings: dict[str, int]) -> int | None:
    """The department after which a variable is named: ``ACME_NORTH_KEY`` is of acme-north, not of acme."""
    webhook = f"{SLACK_URL}_"
    whole = f"{name.removeprefix(webhook)}_" if name.startswith(webhook) else name
    fitting = max((beginning for beginning in beginnings if whole.startswith(beginning)), key=len, default="")
    # The webhook of a department called anthropic is still its own.
    if not fitting or (whole == name and _is_the_installations(fitting)):
        return None
    return beginnings[fitting]
