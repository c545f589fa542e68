"""The rollups of costs against the sum over the calls, whatever happens to the calls and in whatever order."""

from __future__ import annotations

import random
from collections.abc import Iterable
from copy import copy
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from functools import partial
from typing import Any
from uuid import uuid4

import pytest
from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext

from agents.causes import Cause
from agents.models import Budget, Department
from agents.pricing import Usage, load_price_book, sync_prices
from runs import cost_items, cost_moves, cost_rollups
from runs.budget_counts import count_past
from runs.cost_moves import TOKENS, group_calls
from runs.cost_report import make_reports
from runs.cost_rollups import BREATH_SECONDS, keep_up, roll_up
from runs.cost_sums import Cost, Period, total
from runs.cost_unrolled import sum_unrolled, sum_unrolled_items, unrolled, unrolled_calls
from runs.costs import Ledger, break_down
from runs.database import snapshot
from runs.models import AgentRun, CostRollup, Item, ItemCost, ModelCall
from runs.reconciling import our_figures
from runs.what_if import load_usages, what_if
from tests.engine import in_threads
from tests.factories import make_agent_run, make_department, make_lead, make_model_call
from tests.runs.test_races import ORDERS, meet, times

pytestmark = pytest.mark.django_db
FIRST = date(2026, 11, 2)
PERIOD = Period(FIRST, FIRST + timedelta(days=6))
ALL_DIMENSIONS = ("agent", "model", "soul", "department", "day", "item", "status", "source")


def make_calls(department: Department, count: int, seed: int = 1) -> list[ModelCall]:
    """Settled, unseen and started calls of several agents, models and days, a few of them outside the period."""
    chance = random.Random(seed)
    items = [make_lead(department, source=chance.choice(["web", "fair", ""])).item for _ in range(5)]
    runs = [make_agent_run(item, slug) for item in items for slug in ("intake", "qualifier")]
    return [_make_call(chance.choice(runs), chance, number) for number in range(count)]


def _make_call(run: AgentRun, chance: random.Random, number: int) -> ModelCall:
    status = chance.choice(["finished", "finished", "finished", "unseen", "started"])
    reserved = Decimal(chance.randrange(10**6)).scaleb(-8)
    is_unseen = status == "unseen"
    return make_model_call(
        run,
        number=number + 1,
        status=status,
        model_asked=chance.choice(["claude-haiku-5-5", "claude-sonnet-5-5"]),
        model_used="" if status != "finished" else chance.choice(["", "claude-sonnet-5-5"]),
        cause=chance.choice(["", "", Cause.TRANSIENT]) if status == "finished" else "",
        reserved_usd=reserved,
        cost_usd=reserved if is_unseen else Decimal(chance.randrange(10**6)).scaleb(-8) if status == "finished" else 0,
        is_estimate=is_unseen,
        started_at=datetime(2026, 11, 1, 23, 59, tzinfo=UTC) + timedelta(hours=chance.randrange(9 * 24)),
        **{name: chance.randrange(5_000) if status == "finished" else 0 for name in TOKENS},
    )


def expected(period: Period = PERIOD) -> Cost:
    """The sum over the calls themselves, made in Python."""
    begin, end = period.moments
    found = Cost()
    for call in ModelCall.objects.exclude(status="started").filter(started_at__gte=begin, started_at__lt=end):
        found.calls += 1
        found.usd += call.cost_usd
        is_waste = bool(call.cause or call.error) or call.status == "unseen"
        found.waste_usd += call.cost_usd if is_waste else 0
        found.estimated_usd += call.cost_usd if call.is_estimate else 0
        for name in TOKENS:
            found.tokens[name] += getattr(call, name)
    return found


def assert_equal_everywhere(departments: list[Department]) -> None:
    """Every dimension adds up to the calls, to the last digit."""
    wanted = expected()
    for by in ALL_DIMENSIONS:
        found = total(break_down(departments, PERIOD, by))
        assert (found.calls, found.usd, found.waste_usd) == (wanted.calls, wanted.usd, wanted.waste_usd), by
        if by in ("agent", "model", "soul", "department", "day"):
            assert (found.tokens, found.estimated_usd) == (wanted.tokens, wanted.estimated_usd), by


