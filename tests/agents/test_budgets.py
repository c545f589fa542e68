from __future__ import annotations

import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agents.budgets import (
    BUDGET_WAIT,
    LOOK_AGAIN,
    Ask,
    Granted,
    Refused,
    Settlement,
    begin_change,
    period_window,
    reserve,
    settle,
)
from agents.models import Agent, Budget, BudgetPeriod, Department

NOW = datetime(2026, 11, 20, 11, 0, tzinfo=UTC)
DAY = Budget.Period.DAY
LOCKS = int(connection.vendor == "postgresql")
"""Queries by which reservations and changes of budgets are kept apart."""


def make_agent(slug: str = "writer", department: Department | None = None, **fields: Any) -> Agent:
    if department is None:
        department, _ = Department.objects.get_or_create(
            slug=fields.pop("department_slug", "desk"), defaults={"kind": "desk", "name": "Desk", **fields}
        )
    agent, _ = Agent.objects.get_or_create(
        department=department, slug=slug, defaults={"job": "Writes", "model": "m", "writes": slug}
    )
    return agent


def make_budget(of: Agent, limit: str | None = "1", **fields: Any) -> Budget:
    fields = {"department": of.department, "period": DAY, **fields}
    return Budget.objects.create(limit_usd=Decimal(limit) if limit else None, **fields)


def ask(agent: Agent, usd: str = "0.4", *, key: int = 0, tokens: int = 1_000, model: str = "m") -> Ask:
    return Ask(key, agent.department_id, agent.pk, model, Decimal(usd), tokens)


def try_to_reserve(*asks: Ask, now: datetime = NOW) -> list[Granted | Refused]:
    with transaction.atomic():
        answers = reserve(asks, now=now)
    return [answers[each.key] for each in asks]


def settlement(granted: Granted | Refused, reserved: str, cost: str, tokens: int = 1_000) -> Settlement:
    assert isinstance(granted, Granted)
    return Settlement(granted.period_ids, Decimal(reserved), 1_000, Decimal(cost), tokens)


class TestPeriodWindow:
    def test_a_day_begins_at_local_midnight(self) -> None:
        start, end = period_window("day", "America/New_York", datetime(2026, 11, 20, 3, tzinfo=UTC))
        assert (start, end) == (datetime(2026, 11, 19, 5, tzinfo=UTC), datetime(2026, 11, 20, 5, tzinfo=UTC))

    def test_a_day_may_have_23_or_25_hours(self) -> None:
        for day, hours in ((datetime(2026, 3, 29, 12, tzinfo=UTC), 23), (datetime(2026, 10, 25, 12, tzinfo=UTC), 25)):
            start, end = period_window("day", "Europe/Berlin", day)
            assert end - start == timedelta(hours=hours)

    def test_a_month_ends_where_the_next_one_begins(self) -> None:
        start, end = period_window("month", "UTC", datetime(2026, 12, 31, 23, 59, tzinfo=UTC))
        assert (start, end) == (datetime(2026, 12, 1, tzinfo=UTC), datetime(2027, 1, 1, tzinfo=UTC))

    @given(
        period=st.sampled_from(["day", "month"]),
        zone=st.sampled_from(["UTC", "Europe/Berlin", "Asia/Kathmandu", "America/Havana", "Pacific/Apia"]),
        now=st.integers(0, 3_000_000).map(lambda n: datetime(2024, 1, 1, tzinfo=UTC) + timedelta(minutes=n)),
    )
    def test_periods_follow_each_other_without_gap(self, period: str, zone: str, now: datetime) -> None:
        start, end = period_window(period, zone, now)
        assert start <= now < end
        assert period_window(period, zone, end)[0] == end
        assert period_window(period, zone, start) == (start, end)


