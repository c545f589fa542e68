"""The engine's part of an item's page, tab by tab: what is shown, in how many queries, and that it is so."""

from __future__ import annotations

import re
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from django.db import connection
from django.test import Client, RequestFactory
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from agents.models import Soul
from runs.control import close_item
from runs.cost_rollups import roll_up
from runs.models import AgentRun, Item, ItemCost, ItemTotal, LogEntry, ModelCall, Output, Trigger
from runs.models.costs import UNITS
from runs.views.item_costs import sum_costs
from runs.views.items import TABS, item_context
from runs.views.output_cards import Meter, build_output_card
from runs.views.timeline import ROWS, SORTS, read_timeline
from tests import factories
from tests.runs.scene import HTMX, Scene, make_scene

pytestmark = pytest.mark.django_db


def _html(scene: Scene, query: str = "") -> str:
    url = reverse("leads:panel", args=[scene.lead.pk])
    return scene.client(scene.operator).get(f"{url}{query}", headers=HTMX).content.decode()


def _context(item: Item, tab: str) -> dict[str, Any]:
    user = factories.make_user("root", is_superuser=True)
    request = RequestFactory().get("/", {"tab": tab})
    request.user, request.session = user, {}  # type: ignore[assignment]
    return item_context(request, item)


@pytest.mark.parametrize("tab", TABS)
def test_a_tab_takes_as_many_queries_for_a_long_history(tab: str, django_assert_num_queries: Any) -> None:
    scene, numbers = make_scene(), []
    client, url, item = scene.client(scene.operator), reverse("leads:panel", args=[scene.lead.pk]), scene.lead.item
    # By a person: what stands beside it is read at once all the same.
    factories.make_output(item, "strategy", origin="injected")
    soul = Soul.objects.get(agent__slug="reply_handler", agent__department=item.department)
    for _ in range(2):
        for _ in range(5):
            trigger = factories.make_trigger(item, "reply")
            run = factories.make_agent_run(item, "reply_handler", trigger=trigger, status="done", soul=soul)
            factories.make_model_call(run)
            output = factories.make_output(item, "draft", trigger=trigger, agent_run=run)
            factories.make_review(item, output=output)
            factories.make_message(item, "in", trigger=trigger)
            factories.make_log_entry(item, agent_run=run, pipeline_run=run.pipeline_run)
        with django_assert_num_queries(45, exact=False) as found:
            client.get(f"{url}?tab={tab}", headers=HTMX)
        numbers.append(len(found))
    assert numbers[0] == numbers[1]


def test_a_tab_nobody_knows_is_the_summary() -> None:
    scene = make_scene()
    assert _html(scene, "?tab=nonsense&before=rubbish&show=x").count("Send this mail?") == _html(scene).count(
        "Send this mail?"
    )


def test_what_is_asked_about_is_shown_once() -> None:
    scene = make_scene()
    html = _html(scene)
    assert html.count("<h3>Your freight invoices</h3>") == 1
    assert f'id="output-{scene.output.pk}"' not in html


# --- Outputs ---------------------------------------------------------------------------------------------------


def test_fields_are_shown_by_what_their_schema_says() -> None:
    item = factories.make_lead().item
    card = build_output_card(factories.make_output(item), item.department.spec)
    kinds = {field.name: field.kind for field in card.fields}
    assert kinds == {
        "score": "meter",
        "tier": "label",
        "fit_reasons": "list",
        "missing_information": "list",
        "confidence": "label",
    }
    assert card.fields[0].value == Meter(84, 0, 100)
    assert card.headline == "Hot · high · 84 of 100"
    research = build_output_card(factories.make_output(item, "research"), item.department.spec)
    facts = next(field for field in research.fields if field.name == "facts")
    assert [[cell.kind for cell in row] for row in facts.value] == [["text", "link"], ["text", "text"]]
    assert build_output_card(factories.make_output(item, "email"), item.department.spec).headline == (
        "Your freight invoices"
    )
    checks = build_output_card(factories.make_output(item, "fact_check"), item.department.spec)
    assert checks.headline == f"checks: {len(checks.output.payload['checks'])}"