def test_every_dimension_equals_the_sum_over_the_calls_before_during_and_after_the_rollup() -> None:
    department = make_department()
    make_calls(department, 60)
    assert_equal_everywhere([department])
    roll_up(seconds=0, batch=25)
    assert CostRollup.objects.exists()
    assert ModelCall.objects.filter(rolled="", status="finished").exists()
    assert_equal_everywhere([department])
    roll_up()
    make_calls(department, 20, seed=2)
    assert_equal_everywhere([department])
    roll_up()
    assert_equal_everywhere([department])


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_what_the_database_adds_up_is_what_the_calls_come_to_one_by_one(seed: int) -> None:
    make_calls(make_department(), 60, seed=seed)
    chance = random.Random(seed)
    for call in ModelCall.objects.exclude(status="started"):
        call.error = chance.choice(["", "", "of no use", "not taken"])
        call.cause = chance.choice(["", "", Cause.REFUSAL]) if call.status == "finished" else ""
        call.output_tokens *= chance.choice([0, 1])
        call.rolled = chance.choice(["", "unseen", "used"]) if call.status == "finished" else ""
        call.save(update_fields=["error", "cause", "output_tokens", "rolled"])
    found = sum_unrolled()
    assert len(found) > 20
    assert (found, sum_unrolled_items()) == group_calls(unrolled_calls())


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_sums_by_the_database_are_exact_to_the_last_digit(seed: int) -> None:
    """Thousands of costs at once: floats, which SQLite would add, are off by then."""
    run, chance = make_agent_run(make_lead(make_department()).item, "intake"), random.Random(seed)
    first = make_model_call(run, number=0, started_at=PERIOD.moments[0])
    costs = [Decimal(chance.randrange(10**8)).scaleb(-8) for _ in range(2_000)]
    first.reserved_usd, calls = Decimal(0), []
    for number, usd in enumerate(costs, 1):
        call = copy(first)
        call.pk, call.number, call.call_id = None, number, uuid4()
        call.cost_usd, call.reserved_usd = usd, usd
        call.status = "unseen" if number % 2 else "finished"
        calls.append(call)
    first.delete()
    ModelCall.objects.bulk_create(calls)
    found = sum_unrolled()
    assert sum(sums.values[-1] for sums in found.values()) == int(sum(costs) * 10**8)
    assert (found, sum_unrolled_items()) == group_calls(unrolled_calls())
    figures = our_figures(FIRST, FIRST)
    assert [figure.cost_usd for figure in figures.values()] == [sum(costs)]
    budget = Budget(department=run.department, period="day", limit_usd=1)
    assert count_past(budget, now=PERIOD.moments[0] + timedelta(hours=1)).usd == sum(costs[1::2])


