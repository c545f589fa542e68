from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from io import StringIO
from typing import Any

import pytest
from django.core.management import CommandError, call_command

from agents.models import Agent
from runs.costs import dimensions
from runs.models import ItemOutcome, ModelCall
from tests.factories import make_department
from tests.runs.test_views_costs import DAY, item_of, make_costs

pytestmark = pytest.mark.django_db
DAYS = ("--from", "2026-11-10", "--to", "2026-11-10")


def report(*arguments: str) -> dict[str, Any]:
    out = StringIO()
    call_command("costs", *DAYS, *arguments, stdout=out)
    found: dict[str, Any] = json.loads(out.getvalue())
    return found


def test_the_lines_and_their_sum_are_exact() -> None:
    department = make_department()
    make_costs(department, "0.12345678")
    make_costs(department, "0.00000001")
    found = report()
    assert found["total"]["cost_usd"] == "0.12345679"
    assert found["try_outs"] == found["checks"] == {"calls": 0, "cost_usd": "0.00000000"}
    assert [line["cost_usd"] for line in found["by"]["agent"]] == ["0.12345679"]


def test_it_breaks_down_by_several_dimensions_at_once_and_they_agree() -> None:
    department = make_department()
    make_costs(department, "0.12345678")
    make_costs(department, "0.3")
    names = dimensions([department.spec])
    found = report(*(argument for name in names for argument in ("--by", name)))
    assert tuple(found["by"]) == names
    for name, lines in found["by"].items():
        assert sum(Decimal(line["cost_usd"]) for line in lines) == Decimal("0.42345678"), name


def test_it_compares_with_the_days_before_and_says_what_brought_nothing() -> None:
    department = make_department()
    make_costs(department, "0.30")
    wasted = make_costs(department, "0.10")
    ModelCall.objects.filter(pk=wasted.pk).update(cause="timeout")
    make_costs(department, "0.20", DAY - timedelta(days=1))
    found = report("--by", "agent", "--by", "item")
    assert found["compared_with"] == {"from": "2026-11-09", "to": "2026-11-09"}
    total = found["total"]
    assert (total["before_usd"], total["change_percent"], total["waste_percent"]) == ("0.20000000", 100, 25)
    assert found["by"]["agent"][0]["before_usd"] == "0.20000000"


def test_it_says_what_one_of_each_outcome_cost() -> None:
    department = make_department()
    call = make_costs(department, "0.30")
    other = make_costs(department, "0.30")
    for item, at in ((item_of(call), DAY), (item_of(other), DAY), (item_of(other), datetime(2026, 11, 9, tzinfo=UTC))):
        name = "reply" if at == DAY else "meeting"
        ItemOutcome.objects.create(department=department, item=item, outcome=name, at=at)
    assert report()["outcomes"] == [
        {"outcome": "qualified lead", "count": 0, "usd_each": None},
        {"outcome": "reply", "count": 2, "usd_each": "0.30000000"},
        {"outcome": "meeting", "count": 0, "usd_each": None},
    ]


def test_it_says_what_other_models_had_cost_and_what_the_cache_saved() -> None:
    department = make_department()
    call = make_costs(department)
    ModelCall.objects.filter(pk=call.pk).update(input_tokens=1_000_000, cache_read_tokens=1_000_000, output_tokens=0)
    found = report("--what-if", "intake=claude-opus-5-5")
    dearer = Decimal(found["what_if"]["one_model"]["claude-opus-5-5"])
    assert Decimal(found["what_if"]["chosen_usd"]) == dearer > Decimal("4")
    batches = found["what_if"]["as_batches"]
    assert Decimal(batches["one_model"]["claude-opus-5-5"]) == dearer / 2
    assert Decimal(batches["as_it_was"]) == Decimal(found["total"]["cost_usd"]) / 2
    (line,) = found["by"]["agent"]
    assert line["prompt_cache"] == found["prompt_cache"]
    assert line["prompt_cache"]["read_percent"] == 50
    assert Decimal(line["prompt_cache"]["saved_usd"]) > 0
    assert report()["what_if"]["chosen_usd"] is None
    assert Agent.objects.filter(slug="intake").count() == 1


def test_a_department_can_be_chosen() -> None:
    make_costs(make_department(slug="ours"), "1")
    make_costs(make_department(slug="theirs"), "2")
    assert report("--department", "ours", "--by", "day")["total"]["cost_usd"] == "1.00000000"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--by", "agent", "--by", "colour"], "by 'colour', only by agent, model"),
        (["--department", "nobody"], "There is no department nobody"),
        (["--from", "2026-12-01"], "--from lies after --to"),
        (["--to", "0001-01-05"], "invalid _day value"),
        (["--from", "2026-11-01", "--to", "9999-12-31"], "invalid _day value"),
        (["--what-if", "nobody=claude-opus-5-5"], "No agent of these departments is called 'nobody'"),
        (["--what-if", "intake=gpt"], "'gpt' has no price"),
    ],
)
def test_what_cannot_be_is_refused(arguments: list[str], message: str) -> None:
    make_department()
    with pytest.raises(CommandError, match=message):
        report(*arguments)
