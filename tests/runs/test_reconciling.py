from __future__ import annotations

from datetime import UTC, date, datetime
from decimal import Decimal
from io import StringIO
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command

from runs.cost_moves import TOKENS
from runs.cost_sums import Period, total
from runs.costs import break_down
from runs.models import AgentRun, ModelCall
from runs.reconciling import Unreadable, compare, our_figures, read_export
from tests.factories import make_agent_run, make_department, make_lead, make_model_call

pytestmark = pytest.mark.django_db
DAY = datetime(2026, 11, 10, 12, tzinfo=UTC)
HEADER = (
    "usage_date_utc,model_version,usage_input_tokens_no_cache,usage_output_tokens,usage_input_tokens_cache_read,cost"
)
GOOD = f'{HEADER}\n2026-11-10,claude-haiku-5-5,"1,800",420,0,0.00039\n'


def make_calls() -> None:
    run = make_agent_run(make_lead(make_department()).item, "intake")
    for _ in range(2):
        make_model_call(run, model_used="claude-haiku-5-5", started_at=DAY)
    make_model_call(run, model_used="claude-haiku-5-5", status="started", started_at=DAY)
    make_model_call(run, model_used="claude-haiku-5-5", started_at=datetime(2026, 11, 12, tzinfo=UTC))


def run(tmp_path: Path, text: str, *options: str) -> str:
    path, out = tmp_path / "usage.csv", StringIO()
    path.write_text(text, encoding="utf-8")
    try:
        call_command("reconcile_costs", "--usage-export", str(path), *options, stdout=out)
    except CommandError as error:
        return f"{out.getvalue()}ERROR {error}"
    return out.getvalue()


def test_an_export_that_agrees(tmp_path: Path) -> None:
    make_calls()
    assert run(tmp_path, GOOD) == (
        "Not compared, as the export has no column for it: cache write 5m tokens, cache write 1h tokens.\n"
        "1 of 1 days and models agree (2026-11-10 to 2026-11-10, UTC).\n"
    )


def test_every_difference_is_named_by_day_and_model(tmp_path: Path) -> None:
    make_calls()
    text = run(
        tmp_path, f"{HEADER}\n2026-11-10,claude-haiku-5-5,1800,421,5,0.0005\n2026-11-11,claude-opus-5-5,1,1,0,1\n"
    )
    assert "2026-11-10  claude-haiku-5-5" in text
    assert "output tokens: ours 420, theirs 421" in text
    assert "cache read tokens: ours 0, theirs 5" in text
    assert "cost: ours 0.00039000 USD, theirs 0.00050000 USD" in text
    assert "2026-11-11  claude-opus-5-5\n    only in the export" in text
    assert "ERROR 0 of 2 days and models agree" in text


def test_a_file_that_is_no_table_is_refused_in_words(tmp_path: Path) -> None:
    text = f'{HEADER}\n2026-11-10,"{"x" * 200_000}",1,2,0,0\n'
    assert "ERROR" in run(tmp_path, text)
    assert "field larger than field limit" in run(tmp_path, text)


def test_costs_rounded_to_cents_are_compared_as_such() -> None:
    make_calls()
    theirs = read_export([HEADER, "2026-11-10,claude-haiku-5-5,1800,420,0,0.00"])
    assert compare(our_figures(DAY.date(), DAY.date()), theirs) == []
    theirs = read_export([HEADER, "2026-11-10,claude-haiku-5-5,1800,420,0,0.01"])
    assert len(compare(our_figures(DAY.date(), DAY.date()), theirs)) == 1


@pytest.mark.parametrize(
    ("costs", "ours", "agrees"),
    [
        (["0.01"] * 5, "0.07", True),  # five lines of 0.014
        (["0.01"] * 5, "0.076", False),
        (["12"], "12.49", False),
        (["12"], "12.004", True),
        (["1E+1"], "12", False),
    ],
)
def test_each_line_may_be_off_by_its_rounding_and_never_by_more_than_half_a_cent(
    costs: list[str], ours: str, agrees: bool
) -> None:
    make_model_call(make_agent_run(make_lead(make_department()).item, "intake"), model_used="m", started_at=DAY)
    ModelCall.objects.update(cost_usd=ours, input_tokens=10, output_tokens=10)
    lines = [
        f"2026-11-10,m,{10 if number == 0 else 0},{10 if number == 0 else 0},0,{c}" for number, c in enumerate(costs)
    ]
    found = compare(our_figures(DAY.date(), DAY.date()), read_export([HEADER, *lines]))
    assert (found == []) is agrees