@pytest.mark.django_db
class TestReserve:
    def test_without_budgets_everything_is_granted_by_one_query(self) -> None:
        agent = make_agent()
        make_budget(agent, is_enabled=False)
        with (
            transaction.atomic(),
            CaptureQueriesContext(
                connection,
            ) as queries,
        ):
            answers = reserve([ask(agent, "1000", key=n) for n in range(50)], now=NOW)
        assert set(answers.values()) == {Granted(())}
        assert len(queries) == 1 + LOCKS

    def test_the_number_of_queries_does_not_grow_with_the_asks(self) -> None:
        agents = [make_agent(f"a{n}") for n in range(20)]
        for agent in agents:
            make_budget(agent, "5", agent=agent)
        try_to_reserve(ask(agents[0]))
        with transaction.atomic(), CaptureQueriesContext(connection) as queries:
            reserve([ask(agent, key=agent.pk) for agent in agents], now=NOW)
        assert len(queries) <= 7 + LOCKS
        with transaction.atomic(), CaptureQueriesContext(connection) as queries:
            reserve([ask(agent, key=agent.pk) for agent in agents], now=NOW)
        assert len(queries) == 5 + LOCKS

    def test_asks_are_granted_in_order_until_the_budget_is_full(self) -> None:
        agent = make_agent()
        budget = make_budget(agent)
        answers = try_to_reserve(*(ask(agent, usd, key=n) for n, usd in enumerate(("0.4", "0.4", "0.4", "0.2"))))
        assert [type(answer) for answer in answers] == [Granted, Granted, Refused, Granted]
        assert BudgetPeriod.objects.get(budget=budget).reserved_usd == Decimal("1.0")

    def test_a_refusal_says_why_and_until_when(self) -> None:
        agent = make_agent(time_zone="Europe/Berlin")
        make_budget(agent, "1", agent=agent, model="m")
        (granted,) = try_to_reserve(ask(agent, "0.5"))
        settle([settlement(granted, "0.5", "0.1")])
        (refused,) = try_to_reserve(ask(agent, "0.95"))
        assert isinstance(refused, Refused)
        assert refused.until == datetime(2026, 11, 20, 23, tzinfo=UTC)
        assert refused.reason == (
            f"{BUDGET_WAIT} agent writer, m a day: $1.00, $0.1000 spent and $0.0000 reserved; "
            "this step may need $0.9500. A new day begins 2026-11-20 23:00 UTC."
        )
        assert len(refused.reason) <= 300

    @pytest.mark.parametrize(("limit", "fields"), [("1", {}), (None, {"limit_tokens": 999})])
    def test_a_step_that_no_period_has_room_for_is_promised_none(self, limit: str | None, fields: Any) -> None:
        agent = make_agent()
        budget = make_budget(agent, limit, **fields)
        (refused,) = try_to_reserve(ask(agent, "1.5"))
        assert isinstance(refused, Refused)
        assert refused.reason.endswith("That is more than the whole budget: it waits until it is raised.")
        Budget.objects.filter(pk=budget.pk).update(limit_usd=2, limit_tokens=1_000)
        assert isinstance(try_to_reserve(ask(agent, "1.5"))[0], Granted)

    def test_every_budget_that_applies_must_have_room(self) -> None:
        writer, other = make_agent(), make_agent("other")
        make_budget(writer, "10")
        make_budget(writer, "0.5", agent=writer)
        make_budget(writer, "1", period=Budget.Period.MONTH, model="m")
        answers = try_to_reserve(
            ask(writer, "0.4", key=1),
            ask(writer, "0.4", key=2),  # over the writer's own
            ask(other, "0.4", key=3),
            ask(other, "0.4", key=4),  # over the model's
            ask(other, "0.4", key=5, model="n"),
        )
        assert [type(answer) for answer in answers] == [Granted, Refused, Granted, Refused, Granted]
        assert isinstance(answers[0], Granted)
        assert len(answers[0].period_ids) == 3
        assert isinstance(answers[3], Refused)
        assert answers[3].until == NOW + LOOK_AGAIN, "what calls under way hold comes back before the month ends"

    def test_what_is_spent_lasts_until_the_period_turns_and_what_is_reserved_a_minute(self) -> None:
        agent = make_agent()
        budget = make_budget(agent, "1", period=Budget.Period.MONTH)
        make_budget(agent, "0.9")
        try_to_reserve(ask(agent, "0.5"))
        (refused,) = try_to_reserve(ask(agent, "0.6"))
        assert isinstance(refused, Refused)
        assert refused.until == NOW + LOOK_AGAIN
        assert refused.reason.endswith("It is tried again each minute, as calls under way end.")
        BudgetPeriod.objects.filter(budget=budget).update(reserved_usd=0, spent_usd="0.5")
        (refused,) = try_to_reserve(ask(agent, "0.6"))
        assert isinstance(refused, Refused)
        assert refused.until == datetime(2026, 12, 1, tzinfo=UTC), "the month lasts longer than the minute of the day"
        assert "A new month begins" in refused.reason

    def test_tokens_are_limited_like_dollars(self) -> None:
        agent = make_agent()
        make_budget(agent, None, limit_tokens=1_500)
        answers = try_to_reserve(ask(agent, key=1), ask(agent, key=2))
        assert [type(answer) for answer in answers] == [Granted, Refused]
        assert isinstance(answers[1], Refused)
        assert "a day: 1,500 tokens, 0 used and 1,000 reserved" in answers[1].reason

    def test_an_extra_that_was_allowed_counts(self) -> None:
        agent = make_agent()
        make_budget(agent)
        (granted,) = try_to_reserve(ask(agent, "0.9"))
        assert isinstance(try_to_reserve(ask(agent, "0.2"))[0], Refused)
        BudgetPeriod.objects.update(extra_usd=Decimal("0.1"))
        assert isinstance(try_to_reserve(ask(agent, "0.2"))[0], Granted)
        assert isinstance(granted, Granted)

    def test_tokens_that_were_allowed_once_count(self) -> None:
        agent = make_agent()
        make_budget(agent, None, limit_tokens=1_500)
        try_to_reserve(ask(agent))
        assert isinstance(try_to_reserve(ask(agent))[0], Refused)
        BudgetPeriod.objects.update(extra_tokens=499)
        (refused,) = try_to_reserve(ask(agent))
        assert isinstance(refused, Refused)
        assert "a day: 1,999 tokens" in refused.reason
        BudgetPeriod.objects.update(extra_tokens=500)
        assert isinstance(try_to_reserve(ask(agent))[0], Granted)
        assert BudgetPeriod.objects.get().reserved_tokens == 2_000

    def test_tokens_that_are_used_last_until_the_period_turns(self) -> None:
        agent = make_agent()
        make_budget(agent, None, limit_tokens=1_500)
        try_to_reserve(ask(agent))
        BudgetPeriod.objects.update(reserved_tokens=0, spent_tokens=1_000)
        (refused,) = try_to_reserve(ask(agent))
        assert isinstance(refused, Refused)
        assert refused.until == datetime(2026, 11, 21, tzinfo=UTC)
        assert refused.reason.endswith("A new day begins 2026-11-21 00:00 UTC.")

    def test_of_dollars_and_tokens_the_one_that_lasts_is_named(self) -> None:
        agent = make_agent()
        make_budget(agent, "1", limit_tokens=1_500)
        try_to_reserve(ask(agent, "0.7", tokens=10))
        BudgetPeriod.objects.update(spent_tokens=1_000)
        (refused,) = try_to_reserve(ask(agent))
        assert isinstance(refused, Refused)
        assert "1,500 tokens, 1,000 used and 10 reserved" in refused.reason
        assert "A new day begins" in refused.reason

    def test_the_next_day_has_a_period_of_its_own(self) -> None:
        agent = make_agent()
        make_budget(agent)
        first, second = try_to_reserve(ask(agent, "1")), try_to_reserve(ask(agent, "1"), now=NOW + timedelta(days=1))
        assert isinstance(first[0], Granted)
        assert isinstance(second[0], Granted)
        assert first[0].period_ids != second[0].period_ids

    @pytest.mark.parametrize(("before", "after"), [("UTC", "Europe/Berlin"), ("Asia/Kathmandu", "America/New_York")])
    def test_another_time_zone_does_not_begin_the_month_anew(self, before: str, after: str) -> None:
        agent = make_agent(time_zone=before)
        make_budget(agent, "5", period=Budget.Period.MONTH)
        assert isinstance(try_to_reserve(ask(agent, "4"))[0], Granted)
        Department.objects.update(time_zone=after)
        assert isinstance(try_to_reserve(ask(agent, "4"))[0], Refused)
        assert isinstance(try_to_reserve(ask(agent, "1"))[0], Granted)
        assert BudgetPeriod.objects.get().reserved_usd == 5

    def test_between_the_ends_of_a_month_in_two_time_zones_it_is_still_that_month(self) -> None:
        agent = make_agent(time_zone="Europe/Berlin")
        make_budget(agent, "5", period=Budget.Period.MONTH)
        assert isinstance(try_to_reserve(ask(agent, "4"))[0], Granted)
        Department.objects.update(time_zone="UTC")
        late = datetime(2026, 11, 30, 23, 30, tzinfo=UTC)  # December in Berlin, November in UTC
        assert isinstance(try_to_reserve(ask(agent, "4"), now=late)[0], Refused)
        assert isinstance(try_to_reserve(ask(agent, "4"), now=late + timedelta(hours=1))[0], Granted)
        assert BudgetPeriod.objects.count() == 2

    def test_other_departments_do_not_count(self) -> None:
        ours, theirs = make_agent(), make_agent(department_slug="theirs")
        make_budget(theirs, "0")
        assert try_to_reserve(ask(ours)) == [Granted(())]

    @pytest.mark.django_db(transaction=True)
    def test_it_refuses_to_work_outside_of_a_transaction(self) -> None:
        with pytest.raises(RuntimeError, match="transaction of the claim"):
            reserve([ask(make_agent())], now=NOW)