@pytest.mark.parametrize("payload", [["a"], "text", {"x": {"y": 1}}, {"score": "high"}, {"score": None}, {}])
def test_any_payload_makes_a_card(payload: Any) -> None:
    item = factories.make_lead().item
    output = factories.make_output(item)
    output.payload = payload
    assert isinstance(build_output_card(output, item.department.spec).headline, str)


def test_an_address_that_is_not_only_one_is_no_link() -> None:
    item = factories.make_lead().item
    payload = {"company_summary": "javascript:alert(1)", "unknowns": [], "facts": [], "reasoning_summary": "x"}
    card = build_output_card(factories.make_output(item, "research", payload=payload), item.department.spec)
    assert all(field.kind != "link" for field in card.fields)


def test_versions_are_listed_with_what_changed_from_the_one_before() -> None:
    scene = make_scene()
    item = scene.lead.item
    old = factories.make_output(item, "qualification", number=1, is_current=False, retired_why="The tier was wrong.")
    payload = {**factories.PAYLOADS["qualification"], "tier": "Warm", "score": 55}
    new = factories.make_output(item, "qualification", number=2, payload=payload)
    html = scene.client(scene.viewer).get(reverse("runs:output_history", args=[new.pk])).content.decode()
    for text in ("<del>Hot</del>", "<ins>Warm</ins>", "Version 1", "The tier was wrong.", "beside version 1"):
        assert text in html
    html = scene.client(scene.viewer).get(reverse("runs:output_history", args=[old.pk])).content.decode()
    assert "<ins>Hot</ins>" in html
    assert "What it says" in html


# --- Conversation ----------------------------------------------------------------------------------------------


def test_drafts_stand_in_the_thread_until_they_are_messages() -> None:
    scene = make_scene()
    html = _html(scene, "?tab=conversation")
    assert "Yes, &lt;b&gt;please&lt;/b&gt;." in html
    assert f'id="draft-{scene.output.pk}"' in html
    assert "Draft, not approved yet" in html
    factories.make_message(scene.lead.item, "out", output=scene.output, body="Sent text")
    html = _html(scene, "?tab=conversation")
    assert f'id="draft-{scene.output.pk}"' not in html
    assert "Sent text" in html


def test_a_long_conversation_is_read_in_pages_without_losing_a_message() -> None:
    scene = make_scene()
    item, now = scene.lead.item, timezone.now()
    texts = [f"Message {index:03}." for index in range(120)]
    for index, text in enumerate(texts):
        factories.make_message(item, "in", body=text, at=now + timedelta(seconds=index))
    found, query = "", "?tab=conversation"
    for _ in range(3):
        html = _html(scene, query)
        found += html
        if "before=" not in html:
            break
        query = html.split('">Earlier</a>')[0].rsplit('href="', 1)[1].replace("&amp;", "&")
    assert [text for text in texts if found.count(text) != 1] == []


# --- Timeline --------------------------------------------------------------------------------------------------


def test_a_reader_s_place_is_known_by_rows_that_have_ids_of_their_own() -> None:
    scene = make_scene()
    entry = factories.make_log_entry(scene.lead.item, text="Something happened.")
    for tab, known in (("timeline", f"line-{entry.pk}"), ("conversation", f"draft-{scene.output.pk}")):
        html = _html(scene, f"?tab={tab}")
        ids = re.findall(r'<li id="([^"]+)" data-row', html)
        assert known in ids
        assert len(ids) == len(set(ids))
        assert len(ids) == html.count("<li id=") - html.count('<li id="pipeline-')


