"""Alerts about what holds up a whole department: a key that is refused, a model that does not work, a used-up budget.

Keys are locked in alphabetical order, before those of failures: ``breaker:``, ``budget:``, ``line``.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from datetime import timedelta

from django.db import transaction
from django.urls import reverse

from agents.budgets import BUDGET_WAIT, HEAD_END
from agents.model_state import Change
from agents.models import Department
from runs.alerts import close_alert, raise_alert
from runs.database import now as database_now
from runs.models import AgentRun, Alert, LogEntry, Review

LINE = "line"
BUDGET_CAUSE = "budget:"
"""How keys of alerts, and causes of questions, about a budget begin; ``agents.budgets.wait_head`` follows."""
TELL_AGAIN = timedelta(days=1)
"""So long people are not told again of a budget that work waits for: a question is asked, which reminds them."""
DEADLINE = timedelta(hours=4)
ACCEPTED = "The API accepts the key again."
HELD_UP_RISK = 3
"""A question about what holds up a whole department stands at the top."""


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
                _reopen_line(department)


def tell_budgets(refused: Iterable[tuple[int, str]]) -> None:
    """Runs wait for a budget: ``(department id, reason)`` of each. In the transaction of the claim.

    Every run that waits is refused again each minute: that alone is no news, see ``TELL_AGAIN``.
    """
    latest = {(pk, reason.partition(HEAD_END)[0]): reason for pk, reason in refused if reason.startswith(BUDGET_WAIT)}
    for (department_id, head), reason in sorted(latest.items()):
        told = Alert.objects.filter(department=department_id, key=f"{BUDGET_CAUSE}{head}", state=Alert.State.OPEN)
        if told.filter(last_at__gt=database_now() - TELL_AGAIN).exists():
            continue
        department = Department.objects.get(pk=department_id)
        alert = raise_alert(
            kind=Alert.Kind.BUDGET,
            department=department,
            key=f"{BUDGET_CAUSE}{head}",
            text=f"{department}: work waits for the {reason}",
            link=reverse("runs:overview"),
            next_step="Runs wait and lose nothing. They go on once they fit: when it is raised, or its period turns.",
        )
        ask = f"Work waits for the {reason} Raise it, allow more once, or let it wait?"
        ask_about_gate(alert, Review.Kind.BUDGET, ask)


def close_budget_alerts() -> None:
    """Close the alerts about budgets that no run waits for any more; called each minute."""
    waits = Alert.objects.filter(kind=Alert.Kind.BUDGET, state=Alert.State.OPEN, key__startswith=BUDGET_CAUSE)
    for alert in waits.select_related("department"):
        head = f"{alert.key.removeprefix(BUDGET_CAUSE)}{HEAD_END}"
        runs = AgentRun.objects.filter(department=alert.department, status=AgentRun.Status.QUEUED)
        if not runs.filter(waiting_for__startswith=head).exists():
            with transaction.atomic():
                close_alert(department=alert.department, key=alert.key)
                if alert.department is not None:
                    withdraw_question(alert.department, alert.key, "No run waits for the budget any more.")


def ask_about_gate(alert: Alert, kind: Review.Kind, ask: str) -> bool:
    """Ask once for as long as the alert, which must be locked, is open; False if somebody was asked already."""
    asked = Review.objects.filter(department=alert.department, kind=kind, cause=alert.key)
    if asked.filter(created_at__gte=alert.first_at).exists() or asked.filter(status=Review.Status.OPEN).exists():
        return False
    assert alert.department is not None  # keys and budgets belong to departments
    Review.objects.create(
        department=alert.department,
        kind=kind,
        cause=alert.key,
        ask=ask[:500],
        risk=HELD_UP_RISK,
        deadline=alert.last_at + DEADLINE,
        at_deadline=Review.AtDeadline.REMIND,
    )
    return True


def withdraw_question(department: Department, cause: str, why: str) -> int:
    """What was asked about is over; how many questions that closes."""
    kinds = (Review.Kind.BUDGET, Review.Kind.STOP_THE_LINE)
    rows = Review.objects.filter(department=department, kind__in=kinds, cause=cause, status=Review.Status.OPEN)
    return rows.update(status=Review.Status.WITHDRAWN, answer_note=why, answered_at=database_now())


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
    alert = raise_alert(
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
    ask = f"{department} stands still: the API does not accept its key. Is the key right, and its billing?"
    ask_about_gate(alert, Review.Kind.STOP_THE_LINE, ask)
    if alert.count == 1:
        _write_line(department, alert.text, LogEntry.Level.ERROR)


def _reopen_line(department: Department) -> None:
    was_told = close_alert(department=department, key=LINE)
    withdraw_question(department, LINE, ACCEPTED)
    if was_told:
        _write_line(department, ACCEPTED, LogEntry.Level.INFO)


def _write_line(department: Department, text: str, level: str) -> None:
    """Pages that are open learn of it from the log: their banners say it at once."""
    LogEntry.objects.create(department=department, kind="alert", level=level, text=text, at=database_now())