@pytest.mark.django_db
class TestSettle:
    def test_the_actual_cost_takes_the_place_of_the_reservation(self) -> None:
        agent = make_agent()
        make_budget(agent)
        (granted,) = try_to_reserve(ask(agent, "0.9"))
        settle([settlement(granted, "0.9", "0.12345678", tokens=400)])
        period = BudgetPeriod.objects.get()
        assert [period.reserved_usd, period.spent_usd] == [0, Decimal("0.12345678")]
        assert (period.reserved_tokens, period.spent_tokens) == (0, 400)

    def test_it_settles_in_the_period_that_reserved(self) -> None:
        agent = make_agent()
        make_budget(agent)
        late = datetime(2026, 11, 20, 23, 59, 59, tzinfo=UTC)
        (granted,) = try_to_reserve(ask(agent, "0.9"), now=late)
        try_to_reserve(ask(agent, "0.1"), now=late + timedelta(seconds=2))
        settle([settlement(granted, "0.9", "0.5")])
        assert list(BudgetPeriod.objects.order_by("starts_at").values_list("spent_usd", "reserved_usd")) == [
            (Decimal("0.5"), 0),
            (0, Decimal("0.1")),
        ]

    def test_many_settlements_are_two_statements(self) -> None:
        agent = make_agent()
        make_budget(agent, "100")
        answers = try_to_reserve(*(ask(agent, "0.1", key=n) for n in range(40)))
        with CaptureQueriesContext(connection) as queries:
            settle([settlement(answer, "0.1", "0.05") for answer in answers])
        assert len([q for q in queries if "SAVEPOINT" not in q["sql"]]) == 2
        assert BudgetPeriod.objects.get().spent_usd == 2

    def test_nothing_reserved_asks_the_database_nothing(self) -> None:
        with CaptureQueriesContext(connection) as queries:
            settle([Settlement((), Decimal(0), 0, Decimal("0.1"), 10)])
        assert len(queries) == 0

    def test_a_budget_deleted_meanwhile_is_no_trouble(self) -> None:
        agent = make_agent()
        make_budget(agent)
        (granted,) = try_to_reserve(ask(agent))
        Budget.objects.all().delete()
        settle([settlement(granted, "0.4", "0.1")])
        assert not BudgetPeriod.objects.exists()

    def test_settling_twice_makes_no_room(self, caplog: pytest.LogCaptureFixture) -> None:
        agent = make_agent()
        make_budget(agent)
        (granted,) = try_to_reserve(ask(agent, "0.4"))
        for _ in range(2):
            settle([settlement(granted, "0.4", "0.3")])
        period = BudgetPeriod.objects.get()
        assert [period.reserved_usd, period.spent_usd] == [0, Decimal("0.6")]
        assert "settled for more than it had reserved" in caplog.text


