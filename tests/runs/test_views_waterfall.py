"""The waterfall, the cards, the stepper and the words for times, from plain rows."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from decimal import Decimal

import pytest
from django.contrib.sessions.backends.db import SessionStore
from django.test import RequestFactory
from django.utils import timezone
from pydantic import BaseModel, Field

from agents.causes import Cause
from agents.spec import AgentSpec
from leads.department import SALES
from runs.models import AgentRun, ModelCall, PipelineRun
from runs.templatetags.kontor import describe_age, duration, measure, plain, usd, words
from runs.views.cards import build_card, build_field
from runs.views.items import item_context
from runs.views.shown import show_agent_run
from runs.views.waterfall import Lane, Waterfall, build_waterfall
from tests import factories

pytestmark = pytest.mark.django_db


def _fall(run: PipelineRun) -> Waterfall:
    steps = list(run.agent_runs.select_related("agent").order_by("queued_at", "pk"))
    return build_waterfall(run, steps, ModelCall.objects.filter(agent_run__in=steps), timezone.now())


def _one_lane(step: AgentRun) -> Lane:
    return next(lane for lane in _fall(step.pipeline_run).lanes if lane.run.pk == step.pk)


def test_a_step_waits_grey_and_works_in_the_colour_of_its_status() -> None:
    start = timezone.now() - timedelta(seconds=10)
    run = factories.make_pipeline_run(
        factories.make_lead().item, started_at=start, status="completed", ended_at=start + timedelta(seconds=10)
    )
    step = factories.make_agent_run(
        run.item,
        "intake",
        status="done",
        pipeline_run=run,
        queued_at=start,
        started_at=start + timedelta(seconds=4),
        ended_at=start + timedelta(seconds=9),
    )
    factories.make_model_call(step, started_at=start + timedelta(seconds=4), ended_at=start + timedelta(seconds=8))
    waited, worked = _one_lane(step).bars
    assert (waited.x, waited.width, waited.colour) == (0, 40, "")
    assert (worked.x, worked.width, worked.colour) == (40, 50, "good")
    assert "host:100:1" in worked.title


def test_every_attempt_has_its_bar_worker_and_outcome() -> None:
    start = timezone.now() - timedelta(seconds=20)
    run = factories.make_pipeline_run(factories.make_lead().item, started_at=start)
    step = factories.make_agent_run(
        run.item,
        "intake",
        status="done",
        attempt=3,
        queued_at=start,
        worker="c",
        started_at=start + timedelta(seconds=10),
        ended_at=start + timedelta(seconds=12),
    )
    for attempt, worker, cause in ((1, "a", Cause.TIMEOUT), (2, "b", Cause.RATE_LIMITED), (3, "c", Cause.NONE)):
        begun = start + timedelta(seconds=attempt * 4 - 2)
        factories.make_model_call(
            step, attempt=attempt, worker=worker, cause=cause, started_at=begun, ended_at=begun + timedelta(seconds=1)
        )
    lane = _one_lane(step)
    attempts = [bar for bar in lane.bars if bar.colour]
    assert [bar.colour for bar in attempts] == ["bad", "warning", "good"]
    assert ["attempt 1 on a" in lane.summary, "attempt 2 on b" in lane.summary] == [True, True]
    assert "no answer in time" in attempts[0].title
    assert [bool(bar.colour) for bar in lane.bars] == [False, True, False, True, False, True]


def test_a_queued_step_waits_until_now_and_a_lost_one_is_a_warning() -> None:
    item = factories.make_lead().item
    queued = factories.make_agent_run(item, "intake")
    lost = factories.make_agent_run(
        item, "qualifier", status="running", lease_expires_at=timezone.now() - timedelta(seconds=1)
    )
    assert [bar.colour for bar in _one_lane(queued).bars] == [""]
    assert _one_lane(queued).waited_seconds == pytest.approx(20, abs=5)
    assert _one_lane(lost).bars[-1].colour == "warning"


def test_bars_stay_on_the_axis_and_can_be_seen() -> None:
    start = timezone.now() - timedelta(hours=30)
    run = factories.make_pipeline_run(factories.make_lead().item, started_at=start)
    for slug, offset in (("intake", 0), ("qualifier", 107_000)):
        begun = start + timedelta(seconds=offset)
        step = factories.make_agent_run(
            run.item, slug, status="done", queued_at=begun, started_at=begun, ended_at=begun + timedelta(milliseconds=5)
        )
        factories.make_model_call(step, started_at=begun, ended_at=begun + timedelta(milliseconds=4))
    fall = _fall(run)
    bars = [bar for lane in fall.lanes for bar in lane.bars]
    assert all(bar.x >= 0 and bar.x + bar.width <= 100.001 and bar.width > 0.3 for bar in bars)
    assert 2 <= len(fall.ticks) <= 8


def test_a_wait_that_is_over_still_says_for_what() -> None:
    start = timezone.now() - timedelta(seconds=60)
    run = factories.make_pipeline_run(factories.make_lead().item, started_at=start)
    at = {"queued_at": start, "started_at": start + timedelta(seconds=40), "ended_at": start + timedelta(seconds=50)}
    step = factories.make_agent_run(run.item, "intake", status="done", attempt=3, **at)
    for attempt, offset in ((1, 10), (2, 25), (3, 40)):
        begun = start + timedelta(seconds=offset)
        factories.make_model_call(step, attempt=attempt, started_at=begun, ended_at=begun + timedelta(seconds=5))
    told = [
        ("started", 10, "Started.", {"waited_for": "budget of the department: 10 of 10 USD used"}),
        ("waiting", 15, "The model is busy (rate limit reached).", {}),
        ("started", 25, "Started.", {}),
        ("lost", 30, "Its worker was lost.", {}),
        ("started", 40, "Started.", {"waited_for": "The worker stopped; taken up again."}),
    ]
    entries = [
        factories.make_log_entry(
            run.item, agent_run=step, kind=kind, text=text, data=data, at=start + timedelta(seconds=offset)
        )
        for kind, offset, text, data in told
    ]
    fall = build_waterfall(run, [step], step.model_calls.all(), timezone.now(), entries=entries)
    waits = [bar for bar in fall.lanes[0].bars if not bar.colour]
    assert [bar.reason for bar in waits] == [
        "budget of the department: 10 of 10 USD used",
        "The model is busy (rate limit reached).",
        "The worker stopped; taken up again.",
    ]
    assert "waited 10.0 s: budget of the department" in fall.lanes[0].summary
    assert fall.began_at == start + timedelta(seconds=10)


def test_a_wait_that_nothing_is_told_of_names_no_reason_and_one_of_now_names_its_own() -> None:
    item = factories.make_lead().item
    factories.make_agent_run(item, "intake", status="done")
    queued = factories.make_agent_run(item, "qualifier", waiting_for="The budget is used up")
    lanes = {lane.run.agent.slug: lane for lane in _fall(queued.pipeline_run).lanes}
    assert [bar.reason for bar in lanes["intake"].bars if not bar.colour] == [""]
    assert [bar.reason for bar in lanes["qualifier"].bars] == ["The budget is used up."]


def test_tools_are_marks_within_their_attempt() -> None:
    start = timezone.now() - timedelta(seconds=20)
    run = factories.make_pipeline_run(factories.make_lead().item, started_at=start)
    step = factories.make_agent_run(run.item, "researcher", status="done", queued_at=start, started_at=start)
    call = factories.make_model_call(step, started_at=start, ended_at=start + timedelta(seconds=10))
    begun = start + timedelta(seconds=2)
    tools = [
        factories.make_tool_call(call, started_at=begun, latency_ms=4_000),
        factories.make_tool_call(call, started_at=begun, latency_ms=0, is_error=True, name="fetch_website"),
    ]
    fall = build_waterfall(run, [step], [call], timezone.now(), tools=tools)
    long, short = fall.lanes[0].marks
    (bar,) = [bar for bar in fall.lanes[0].bars if bar.colour]
    assert bar.x < long.x < long.x + long.width < bar.x + bar.width
    assert (short.title, short.is_error, short.width > 0.3) == ("fetch_website, 0 ms, failed", True, True)
    assert "tool search_knowledge, 4000 ms" in fall.lanes[0].summary


def test_now_is_on_the_axis_only_while_something_goes_on() -> None:
    item = factories.make_lead().item
    done = factories.make_agent_run(item, "intake", status="done")
    assert _fall(done.pipeline_run).now is None
    factories.make_agent_run(item, "qualifier", status="running")
    now = _fall(done.pipeline_run).now
    assert now is not None
    assert 90 < now < 100


def test_steps_side_by_side_lie_side_by_side() -> None:
    start = timezone.now() - timedelta(seconds=20)
    run = factories.make_pipeline_run(factories.make_lead().item, started_at=start)
    for slug in ("intake", "qualifier"):
        at = {"queued_at": start, "started_at": start + timedelta(seconds=2), "ended_at": start + timedelta(seconds=9)}
        factories.make_agent_run(run.item, slug, status="done", pipeline_run=run, **at)
    first, second = (lane.bars[-1] for lane in _fall(run).lanes)
    assert (first.x, first.width) == (second.x, second.width)


def test_a_run_without_steps_has_an_empty_waterfall() -> None:
    assert _fall(factories.make_pipeline_run(factories.make_lead().item)).lanes == ()


def test_a_card_shows_fields_in_the_order_of_the_schema() -> None:
    item = factories.make_lead().item
    shuffled = dict(sorted(factories.PAYLOADS["qualification"].items(), reverse=True))
    card = build_card(factories.make_output(item, payload=shuffled), SALES)
    assert [field.name for field in card.fields] == [
        "score",
        "tier",
        "fit_reasons",
        "missing_information",
        "confidence",
    ]
    assert card.reasoning == "A manufacturer with several carriers and a date."


class Verdict(BaseModel):
    """A schema with a field that needs explaining."""

    points: int = Field(description="From 0 to 10")


def test_a_field_is_explained_by_its_schema() -> None:
    judge = AgentSpec(slug="judge", job="Judge", model="claude-haiku-5-5", writes="verdict", schema=Verdict)
    output = factories.make_output(factories.make_lead().item, "verdict", payload={"points": 3}, facets={})
    assert build_card(output, replace(SALES, agents=(judge,))).fields[0].hint == "From 0 to 10"


def test_a_payload_with_subject_and_body_is_a_mail() -> None:
    card = build_card(factories.make_output(factories.make_lead().item, "email"), SALES)
    assert card.mail is not None
    assert card.mail.subject == "Your freight invoices"
    assert [field.name for field in card.fields] == ["removed_claims"]


def test_a_payload_that_fits_no_schema_is_shown_all_the_same() -> None:
    item = factories.make_lead().item
    odd = factories.make_output(item, "qualification", payload={"surprise": {"a": [1]}, "tier": None}, facets={})
    assert {field.name: field.kind for field in build_card(odd, SALES).fields} == {"tier": "text", "surprise": "object"}
    listed = factories.make_output(item, "research", payload=["not", "an", "object"], facets={})
    assert build_card(listed, SALES).fields[0].value == ["not", "an", "object"]


def test_values_are_shown_by_their_shape() -> None:
    assert build_field("a", True).kind == "flag"
    assert build_field("a", []).kind == "list"
    assert build_field("a", ["x"]).kind == "list"
    table = build_field("a", [{"claim": "x", "supported": False}, {"claim": "y", "note": "z"}])
    assert (table.kind, table.columns) == ("table", ("claim", "supported", "note"))
    assert [[cell.value for cell in row] for row in table.value] == [["x", False, ""], ["y", "", "z"]]


def test_the_stepper_says_what_each_agent_waits_for(rf: RequestFactory) -> None:
    user = factories.make_user(is_superuser=True)
    lead = factories.make_lead(status="qualified")
    for key in ("intake", "qualification", "research"):
        factories.make_output(lead.item, key)
    factories.make_agent_run(lead.item, "strategist", status="running")
    request = rf.get("/")
    request.user, request.session = user, SessionStore()
    steps = item_context(request, lead.item)["occasions"][0].steps
    assert {step.agent.slug: step.shown.label for step in steps} == {
        "intake": "done",
        "qualifier": "done",
        "researcher": "done",
        "strategist": "running",
        "writer": "waits for strategy",
        "fact_checker": "waits for draft",
        "formatter": "waits for draft, fact check",
    }


def test_a_reply_has_steps_of_its_own(rf: RequestFactory) -> None:
    user = factories.make_user(is_superuser=True)
    lead = factories.make_lead(status="replied")
    trigger = factories.make_trigger(lead.item, "reply")
    factories.make_agent_run(lead.item, "reply_handler", trigger=trigger, status="failed")
    request = rf.get("/")
    request.user, request.session = user, SessionStore()
    occasions = item_context(request, lead.item)["occasions"]
    assert [(o.title, [s.agent.slug for s in o.steps]) for o in occasions[1:]] == [("Reply", ["reply_handler"])]
    assert occasions[1].steps[0].shown.label == "failed"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.2, "just now"),
        (12, "12 s ago"),
        (185, "3 min ago"),
        (7_300, "2 h ago"),
        (400_000, "4 d ago"),
        (-90, "in 1 min"),
    ],
)
def test_ages_in_words(seconds: float, text: str) -> None:
    assert describe_age(seconds) == text


def test_measures_money_and_words() -> None:
    assert measure(3_599) == "59 min"
    assert [duration(s) for s in (None, 0.48, 2.44, 185, 7_440)] == ["", "480 ms", "2.4 s", "3 min 5 s", "2 h 4 min"]
    amounts = (None, Decimal(0), Decimal("0.00001"), Decimal("0.01234"), Decimal("1234.5"))
    assert [usd(amount) for amount in amounts] == ["", "$0", "<$0.0001", "$0.0123", "$1,234.50"]
    assert words("fit_reasons") == "Fit reasons"
    assert plain({"tier": ["Hot", "Warm"], "opt_out": [False]}) == "tier Hot or Warm, opt_out no"
    assert plain([]) == plain({}) == plain(None) == plain("") == "nothing"


def test_a_step_that_waits_is_said_to_be_tried_again_and_not_to_go_on() -> None:
    item = factories.make_lead().item
    due = timezone.now() + timedelta(minutes=1)
    run = factories.make_agent_run(item, "qualifier", waiting_for="The budget is used up", due_at=due)
    assert show_agent_run(run, timezone.now()).then == "Tried again"