def test_alike_calls_are_read_as_one(monkeypatch: pytest.MonkeyPatch) -> None:
    run = make_agent_run(make_lead(make_department()).item, "intake")
    for number in range(12):
        make_model_call(run, number=number, started_at=PERIOD.moments[0], output_tokens=number // 6)
    read: list[int] = []
    moves_of = cost_moves.moves_of

    def seen(rows: Iterable[dict[str, Any]]) -> Any:
        found = list(rows)
        read.extend(row["count"] for row in found)
        return moves_of(found)

    monkeypatch.setattr("runs.cost_unrolled.moves_of", seen)
    (sums,) = sum_unrolled().values()
    assert sums.values[0] == 12
    assert sorted(read) == [6, 6], "those without output, which a refusal is asked for, and the others"
    read.clear()
    (units,) = sum_unrolled_items().values()
    assert (units[0], sorted(read)) == (12, [6, 6])


def test_the_days_before_agree_too_by_every_dimension() -> None:
    department = make_department()
    make_calls(department, 60)
    period = Period(FIRST + timedelta(days=3), FIRST + timedelta(days=6))
    for _ in range(2):
        for by in ALL_DIMENSIONS:
            found, before = Ledger([department]).compare(period, by)
            assert total(found).usd == expected(period).usd, by
            assert before.usd == expected(period.before).usd, by
            assert {cost.key for cost in found} - {None} <= {*before.by_key} or by in ("day", "agent", "model"), by
        roll_up(seconds=0, batch=40)


def test_the_figures_above_the_table_are_those_of_the_calls_by_whatever_it_is_broken_down() -> None:
    department = make_department()
    make_calls(department, 60)
    wanted = expected()
    for _ in range(2):
        for report in make_reports([department], PERIOD, ALL_DIMENSIONS):
            whole = report.whole.cost
            assert (whole.calls, whole.usd, whole.waste_usd) == (wanted.calls, wanted.usd, wanted.waste_usd), report.by
            assert (whole.tokens, whole.estimated_usd) == (wanted.tokens, wanted.estimated_usd), report.by
            assert total(line.cost for line in report.lines).usd == whole.usd, report.by
            assert whole.items == (5 if report.by in ("item", "status", "source") else 0)
        roll_up()


def test_an_item_is_compared_with_itself() -> None:
    department = make_department()
    period = Period(FIRST, FIRST)
    for usd, at in ((2, period.moments[0]), (7, period.before.moments[0])):
        for name in ("Anna", "Bert"):
            run = make_agent_run(make_lead(department, name=name).item, "intake")
            if (name, usd) != ("Anna", 7):
                make_model_call(run, status="finished", cost_usd=usd, started_at=at)
    run = make_agent_run(Item.objects.filter(title="Bert").order_by("pk")[0], "qualifier")
    make_model_call(run, status="finished", cost_usd=5, started_at=period.before.moments[0])
    for _ in range(2):
        found, before = Ledger([department]).compare(period, "item")
        assert {cost.label: before.by_key[cost.key] for cost in found} == {"Anna": 0, "Bert": 5}
        assert before.by_key[None] == 7
        assert before.usd == 12
        roll_up()


def test_a_call_that_was_given_up_and_answers_late_is_counted_once() -> None:
    department = make_department()
    run = make_agent_run(make_lead(department).item, "intake")
    call = make_model_call(
        run, status="unseen", reserved_usd="0.5", cost_usd="0.5", is_estimate=True, started_at=PERIOD.moments[0]
    )
    roll_up()
    assert total(break_down([department], PERIOD, "agent")).estimated_usd == Decimal("0.5")
    ModelCall.objects.filter(pk=call.pk).update(status="finished", cost_usd="0.01", is_estimate=False, input_tokens=7)
    for _ in range(2):
        found = total(break_down([department], PERIOD, "agent"))
        assert (found.calls, found.usd, found.tokens["input_tokens"]) == (1, Decimal("0.01"), 7)
        assert not found.estimated_usd
        assert total(break_down([department], PERIOD, "item")).usd == Decimal("0.01")
        roll_up()
    assert roll_up() == 0


def test_it_adds_nothing_twice() -> None:
    department = make_department()
    make_calls(department, 30)
    roll_up()
    before = list(CostRollup.objects.order_by("pk").values()), list(ItemCost.objects.order_by("pk").values())
    assert roll_up() == 0
    assert (list(CostRollup.objects.order_by("pk").values()), list(ItemCost.objects.order_by("pk").values())) == before


@pytest.mark.django_db(transaction=True)
def test_two_workers_at_once_add_every_call_once() -> None:
    department = make_department()
    make_calls(department, 80)
    wanted = expected()
    in_threads(lambda number: roll_up(batch=7), 3)
    roll_up()
    found = total(break_down([department], PERIOD, "day"))
    assert (found.calls, found.usd) == (wanted.calls, wanted.usd)
    assert_days_are_linked()


def assert_days_are_linked() -> None:
    """Each day of an item knows the one before it, told apart here in Python."""
    before: dict[int, date] = {}
    for row in ItemCost.objects.order_by("item", "day"):
        assert row.day_before == before.get(row.item_id), row
        before[row.item_id] = row.day


def count_items(departments: list[Department], period: Period) -> set[int]:
    """The items of the calls themselves."""
    begin, end = period.moments
    calls = ModelCall.objects.exclude(status="started").filter(department__in=departments)
    return set(calls.filter(started_at__gte=begin, started_at__lt=end).values_list("item", flat=True))


@pytest.mark.parametrize("seed", range(2))
def test_items_are_counted_once_whatever_days_they_were_worked_on_and_rolled_up_in(seed: int) -> None:
    department, chance = make_department(), random.Random(seed)
    calls = make_calls(department, 40, seed)
    chance.shuffle(calls)
    # The later days of an item may come first: each call is rolled up on its own.
    ModelCall.objects.filter(pk__in=[call.pk for call in calls]).update(rolled="done")
    for number, call in enumerate(calls):
        ModelCall.objects.filter(pk=call.pk).update(rolled="")
        if number % 3 == 0:
            roll_up()
            assert_days_are_linked()
    roll_up()
    assert_days_are_linked()
    for _ in range(5):
        first, last = sorted(FIRST + timedelta(days=chance.randrange(-1, 8)) for _ in range(2))
        period = Period(first, last)
        for by in ("item", "status", "source"):
            assert total(break_down([department], period, by)).items == len(count_items([department], period)), by


@pytest.mark.django_db(transaction=True)
@ORDERS
def test_two_who_add_two_days_of_one_item_know_of_each_other(order: str) -> None:
    department = make_department()
    for _ in times(order):
        run = make_agent_run(make_lead(department).item, "intake")
        calls = [make_model_call(run, number=n, started_at=PERIOD.moments[0] + timedelta(days=n)) for n in (1, 2)]
        rows = list(ModelCall.objects.filter(pk__in=[call.pk for call in calls]).values())

        def add(number: int, rows: list[Any] = rows) -> None:
            with transaction.atomic():
                cost_rollups._add_to_items(group_calls([rows[number]])[1])

        meet(partial(add, 0), partial(add, 1), order)
        assert_days_are_linked()
        assert ItemCost.objects.filter(item=run.item_id).count() == 2


@pytest.mark.django_db(transaction=True)
def test_others_write_between_two_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    make_calls(make_department(), 60)
    pauses: list[float] = []

    def write_meanwhile(seconds: float) -> None:
        pauses.append(seconds)
        in_threads(lambda number: Item.objects.update(priority=len(pauses)), 1)

    monkeypatch.setattr("runs.cost_rollups.time.sleep", write_meanwhile)
    count = roll_up(batch=20)
    # SQLite looks for a lock that it waits for each 100 ms.
    assert pauses == ([BREATH_SECONDS] * (count // 20) if connection.vendor == "sqlite" else [])
    assert count > 20
    assert BREATH_SECONDS > 0.1


def test_looking_for_calls_to_roll_up_reads_its_own_small_index() -> None:
    department = make_department()
    make_calls(department, 5)
    for rows in (unrolled().order_by("pk"), unrolled().order_by("pk").values("pk", "department_id")):
        plan = rows.explain()
        if connection.vendor == "postgresql":
            with connection.cursor() as cursor:
                cursor.execute("SET LOCAL enable_seqscan = off")
            plan = rows.explain()
        assert "model_call_to_roll" in plan


def test_the_worker_keeps_up_in_small_steps_until_nothing_is_left() -> None:
    department = make_department()
    make_calls(department, 30)
    settled = ModelCall.objects.exclude(status="started").count()
    assert keep_up() == settled
    with CaptureQueriesContext(connection) as queries:
        assert keep_up() == 0
    assert len(queries) == 1, "a look that finds nothing takes no lock"


def test_one_department_does_not_see_the_others() -> None:
    ours, theirs = make_department(slug="ours"), make_department(slug="theirs")
    make_calls(ours, 20)
    roll_up()
    before = total(break_down([ours], PERIOD, "agent")).usd
    make_calls(theirs, 20, seed=3)
    roll_up()
    assert total(break_down([ours], PERIOD, "agent")).usd == before
    assert total(break_down([ours, theirs], PERIOD, "department")).usd == expected().usd


def test_the_days_are_those_of_utc_and_both_ends_count() -> None:
    department = make_department()
    run = make_agent_run(make_lead(department).item, "intake")
    begin, end = PERIOD.moments
    for number, at in enumerate((begin - timedelta(seconds=1), begin, end - timedelta(seconds=1), end), start=1):
        make_model_call(run, number=number, status="finished", cost_usd=number, started_at=at)
    for _ in range(2):
        assert [(c.key, c.usd) for c in break_down([department], PERIOD, "day")] == [
            (PERIOD.first, Decimal(2)),
            (PERIOD.last, Decimal(3)),
        ]
        roll_up()


def test_the_dearest_items_come_first_and_the_rest_is_one_row(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cost_items, "TOP_ITEMS", 2)
    department = make_department()
    for usd in (1, 5, 3, 2):
        run = make_agent_run(make_lead(department, name=f"Costs {usd}").item, "intake")
        make_model_call(run, status="finished", cost_usd=usd, started_at=PERIOD.moments[0])
    for _ in range(2):
        found = break_down([department], PERIOD, "item")
        assert [(cost.usd, cost.items) for cost in found] == [(Decimal(5), 1), (Decimal(3), 1), (Decimal(3), 2)]
        assert found[-1].label == "2 others"
        roll_up()


def test_what_the_same_items_cost_before_counts_also_what_is_not_in_the_sums(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cost_items, "TOP_ITEMS", 2)
    department = make_department()
    runs = [make_agent_run(make_lead(department, name=f"Lead {n}").item, "intake") for n in range(4)]
    for number, (now, earlier) in enumerate(((1, 10), (4, 20), (2, 0), (0, 40))):
        for usd, at in ((now, PERIOD.moments[0]), (earlier, PERIOD.before.moments[0])):
            if usd:
                make_model_call(runs[number], status="finished", cost_usd=usd, started_at=at)
    for _ in range(2):
        found, before = Ledger([department]).compare(PERIOD, "item")
        assert [cost.label for cost in found] == ["Lead 1", "Lead 2", "1 other"]
        assert [cost.usd for cost in found] == [4, 2, 1]
        assert [before.by_key[cost.key] for cost in found] == [20, 0, 50]
        assert before.usd == 70
        roll_up()


def test_by_status_the_first_item_of_the_days_before_has_its_status_too() -> None:
    """Items before the first of both periods are not looked at: that one must be."""
    department = make_department()
    for status, at in (("replied", PERIOD.before.moments[0]), ("contacted", PERIOD.moments[0])):
        run = make_agent_run(make_lead(department, status=status, name=status).item, "intake")
        make_model_call(run, status="finished", cost_usd=1, started_at=at)
    roll_up()
    found, before = Ledger([department]).compare(PERIOD, "status")
    assert {cost.key: cost.usd for cost in found} == {"contacted": Decimal(1)}
    assert before.by_key == {"contacted": 0, "replied": 1}


def test_items_count_once_by_status() -> None:
    department = make_department()
    run = make_agent_run(make_lead(department, status="replied").item, "intake")
    make_model_call(run, number=1, status="finished", cost_usd=1, started_at=PERIOD.moments[0])
    roll_up()
    make_model_call(run, number=2, status="finished", cost_usd=1, started_at=PERIOD.moments[0])
    (found,) = break_down([department], PERIOD, "status")
    assert (found.label, found.items, found.calls, found.usd) == ("Replied", 1, 2, Decimal(2))


def test_an_unknown_dimension_is_refused() -> None:
    with pytest.raises(LookupError, match="by 'colour'"):
        break_down([make_department()], PERIOD, "colour")


def test_what_the_same_tokens_had_cost_on_another_model() -> None:
    sync_prices()
    department = make_department()
    run = make_agent_run(make_lead(department).item, "intake")
    other = make_agent_run(make_lead(department).item, "qualifier")
    for one in (run, other):
        make_model_call(
            one, status="finished", model_asked="claude-haiku-5-5", model_used="claude-haiku-5-5",
            input_tokens=1_000, output_tokens=500, cost_usd="0.00035", started_at=PERIOD.moments[0],
        )  # fmt: skip
    prices = load_price_book()
    usages = load_usages([department], PERIOD, prices)
    assert what_if(usages, {}, prices) == Decimal("0.0007")
    sonnet = Usage(1_000, output_tokens=500)
    assert sonnet.total_tokens == 1_500
    assert what_if(usages, {run.agent_id: "claude-sonnet-5-5"}, prices) == Decimal("0.00035") + Decimal("0.007")


def test_a_breakdown_takes_few_queries(django_assert_max_num_queries: object) -> None:
    department = make_department()
    make_calls(department, 40)
    roll_up()
    most = {"agent": 3, "soul": 3, "item": 7, "status": 4, "source": 4}
    for by in ALL_DIMENSIONS:
        with django_assert_max_num_queries(9):  # type: ignore[operator]
            break_down([department], PERIOD, by)
        with django_assert_max_num_queries(most.get(by, 2)):  # type: ignore[operator]
            Ledger([department]).compare(PERIOD, by)
    assert connection.vendor in ("sqlite", "postgresql")
    assert Item.objects.count() == 5


@pytest.mark.django_db(transaction=True)
def test_a_page_sees_one_state_while_the_rollup_goes_on() -> None:
    department = make_department()
    make_calls(department, 40)
    wanted = expected()
    with snapshot():
        before = total(break_down([department], PERIOD, "agent"))
        in_threads(lambda number: roll_up(), 1)
        after = total(break_down([department], PERIOD, "agent"))
    assert before.usd == after.usd == wanted.usd
    assert total(break_down([department], PERIOD, "agent")).usd == wanted.usd
