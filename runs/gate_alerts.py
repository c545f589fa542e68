"""Alerts about what holds up a whole department: a key that is refused, a model that does not work, a used-up budget.

Keys are locked in alphabetical order, before those of failures: ``breaker:``, ``budget:``, ``line``.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from django.urls import reverse

from agents.budgets import BUDGET_WAIT
from agents.model_state import Change
from agents.models import Department
from runs.alerts import close_alert, raise_alert
from runs.models import AgentRun, Alert

LINE = "line"


def tell_gates(*, changes: Iterable[Change], stopped: Mapping[str, str], reopened: Collection[str]) -> None:
    """What became of models and keys. ``stopped``: ``{variable of the key: error}``, ``reopened`` likewise.

    In the transaction of the attempts that told us.
    """
    for change in sorted(changes, key=lambda change: (change.model, change.api_key_env)):
        _tell_breaker(change)
    for key in sorted({*stopped, *reopened}):
        for department in Department.objects.filter(api_key_env=key).order_by("pk"):
            if key in stopped:
                _tell_line(department, stopped[key])
            else:
                close_alert(department=department, key=LINE)


def tell_budgets(refused: Iterable[tuple[int, str]]) -> None:
    """Runs wait for a budget: ``(department id, reason)`` of each. In the transaction of the claim."""
    latest = {(pk, reason.split(":")[0]): reason for pk, reason in refused if reason.startswith(BUDGET_WAIT)}
    for (department_id, head), reason in sorted(latest.items()):
        department = Department.objects.get(pk=department_id)
        raise_alert(
            kind=Alert.Kind.BUDGET,
            department=department,
            key=f"budget:{head}",
            text=f"{department}: work waits for the {reason}",
            link=reverse("runs:overview"),
            next_step="Runs wait and lose nothing. They go on when the budget is raised or its period turns.",
        )


def close_budget_alerts() -> None:
    """Close the alerts about budgets that no run waits for any more; called each minute."""
    for alert in Alert.objects.filter(kind=Alert.Kind.BUDGET, state=Alert.State.OPEN).select_related("department"):
        head = alert.key.removeprefix("budget:")
        runs = AgentRun.objects.filter(department=alert.department, status=AgentRun.Status.QUEUED)
        if not runs.filter(waiting_for__startswith=head).exists():
            close_alert(department=alert.department, key=alert.key)


def _tell_breaker(change: Change) -> None:
    for department in Department.objects.filter(api_key_env=change.api_key_env).order_by("pk"):
        if not change.is_opening:
            close_alert(department=department, key=f"breaker:{change.model}")
            continue
        raise_alert(
            kind=Alert.Kind.BREAKER,
            department=department,
            key=f"breaker:{change.model}",
            text=change.text,
            link=reverse("runs:overview"),
            next_step="Fallback models stand in where there are any; other runs wait and lose nothing until it works.",
        )


def _tell_line(department: Department, error: str) -> None:
    raise_alert(
        kind=Alert.Kind.STOP_THE_LINE,
        department=department,
        key=LINE,
        text=f"{department}: the line stands still. {error}"[:1_000],
        link=reverse("runs:overview"),
        next_step=(
            "Runs wait and lose nothing; the API is asked once a minute. "
            f"Look at the key in {department.api_key_env}, its permissions and its billing."
        ),
    )