def test_the_timeline_pages_through_everything_once_even_where_times_are_equal() -> None:
    item, now = factories.make_lead().item, timezone.now()
    for index in range(150):
        factories.make_log_entry(item, kind="decision", text=f"Entry {index}", at=now - timedelta(seconds=index // 7))
    seen, before = [], None
    for _ in range(10):
        moments, before = read_timeline(item, sorts=["decisions"], before=before)
        seen += [moment.text for moment in moments]
        if before is None:
            break
        assert len(moments) > ROWS - 7
    assert sorted(seen) == sorted(f"Entry {index}" for index in range(150))


def test_more_at_one_time_than_a_page_holds_is_one_page() -> None:
    item, now = factories.make_lead().item, timezone.now()
    for index in range(ROWS + 9):
        factories.make_log_entry(item, kind="decision", text=f"Entry {index}", at=now)
    moments, before = read_timeline(item, sorts=["decisions"])
    assert len(moments) == ROWS + 9
    assert read_timeline(item, sorts=["decisions"], before=before) == ([], None)


def test_each_sort_shows_its_own_and_all_together_everything() -> None:
    scene = make_scene()
    item = scene.lead.item
    factories.make_log_entry(item, kind="output", text="Intake wrote intake.")
    factories.make_outbox(item, output=scene.output)
    item.actions.create(department=scene.department, user=scene.operator, verb="approve", target="review:5")
    whole, _ = read_timeline(item, sorts=[*SORTS])
    parts = [read_timeline(item, sorts=[slug])[0] for slug in SORTS]
    assert all(parts), [slug for slug, part in zip(SORTS, parts, strict=True) if not part]
    assert sorted(m.text for part in parts for m in part) == sorted(m.text for m in whole)
    assert [m.at for m in whole] == sorted((m.at for m in whole), reverse=True)


def test_what_the_log_tells_of_a_person_is_not_told_twice_and_stands_among_peoples_actions() -> None:
    scene = make_scene()
    assert close_item(item=scene.lead.item, user=scene.operator, reason="Bought elsewhere")
    everything = [moment.text for moment in read_timeline(scene.lead.item, sorts=[*SORTS])[0]]
    assert [text for text in everything if text.startswith("olga")] == ["olga closed it: Bought elsewhere."]
    people = [moment.text for moment in read_timeline(scene.lead.item, sorts=["people"])[0]]
    assert people == ["olga: close"]


def test_triggers_and_targets_are_said_in_words() -> None:
    item, user = factories.make_lead().item, factories.make_user("olga")
    factories.make_trigger(item, "created", source="import:fair.csv", status="noted")
    factories.make_trigger(item, "reply", source="pasted", status="handled", settled_note="All is settled.")
    factories.make_trigger(item, "follow_up", source="effect", due_at=timezone.now() + timedelta(days=3))
    factories.make_trigger(item, "operator")
    factories.make_trigger(item, "follow_up", due_at=timezone.now() + timedelta(days=3), status="noted")
    item.actions.create(department=item.department, user=user, verb="approve", target="review:5")
    moments = read_timeline(item, sorts=["triggers", "people"])[0]
    assert {(moment.text, moment.detail, moment.due_at is not None) for moment in moments} == {
        ("It came in, from import fair.csv", "", False),
        ("A reply came in, from pasted", "All is settled.", False),
        ("A follow-up is planned", "", True),
        ("A follow-up was planned", "", False),
        ("An operator asked for it", "It waits for a worker.", False),
        ("olga: approve question 5", "", False),
    }


def test_a_decision_was_made_also_while_it_can_be_taken_back_and_for_ever_after() -> None:
    item, due_at = factories.make_lead().item, timezone.now() + timedelta(seconds=10)
    decided = factories.make_trigger(item, "decision", due_at=due_at)
    moment = read_timeline(item, sorts=["triggers"])[0][0]
    assert (moment.text, moment.due_what, moment.due_at) == ("A decision was made", "Takes effect", due_at)
    Trigger.objects.filter(pk=decided.pk).update(status="handled", settled_note="The CRM Scribe has written.")
    moment = read_timeline(item, sorts=["triggers"])[0][0]
    assert (moment.text, moment.detail, moment.due_at) == ("A decision was made", "The CRM Scribe has written.", None)


def test_until_it_can_no_longer_be_taken_back_a_decision_is_not_said_to_come() -> None:
    item, due_at = factories.make_lead().item, timezone.now() + timedelta(seconds=50)
    factories.make_trigger(item, "decision", due_at=due_at)
    Item.objects.filter(pk=item.pk).update(route_due_at=due_at)
    user = factories.make_user("olga", department=item.department)
    client = Client()
    client.force_login(user)
    for tab in ("timeline", "why"):
        html = client.get(reverse("leads:panel", args=[item.pk]), {"tab": tab}).content.decode()
        assert "What was decided takes effect" in html
        assert "decision is" not in html
    assert html.count("What was decided takes effect") == 2, "above the pipeline and on the tab, there once"
    Item.objects.filter(pk=item.pk).update(automation="paused")
    html = client.get(reverse("leads:panel", args=[item.pk]), {"tab": "why"}).content.decode()
    assert html.count("What was decided takes effect <time") == 1, "among what comes"


@pytest.mark.parametrize(
    ("status", "automation", "label"),
    [
        ("drafted", "active", "Waiting for approval"),
        ("drafted", "paused", "Waiting for approval"),
        ("drafted", "closed", "was: Waiting for approval"),
        ("won", "closed", "Won"),
    ],
)
def test_a_closed_item_waits_for_nothing_any_more(status: str, automation: str, label: str) -> None:
    item = factories.make_lead(status=status, automation=automation).item
    assert _context(item, "summary")["shown"].label == label


def test_the_question_of_an_item_that_rests_promises_nothing_that_will_not_happen() -> None:
    scene = make_scene()
    assert "after the undo time at the earliest." in _html(scene)
    Item.objects.filter(pk=scene.lead.pk).update(automation="paused", automation_reason="Trade fair")
    html = _html(scene)
    assert "It waits in the outbox until the automation goes on. It is paused: Trade fair." in html
    assert "after the undo time at the earliest." not in html


@pytest.mark.parametrize("at", ["0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59", "2020-01-01", "x"])
def test_a_time_that_no_calendar_has_is_none(at: str) -> None:
    scene = make_scene()
    client, page = scene.client(scene.viewer), reverse("leads:detail", args=[scene.lead.pk])
    assert client.get(page, {"tab": "timeline", "before": at}).status_code == 200
    assert client.get(reverse("leads:list"), {"sort": "activity", "before": "5", "at": at}).status_code == 200


def test_the_page_shows_one_sort_by_its_address() -> None:
    scene = make_scene()
    LogEntry.objects.create(
        department=scene.department, item=scene.lead.item, kind="decision", text="Decided so.", at=timezone.now()
    )
    assert "Decided so." in _html(scene, "?tab=timeline&show=decisions")
    assert "Decided so." not in _html(scene, "?tab=timeline&show=people")
    assert "Nothing of this sort." in _html(scene, "?tab=timeline&show=people")


# --- Why -------------------------------------------------------------------------------------------------------


def test_why_says_what_failed_what_comes_and_which_clause_decided() -> None:
    lead = factories.make_lead(status="contacted")
    factories.make_trigger(lead.item, "follow_up", due_at=timezone.now() + timedelta(days=3, minutes=1))
    factories.make_agent_run(lead.item, "strategist", status="failed", why="“Write to good leads” wants email")
    context = _context(lead.item, "why")
    assert [trigger.kind for trigger in context["coming"]] == ["follow_up"]
    assert [run.agent.slug for run in context["failed"]] == ["strategist"]
    rule = next(rule for rule in context["rules"] if rule.name == "Write to good leads")
    assert not rule.holds
    assert set(rule.clauses) == {
        ("the lead is qualified", "it is: Contacted"),
        ("the lead’s tier is Hot or Warm", "its tier is not known"),
    }
    assert "wanted" in rule.sentence
    assert {rule.name for rule in context["rules"]} == {rule.name for rule in lead.department.rules.all()}


def test_why_says_of_each_agent_and_each_wanted_output_how_it_stands() -> None:
    lead = factories.make_lead(status="new")
    factories.make_agent_run(lead.item, "intake", status="failed")
    context = _context(lead.item, "why")
    said = {agent["agent"]: agent["said"] for agent in context["agents"]}
    assert (said["intake"], said["qualifier"], said["writer"]) == ("has failed", "starts next", "not wanted")
    assert ("intake", "cannot come") in context["wanted"]


def test_why_shows_rules_that_hold_first_with_everything_that_held() -> None:
    lead = factories.make_lead(status="new")
    rules = _context(lead.item, "why")["rules"]
    assert [rule.name for rule in rules if rule.holds] == [rules[0].name] == ["Classify what comes in"]
    assert rules[0].clauses == (("the lead is new", ""),)


# --- Cost ------------------------------------------------------------------------------------------------------


def test_costs_by_agent_and_by_day_sum_to_the_items_rollups() -> None:
    item = factories.make_lead().item
    now = timezone.now()
    done = factories.make_agent_run(item, "intake", status="done")
    failed = factories.make_agent_run(item, "qualifier", status="failed")
    for day in range(3):
        factories.make_model_call(done, cost_usd=Decimal("0.00012345"), started_at=now - timedelta(days=day))
    factories.make_model_call(failed, cost_usd=Decimal("0.5"), cause="timeout", error="No answer.")
    factories.make_model_call(
        failed, status=ModelCall.Status.UNSEEN, reserved_usd=Decimal("0.25"), cost_usd=0, ended_at=None
    )
    factories.make_model_call(failed, status=ModelCall.Status.STARTED, cost_usd=0, ended_at=None)
    for _ in range(2):
        sums = sum_costs(item)
        assert sums["total"].usd == Decimal("0.75037035")
        assert sums["total"].waste_usd == Decimal("0.75")
        assert sum(line.usd for line in sums["agents"]) == sum(line.usd for line in sums["days"]) == sums["total"].usd
        assert [line.label for line in sums["agents"]] == ["Qualifier", "Intake Classifier"]
        assert [line.calls for line in sums["agents"]] == [2, 3]
        roll_up()
    assert sum(row.cost_units for row in ItemCost.objects.filter(item=item)) == sums["total"].usd * UNITS
    whole = ItemTotal.objects.get(item=item)
    assert (whole.cost_units, whole.calls) == (sums["total"].usd * UNITS, 5)


def test_an_items_total_follows_every_rollup() -> None:
    item = factories.make_lead().item
    run = factories.make_agent_run(item, "intake", status="done")
    for number in range(1, 4):
        factories.make_model_call(run, cost_usd=Decimal("0.1"))
        roll_up()
        assert ItemTotal.objects.get(item=item).cost_units == number * UNITS // 10


def test_the_cost_tab_says_what_is_under_way_and_what_was_lost() -> None:
    scene = make_scene()
    run = AgentRun.objects.get(item=scene.lead.item, agent__slug="researcher")
    factories.make_model_call(run, status=ModelCall.Status.STARTED, reserved_usd=Decimal("0.4"), ended_at=None)
    html = _html(scene, "?tab=cost")
    assert "1 more is under way and not counted yet." in html
    assert "brought nothing that was used" in html
    assert "at most $0.4000" in html


def test_outputs_that_are_stale_say_so() -> None:
    scene = make_scene()
    Output.objects.filter(item=scene.lead.item, key="intake").update(is_stale=True)
    assert "out of date" in _html(scene)


def test_what_waits_for_a_person_says_so() -> None:
    item = factories.make_lead().item
    factories.make_review(item, ask="Is this a lead?")
    assert _context(item, "summary")["next"].label == "It waits for a person: a question is open."


def test_the_page_reads_the_agents_of_the_department_once() -> None:
    scene = make_scene()
    client = scene.client(scene.operator)
    with CaptureQueriesContext(connection) as found:
        client.get(reverse("leads:detail", args=[scene.lead.pk]))
    assert sum('FROM "agents_agent"' in query["sql"] for query in found) == 1
