"""Who may name which variable of the environment, where secrets are: all departments share one environment."""

from __future__ import annotations

from collections.abc import Collection

from django.contrib.auth.models import User
from django.db.models import Q

from agents.models import Agent, Department, Member
from runs.channels import SLACK_URL
from runs.models import Channel

OURS = frozenset(
    {
        *("SECRET_KEY", "SECRET_KEY_FALLBACKS", "DATABASE_URL", "REDIS_URL", "EMAIL_URL", "ANYMAIL"),
        *("KONTOR_METRICS_TOKEN", "KONTOR_PING_URL", SLACK_URL),
    }
)
"""Secrets of the installation itself."""
SYSTEMS = (
    *("POSTGRES", "PG", "REDIS_", "EMAIL_", "DATABASE_", "DJANGO_", "SECRET_", "OTEL_"),
    *("AWS_", "AZURE_", "GOOGLE_", "GCP_", "KUBERNETES_", "DOCKER_"),
)
"""How variables begin that are read by what Kontor stands on: its libraries, its machine, its cloud."""
SLACK = "slack:"


def why_not_name(*, department: Department, user: User, names: Collection[str]) -> str:
    """Why the person may not have the department use these variables; empty if they may.

    One client's administrator must not spend another's money, nor write where only another may: whose variable it is
    has to be theirs too.
    """
    names = sorted({name for name in names if name})
    if ours := [name for name in names if name in OURS or name.startswith(SYSTEMS)]:
        return f"{ours[0]} is a secret of the installation itself. Name a variable of the department's own."
    if not names or user.is_superuser:
        return ""
    administered = Member.objects.filter(user=user, role=Member.Role.ADMINISTRATOR).values("department")
    others = Department.objects.exclude(pk=department.pk).exclude(pk__in=administered)
    named = Q(api_key_env__in=names) | Q(webhook_secret_env__in=names)
    named |= Q(pk__in=Channel.objects.filter(secret_env__in=names).values("department"))
    targets = Agent.objects.filter(escalate_channel__contains=SLACK).values_list("department_id", "escalate_channel")
    named |= Q(pk__in=[pk for pk, target in targets if not set(names).isdisjoint(variables_in(target))])
    theirs = {f"{SLACK_URL}_{slug.upper().replace('-', '_')}" for slug in others.values_list("slug", flat=True)}
    if theirs.intersection(names) or others.filter(named).exists():
        said = " or ".join(names)
        return f"{said} belongs to another department. Name a variable of its own, or ask who runs this installation."
    return ""


def variables_in(target: str) -> list[str]:
    """The variable that a target of alerts names: ``slack:ACME_SLACK_URL``."""
    target = target.strip()
    return [target.removeprefix(SLACK).strip()] if target.startswith(SLACK) else []
