"""A budget that allows fewer calls than want to fly, with workers that are killed: it is never overrun."""

from __future__ import annotations

import os
import signal
import threading
from decimal import Decimal

from django.contrib.auth.models import User
from django.db import Error, connection
from django.db.models import Max

from agents.budgets import BUDGET_WAIT
from agents.models import Budget, BudgetPeriod, Department
from runs.budget_changes import allow_once
from runs.models import AgentRun, ModelCall
from tests.faults.case import SUITE, Bench, audited
from tests.faults.site import shift_pids, wait_for
from tests.faults.table import Row
from tests.faults.work import add_items, wait_settled

ITEMS = 200
ALLOWED_CALLS = 50
KILLS = 3
LOOK_SECONDS = 0.02
EXHAUSTED_SECONDS = 240.0


@SUITE.add()
def budget_holds(bench: Bench) -> list[Row]:
    """200 runs want to fly, the budget holds 50 reservations; shifts die; then it is raised and everything ends."""
    row = Row(f"{ITEMS} runs, a budget for {ALLOWED_CALLS} calls, shifts killed: overshoot")
    with bench.site(latency_ms=200, SHIFTS="2") as place:
        place.start_worker()
        with audited(row, place):
            budget = _make_budget()
            with _Meter(budget) as meter:
                ids = add_items(ITEMS)
                for _ in range(KILLS):
                    wait_for(lambda: len(shift_pids()) >= 2, "two shifts are at work")
                    wait_for(lambda: _started() >= 5, "calls are under way")
                    os.kill(shift_pids()[0], signal.SIGKILL)
                    row.tried += 1
                wait_for(_is_exhausted, "everybody waits for the budget", EXHAUSTED_SECONDS)
            row.findings.accounts += meter.overruns
            _check_costs(row, budget)
            person = User.objects.create(username="treasurer")
            assert allow_once(budget=budget, usd=Decimal(100), user=person, reason="The case goes on.")
            wait_settled(ids, EXHAUSTED_SECONDS)
    return [row]


def _make_budget() -> Budget:
    """What one item has reserved at most, fifty times, beside what it has spent."""
    department = Department.objects.get(kind="bench")
    Budget.objects.filter(department=department).delete()
    wait_settled(add_items(1))
    most = ModelCall.objects.aggregate(most=Max("reserved_usd"))["most"]
    return Budget.objects.create(department=department, period="month", limit_usd=most * ALLOWED_CALLS)


def _started() -> int:
    return ModelCall.objects.filter(status=ModelCall.Status.STARTED).count()


def _is_exhausted() -> bool:
    """Whether nothing is under way and whoever is left waits for the budget, or all is done."""
    waiting = AgentRun.objects.filter(status=AgentRun.Status.QUEUED, waiting_for__startswith=BUDGET_WAIT)
    active = AgentRun.objects.filter(status__in=AgentRun.ACTIVE)
    return waiting.exists() and active.count() == waiting.count() and not _started()


def _check_costs(row: Row, budget: Budget) -> None:
    """What the calls really came to, estimates of lost ones included, is within the limit; and it was used."""
    period = BudgetPeriod.objects.get(budget=budget)
    if period.spent_usd > budget.limit_usd:  # type: ignore[operator]
        row.findings.accounts.append(f"{period.spent_usd} USD were spent of {budget.limit_usd}")
    if not period.spent_usd:
        row.findings.untrue.append("nothing was spent: the case has shown nothing")


class _Meter:
    """Reads the budget all the time; ``overruns`` are the moments at which more was held than it allows."""

    def __init__(self, budget: Budget) -> None:
        self.budget, self.overruns = budget, []  # type: tuple[Budget, list[str]]
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._look, name="meter", daemon=True)

    def __enter__(self) -> _Meter:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join(30)

    def _look(self) -> None:
        limit = self.budget.limit_usd or Decimal(0)
        while not self._end.wait(LOOK_SECONDS):
            try:
                for reserved, spent in BudgetPeriod.objects.filter(budget=self.budget).values_list(
                    "reserved_usd", "spent_usd"
                ):
                    if reserved + spent > limit:
                        self.overruns.append(f"{reserved} reserved and {spent} spent of {limit}")
            except Error:
                connection.close()
        connection.close()