AMOUNTS = st.decimals("0.00000001", "0.7", places=8)
STEPS = st.lists(st.tuples(st.sampled_from(["reserve", "settle"]), AMOUNTS, st.integers(0, 2)), max_size=25)


@pytest.mark.django_db
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=STEPS)
def test_no_sequence_of_calls_overruns_a_budget(steps: list[tuple[str, Decimal, int]]) -> None:
    Budget.objects.all().delete()
    agents = [make_agent(f"agent{n}") for n in range(3)]
    make_budget(agents[0], "2")
    make_budget(agents[0], "1", agent=agents[0])
    open_calls: list[tuple[Granted, Decimal]] = []
    spent = Decimal(0)
    for what, amount, number in steps:
        if what == "reserve":
            (answer,) = try_to_reserve(ask(agents[number], str(amount)))
            if isinstance(answer, Granted):
                open_calls.append((answer, amount))
        elif open_calls:
            granted, reserved = open_calls.pop(0)
            cost = min(reserved, amount)
            spent += cost
            settle([Settlement(granted.period_ids, reserved, 1_000, cost, 500)])
        for period in BudgetPeriod.objects.select_related("budget"):
            assert period.budget.limit_usd is not None
            assert 0 <= period.reserved_usd + period.spent_usd <= period.budget.limit_usd
    whole = BudgetPeriod.objects.filter(budget__agent=None).first()
    if whole is not None:
        assert (whole.reserved_usd, whole.spent_usd) == (sum((r for _, r in open_calls), Decimal(0)), spent)