def test_what_the_export_has_no_column_for_is_not_compared_and_said(tmp_path: Path) -> None:
    make_calls()
    ModelCall.objects.update(cache_read_tokens=50, cache_write_5m_tokens=300, cache_write_1h_tokens=40)
    header, figures = "date,model,input_tokens,output_tokens", "2026-11-10,claude-haiku-5-5,1800,420"
    text = run(tmp_path, f"{header}\n{figures}\n")
    missing = "cache write 5m tokens, cache write 1h tokens, cache read tokens, cost"
    assert text.startswith(f"Not compared, as the export has no column for it: {missing}.\n1 of 1 days")
    text = run(tmp_path, f"{header},cache_creation_input_tokens\n{figures},680\n")
    assert text.startswith("Not compared, as the export has no column for it: cache read tokens, cost.\n1 of 1 days")
    text = run(tmp_path, f"{header},cache_creation_input_tokens\n{figures},600\n")
    assert "    cache write tokens: ours 680, theirs 600\n" in text


def test_days_that_the_export_lacks_are_compared_on_request(tmp_path: Path) -> None:
    make_calls()
    assert "claude-haiku-5-5\n    only in Kontor: 0.00019500 USD\n" in run(tmp_path, GOOD, "--to", "2026-11-12")
    assert "ERROR 1 of 2 days and models agree (2026-11-01 to 2026-11-12, UTC)" in run(
        tmp_path, GOOD, "--from", "2026-11-01", "--to", "2026-11-12"
    )
    assert "ERROR 0 of 1 days and models agree" in run(tmp_path, GOOD, "--from", "2026-11-11", "--to", "2026-11-12")
    assert "no days from 2026-11-12 to 2026-11-10" in run(tmp_path, GOOD, "--from", "2026-11-12")


def test_a_difference_says_how_much_of_it_is_estimated(tmp_path: Path) -> None:
    make_calls()
    make_model_call(
        AgentRun.objects.get(), status="unseen", model_used="", model_asked="claude-haiku-5-5", started_at=DAY,
        input_tokens=0, output_tokens=0, cost_usd="0.5", is_estimate=True,
    )  # fmt: skip
    text = run(tmp_path, GOOD)
    assert "    cost: ours 0.50039000 USD (0.50000000 of it estimated), theirs 0.00039000 USD\n" in text
    assert "tokens:" not in text


def test_prompts_that_were_refused_count_as_on_the_costs_page_and_are_told_apart(tmp_path: Path) -> None:
    make_calls()
    owner = AgentRun.objects.get()
    values = {"model_used": "claude-haiku-5-5", "started_at": DAY, "cause": "refusal", "cost_usd": 0}
    make_model_call(owner, output_tokens=0, input_tokens=1_000, cache_read_tokens=34, **values)
    assert "1 of 1 days and models agree" in run(tmp_path, GOOD)
    page = total(break_down([owner.department], Period(DAY.date(), DAY.date()), "agent"))
    (ours,) = our_figures(DAY.date(), DAY.date()).values()
    assert {name: ours.tokens[name] for name in TOKENS} == page.tokens
    text = run(tmp_path, GOOD.replace("1,800", "2,800"))
    assert "input tokens: ours 1,800, theirs 2,800" in text
    assert "not billed: 1,034 tokens of prompts that were refused before any output" in text


def test_lines_of_one_day_and_model_are_added() -> None:
    found = read_export([HEADER, "2026-11-10,m,1,2,3,0.5", "2026-11-10T08:00:00Z,m,10,20,30,$0.25"])
    ((key, figures),) = found.items()
    assert (key.day, figures.cost_usd) == (date(2026, 11, 10), Decimal("0.75"))
    assert (figures.tokens["input_tokens"], figures.tokens["cache_read_tokens"]) == (11, 33)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["day,model,input_tokens"], "no column for output_tokens"),
        (["", ""], "no column for day, model"),
        ([HEADER, "yesterday,m,1,2,3,0"], "Line 2 cannot be read"),
        ([HEADER, "2026-11-10,m,1,2,3,0", "2026-11-10,m,many,2,3,0"], "Line 3 cannot be read"),
        ([HEADER, "2026-11-10,,1,2,3,0"], "Line 2 names no model"),
        ([HEADER, "2026-11-10,m,1,2,3,NaN"], "Line 2 cannot be read: 'NaN' is no amount of dollars"),
        ([HEADER, '2026-11-10,m,1,2,3,"12,49"'], "Line 2 cannot be read: '12,49' is no amount of dollars"),
        ([HEADER, "2026-11-10,m"], "Line 2 cannot be read"),
    ],
)
def test_an_export_that_cannot_be_read_says_why(lines: list[str], message: str) -> None:
    with pytest.raises(Unreadable, match=message):
        read_export(lines)


def test_the_command_says_what_is_wrong_with_the_file(tmp_path: Path) -> None:
    assert "there is nothing to compare" in run(tmp_path, f"{HEADER}\n")
    with pytest.raises(CommandError, match="cannot be opened"):
        call_command("reconcile_costs", "--usage-export", str(tmp_path / "none.csv"))