@pytest.mark.django_db(transaction=True)
class TestRaces:
    """Two threads with connections of their own, as two shifts have them."""

    def race(self, work: Callable[[int], None]) -> None:
        barrier, errors = threading.Barrier(2), list[BaseException]()

        def run(number: int) -> None:
            try:
                barrier.wait(10)
                work(number)
            except BaseException as error:
                errors.append(error)
            finally:
                connection.close()

        threads = [threading.Thread(target=run, args=(number,)) for number in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert not errors
        assert not any(thread.is_alive() for thread in threads)

    def test_two_shifts_never_reserve_more_than_there_is(self) -> None:
        agent = make_agent()
        make_budget(agent, "2")
        granted: list[Granted] = []

        def work(number: int) -> None:
            for step in range(15):
                (answer,) = try_to_reserve(ask(agent, "0.1", key=step))
                if isinstance(answer, Granted):
                    granted.append(answer)

        self.race(work)
        assert len(granted) == 20
        assert BudgetPeriod.objects.get().reserved_usd == 2

    def test_reserving_and_settling_at_once_loses_nothing(self) -> None:
        writer, other = make_agent(), make_agent("other")
        make_budget(writer, "1000")
        make_budget(writer, "1000", agent=other)

        def work(number: int) -> None:
            agent = (writer, other)[number]
            for _ in range(15):
                answers = try_to_reserve(*(ask(agent, "0.3", key=n) for n in range(3)))
                settle([settlement(answer, "0.3", "0.1") for answer in answers])

        self.race(work)
        period = BudgetPeriod.objects.get(budget__agent=None)
        assert [period.reserved_usd, period.spent_usd] == [0, Decimal("9.0")]
        assert (period.reserved_tokens, period.spent_tokens) == (0, 90_000)

    @pytest.mark.parametrize(
        ("how", "is_granted"),
        [("raised", True), ("switched off", True), ("deleted", True), ("lowered", False), ("made", False)],
    )
    def test_who_waits_for_a_change_goes_by_what_it_has_made_of_the_budget(self, how: str, is_granted: bool) -> None:
        agent = make_agent()
        budget = make_budget(agent, "5" if how == "lowered" else "1")
        try_to_reserve(ask(agent, "0.9" if how != "made" else "0.1"))
        answers: list[Granted | Refused] = []

        def claim() -> None:
            try:
                answers.extend(try_to_reserve(ask(agent, "0.9")))
            finally:
                connection.close()

        with transaction.atomic():
            begin_change()
            thread = threading.Thread(target=claim)
            thread.start()
            wait_until_one_waits(thread)
            if how == "deleted":
                budget.delete()
            elif how == "made":
                make_budget(agent, "0.5", agent=agent)
            else:
                budget.limit_usd = Decimal("1.5") if how == "lowered" else Decimal(5)
                budget.is_enabled = how != "switched off"
                budget.save()
        thread.join(20)
        assert [isinstance(answer, Granted) for answer in answers] == [is_granted]
        # Refused by what was, it would wait for the next day: what was made due did not include who is just claimed.
        assert BudgetPeriod.objects.filter(reserved_usd=Decimal("1.8")).count() == (how == "raised")

    def test_who_changes_a_budget_waits_for_reservations_under_way(self) -> None:
        if connection.vendor != "postgresql":
            pytest.skip("SQLite has one writer at a time.")
        agent, changed = make_agent(), list[int]()

        def change() -> None:
            try:
                with transaction.atomic():
                    begin_change()
                    changed.append(BudgetPeriod.objects.filter(reserved_usd="0.4").count())
            finally:
                connection.close()

        make_budget(agent)
        with transaction.atomic():
            reserve([ask(agent)], now=NOW)
            thread = threading.Thread(target=change)
            thread.start()
            wait_until_one_waits(thread)
            assert not changed
        thread.join(20)
        assert changed == [1]


def wait_until_one_waits(thread: threading.Thread) -> None:
    """Until the thread's transaction waits for this one. On SQLite it waits from its first moment."""
    if connection.vendor != "postgresql":
        return
    until = time.monotonic() + 10
    with connection.cursor() as cursor:
        while thread.is_alive() and time.monotonic() < until:
            cursor.execute(
                "SELECT count(*) FROM pg_locks WHERE NOT granted AND locktype = 'advisory'"
                " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
            )
            if cursor.fetchone()[0]:
                return
    raise AssertionError("Nobody waits for the lock.")
