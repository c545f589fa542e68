"""The pages of leads: filters, paging, the lead page, running the pipeline, simulated replies."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from agents.models import Member, ModelPrice
from leads import views
from leads.models import Lead
from runs.models import Action, AgentRun, Item, Message, Output, Trigger
from runs.views import estimates
from tests import factories
from tests.runs.scene import HTMX, Scene, make_scene

LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)

pytestmark = pytest.mark.django_db

LIST = "leads:list"


def _list(scene: Scene, query: str = "") -> str:
    return scene.client(scene.operator).get(reverse(LIST) + query, headers=HTMX).content.decode()


# --- The list ------------------------------------------------------------------------------------------------


def test_filters_narrow_the_list_by_status_tier_and_text() -> None:
    scene = make_scene()
    warm = factories.make_lead(scene.department, name="Wanda Warm", status="qualified", company="Brückner KG")
    payload = {**factories.PAYLOADS["qualification"], "tier": "Warm", "score": 55}
    factories.make_output(warm.item, payload=payload)
    factories.make_lead(scene.department, name="Nora New", email="nora@brook.example")
    for query, names in (
        ("", {"Wanda", "Nora"}),
        ("?status=qualified", {"Wanda"}),
        ("?tier=Warm", {"Wanda"}),
        ("?tier=Hot", set()),
        ("?q=nora%40brook", {"Nora"}),
        ("?q=warm+KG", {"Wanda"}),
        ("?status=new&q=warm", set()),
        ("?tier=nonsense", {"Wanda", "Nora"}),
    ):
        html = _list(scene, query)
        assert {name for name in ("Wanda", "Nora") if name in html} == names, query


def test_an_output_that_was_replaced_does_not_count_for_the_tier() -> None:
    scene = make_scene()
    lead = factories.make_lead(scene.department, name="Olaf Old")
    factories.make_output(lead.item, is_current=False)
    assert "Olaf" not in _list(scene, "?tier=Hot")


def test_counts_are_per_status_and_links_keep_the_other_filters() -> None:
    scene = make_scene()
    for _ in range(3):
        factories.make_lead(scene.department, status="contacted")
    assert "Contacted <b>3</b>" in _list(scene)
    html = _list(scene, "?q=weber")
    assert "Contacted <b>" not in html, "the link leads to those that match, which are not counted"
    assert 'href="?status=contacted&amp;q=weber"' in html


def test_it_pages_by_key_and_a_lead_that_comes_in_moves_nothing() -> None:
    scene = make_scene()
    for index in range(60):
        factories.make_lead(scene.department, name=f"Number {index:02}.")
    last = Lead.objects.order_by("-pk")[49]
    first_page = _list(scene)
    assert f"?before={last.pk}" in first_page
    factories.make_lead(scene.department, name="Just arrived")
    second_page = _list(scene, f"?before={last.pk}")
    assert "Number 09." in second_page
    assert last.name not in second_page
    assert "Just arrived" not in second_page


def test_the_list_takes_as_many_queries_for_many_leads(django_assert_num_queries: Any) -> None:
    scene = make_scene()
    client, numbers = scene.client(scene.operator), []
    for _ in range(2):
        with django_assert_num_queries(18, exact=False) as found:
            client.get(reverse(LIST))
        numbers.append(len(found))
        for _ in range(8):
            item = factories.make_lead(scene.department).item
            factories.make_output(item)
            factories.make_agent_run(item, "researcher")
            factories.make_review(item)
    assert numbers[0] == numbers[1]


def test_a_viewer_is_not_offered_to_run_anything() -> None:
    scene = make_scene()
    url = reverse("leads:run_preview")
    assert url in scene.client(scene.operator).get(reverse(LIST)).content.decode()
    assert url not in scene.client(scene.viewer).get(reverse(LIST)).content.decode()


def test_what_a_lead_wrote_cannot_become_markup() -> None:
    scene = make_scene()
    evil = "<script>alert(1)</script>"
    lead = factories.make_lead(scene.department, name=evil, message=evil, company=evil, attributes={evil: evil})
    factories.make_output(lead.item, "research", payload={"company_summary": evil, evil: [evil, {"a": evil}]})
    for url in (reverse(LIST), reverse("leads:detail", args=[lead.pk]), reverse("leads:edit", args=[lead.pk])):
        assert evil not in scene.client(scene.operator).get(url).content.decode()


# --- One lead ------------------------------------------------------------------------------------------------


def test_the_lead_page_shows_facts_outputs_conversation_and_questions() -> None:
    scene = make_scene()
    html = scene.client(scene.operator).get(reverse("leads:detail", args=[scene.lead.pk])).content.decode()
    for text in (
        scene.lead.email,
        "Wants to know whether 1,200 freight invoices a month can be checked.",
        "Send this mail?",
        "We save 20 %",
        "Being worked on by",
    ):
        assert text in html


def test_the_lead_page_takes_as_many_queries_for_a_long_history(django_assert_num_queries: Any) -> None:
    scene = make_scene()
    client, url, numbers = scene.client(scene.operator), reverse("leads:panel", args=[scene.lead.pk]), []
    item = scene.lead.item
    for _ in range(2):
        with django_assert_num_queries(22, exact=False) as found:
            client.get(url, headers=HTMX)
        numbers.append(len(found))
        for _ in range(5):
            trigger = factories.make_trigger(item, "reply")
            run = factories.make_agent_run(item, "reply_handler", trigger=trigger, status="done")
            factories.make_model_call(run)
            output = factories.make_output(item, "draft", trigger=trigger, agent_run=run)
            factories.make_review(item, output=output)
            factories.make_message(item, "in", trigger=trigger)
            factories.make_log_entry(item, agent_run=run, pipeline_run=run.pipeline_run)
    assert numbers[0] == numbers[1]


def test_an_approved_mail_that_was_not_sent_says_so() -> None:
    scene = make_scene()
    Output.objects.filter(pk=scene.output.pk).update(verdict="approved")
    url = reverse("leads:panel", args=[scene.lead.pk])
    assert "Approved, not sent yet</h2>" in scene.client(scene.viewer).get(url).content.decode()
    factories.make_message(scene.lead.item, "out", output=scene.output)
    assert "Approved, not sent yet</h2>" not in scene.client(scene.viewer).get(url).content.decode()


@pytest.mark.parametrize(
    ("item", "department", "text"),
    [
        ({}, {}, "Nothing is wanted now."),
        ({"automation": "paused"}, {}, "It is paused. Nothing starts before the automation goes on."),
        ({"automation": "closed"}, {}, "It is closed. Nothing starts before it is reopened."),
        ({}, {"state": "stopped"}, "Nothing new starts. Sales is stopped."),
        ({}, {"stopped_by_error": "401"}, "Nothing new starts in Sales: its line stands still."),
    ],
)
def test_the_lead_page_says_what_happens_next(
    client: Client, item: dict[str, Any], department: dict[str, Any], text: str
) -> None:
    sales = factories.make_department(**department)
    lead = factories.make_lead(sales, **item)
    client.force_login(factories.make_user(department=sales))
    assert text in client.get(reverse("leads:panel", args=[lead.pk])).content.decode()


@pytest.mark.parametrize(
    ("step", "item", "text"),
    [
        ({"status": "running"}, {}, "Being worked on by Qualifier."),
        ({"status": "running"}, {"automation": "paused"}, "Being worked on by Qualifier."),
        ({"status": "running", "lease_expires_at": LONG_AGO}, {}, "Qualifier: lost, being recovered."),
        ({}, {}, "Waits to begin: Qualifier. No worker has taken it yet."),
        ({"waiting_for": "the budget is used up."}, {}, "Waits to begin: Qualifier. The budget is used up."),
        ({}, {"automation": "paused"}, "It is paused. Nothing starts before the automation goes on."),
    ],
)
def test_what_only_waits_is_not_said_to_be_worked_on(
    client: Client, step: dict[str, Any], item: dict[str, Any], text: str
) -> None:
    lead = factories.make_lead(**item)
    factories.make_agent_run(lead.item, "qualifier", **step)
    client.force_login(factories.make_user(department=lead.department))
    html = client.get(reverse("leads:panel", args=[lead.pk])).content.decode()
    assert text in html
    assert ("Being worked on" in html) is ("Being worked on" in text)


def test_why_tells_of_a_failure_however_long_ago() -> None:
    scene = make_scene()
    for _ in range(15):
        trigger = factories.make_trigger(scene.lead.item, "reply")
        factories.make_agent_run(scene.lead.item, "reply_handler", trigger=trigger, status="done")
    html = scene.client(scene.viewer).get(reverse("leads:detail", args=[scene.lead.pk]) + "?tab=why").content.decode()
    assert "Qualifier has failed" in html


def test_why_names_every_rule_with_the_clause_that_decided() -> None:
    scene = make_scene()
    html = scene.client(scene.viewer).get(reverse("leads:detail", args=[scene.lead.pk]) + "?tab=why").content.decode()
    for rule in scene.department.rules.all():
        assert rule.name in html
    assert '<span>The lead is new<span class="k-waits">it is: Waiting for approval</span></span>' in html
    assert '<span>A follow-up is due<span class="k-waits">a reply came in</span></span>' in html
    assert "its opt-out is not known, its need for an answer is not known" in html
    assert "CRM Scribe" in html


# --- Running the pipeline ------------------------------------------------------------------------------------


def test_the_preview_says_what_would_start_and_what_it_costs_at_most() -> None:
    scene = make_scene()
    for _ in range(3):
        factories.make_lead(scene.department, name="Fresh")
    done = factories.make_agent_run(
        factories.make_lead(scene.department, status="rejected").item, "intake", status="done"
    )
    factories.make_model_call(done, cost_usd="0.5")
    html = scene.client(scene.operator).get(reverse("leads:run_preview") + "?status=new").content.decode()
    assert "leads of Sales with status “New”" in html
    assert "3 of 3 chosen leads are open" in html
    # Two runs of the Intake Classifier cost 0.50 and 0.000195 US dollars: 0.2501 each, for three leads.
    assert "$0.2501" in html
    assert "$0.7503" in html
    assert Trigger.objects.filter(kind="operator").count() == 0


def test_the_preview_of_all_leads_counts_them_without_looking_up_each(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(estimates, "SAMPLE", 2)
    scene = make_scene()
    other = scene.stranger.memberships.get().department
    Member.objects.create(user=scene.operator, department=other, role=Member.Role.VIEWER)
    for department in (scene.department, scene.department, other):
        factories.make_lead(department)
    factories.make_lead(scene.department, automation="paused")
    items = Item.objects.filter(department=scene.department)
    wanted = f"{items.filter(automation='active').count()} of {items.count()} chosen leads are open"
    client = scene.client(scene.operator)
    with CaptureQueriesContext(connection) as asked:
        assert wanted in client.get(reverse("leads:run_preview")).content.decode()
    assert not [query["sql"] for query in asked if "leads_lead" in query["sql"]]
    assert wanted in client.get(reverse("leads:run_preview") + "?cost_max=9").content.decode()


def test_the_preview_of_one_lead_names_it_and_says_of_what_costs_nothing_that_it_does() -> None:
    scene = make_scene()
    over = factories.make_lead(scene.department, name="Fresh Start", automation="closed")
    fresh = factories.make_lead(scene.department, name="Fresh Start")
    client, url = scene.client(scene.operator), reverse("leads:run_preview")
    html = client.get(url, {"item": over.pk}).content.decode()
    assert "Run the pipeline on Fresh Start?" in html
    assert "It costs nothing" in html
    assert f'href="{reverse("leads:detail", args=[over.pk])}">Cancel' in html
    assert "At most about $0.0" in client.get(url, {"item": fresh.pk}).content.decode()
    AgentRun.objects.update(status="cancelled")  # so that no latest ones say what one costs
    ModelPrice.objects.all().delete()
    assert "What it costs is not known: no price" in client.get(url, {"item": fresh.pk}).content.decode()


def test_running_marks_exactly_the_chosen_leads_due() -> None:
    scene = make_scene()
    chosen = factories.make_lead(scene.department, status="qualified")
    left_out = factories.make_lead(scene.department, status="new")
    response = scene.client(scene.operator).post(reverse("leads:run"), {"status": "qualified"}, follow=True)
    assert "1 lead marked due" in response.content.decode()
    assert Item.objects.get(pk=chosen.pk).route_due_at is not None
    assert Item.objects.get(pk=left_out.pk).route_due_at is None
    assert Action.objects.get().user == scene.operator


def test_running_one_lead_leads_back_to_it() -> None:
    scene = make_scene()
    response = scene.client(scene.operator).post(reverse("leads:run"), {"item": scene.lead.pk})
    assert response["Location"] == reverse("leads:detail", args=[scene.lead.pk])
    assert Item.objects.get(pk=scene.lead.pk).route_due_at is not None


def test_running_answers_htmx_with_a_message() -> None:
    scene = make_scene()
    response = scene.client(scene.operator).post(reverse("leads:run"), {"item": scene.lead.pk}, headers=HTMX)
    assert response["HX-Trigger"] == "kontor:changed"
    assert "1 lead marked due" in response.content.decode()


def test_running_twice_adds_a_trigger_but_makes_nothing_twice() -> None:
    scene = make_scene()
    client = scene.client(scene.operator)
    before = Output.objects.count()
    for _ in range(2):
        client.post(reverse("leads:run"), {"item": scene.lead.pk})
    assert Output.objects.count() == before
    assert Item.objects.get(pk=scene.lead.pk).route_due_at is not None


def test_running_leaves_paused_leads_and_other_departments_alone() -> None:
    scene = make_scene()
    paused = factories.make_lead(scene.department, automation="paused")
    foreign = factories.make_lead(scene.stranger.memberships.get().department)
    client = scene.client(scene.operator)
    for lead in (paused, foreign):
        response = client.post(reverse("leads:run"), {"item": lead.pk}, headers=HTMX)
        assert "No lead was marked due" in response.content.decode()
        assert Item.objects.get(pk=lead.pk).route_due_at is None


def test_running_is_about_the_department_whose_leads_were_shown() -> None:
    scene = make_scene()
    other = scene.stranger.memberships.get().department
    Member.objects.create(user=scene.operator, department=other, role=Member.Role.OPERATOR)
    foreign = factories.make_lead(other, status="new")
    shown = factories.make_lead(scene.department, status="new")
    client, query = scene.client(scene.operator), {"department": scene.department.slug, "status": "new"}
    html = client.get(reverse("leads:run_preview"), query).content.decode()
    assert f'name="department" value="{scene.department.slug}"' in html
    client.get(reverse("leads:list"), {"department": other.slug})  # meanwhile, in another window
    client.post(reverse("leads:run"), query)
    assert Item.objects.get(pk=shown.pk).route_due_at is not None
    assert Item.objects.get(pk=foreign.pk).route_due_at is None
    assert client.post(reverse("leads:run"), {"department": "nowhere"}).status_code == 404
    client.post(reverse("leads:run"), {"department": "all", "status": "new"})
    assert Item.objects.get(pk=foreign.pk).route_due_at is not None


def test_running_too_many_at_once_is_refused_with_a_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = make_scene()
    factories.make_lead(scene.department)
    monkeypatch.setattr(views, "MAX_RUN", 1)
    html = scene.client(scene.operator).post(reverse("leads:run"), {}, headers=HTMX).content.decode()
    assert "manage.py run_pipeline" in html
    assert Trigger.objects.filter(kind="operator").count() == 0


@pytest.mark.parametrize("who", ["viewer", "reviewer", "nobody"])
def test_running_takes_an_operator(who: str) -> None:
    scene = make_scene()
    user = None if who == "nobody" else getattr(scene, who)
    response = scene.client(user).post(reverse("leads:run"), {"item": scene.lead.pk})
    assert response.status_code == (302 if who == "nobody" else 404)
    assert Item.objects.get(pk=scene.lead.pk).route_due_at is None


def test_get_does_not_run_anything() -> None:
    scene = make_scene()
    assert scene.client(scene.operator).get(reverse("leads:run")).status_code == 405
    assert scene.client(scene.operator).get(reverse("leads:simulate_reply", args=[scene.lead.pk])).status_code == 405


# --- Simulated replies ---------------------------------------------------------------------------------------


def _reply(scene: Scene, user: Any, **data: str) -> Any:
    url = reverse("leads:simulate_reply", args=[scene.lead.pk])
    data = {"body": "Please call me.", "delivery_id": "form-1", **data}
    return scene.client(user).post(url, data, headers=HTMX)


def test_a_simulated_reply_is_recorded_as_a_reply(settings: Any) -> None:
    settings.SIMULATED = True
    scene = make_scene()
    assert "The reply is recorded" in _reply(scene, scene.operator).content.decode()
    message = Message.objects.get(body="Please call me.")
    assert (message.direction, message.address) == ("in", scene.lead.email)
    assert message.trigger is not None
    assert message.trigger.kind == "reply"
    assert Item.objects.get(pk=scene.lead.pk).route_due_at is not None


def test_pressing_the_button_twice_is_one_reply(settings: Any) -> None:
    settings.SIMULATED = True
    scene = make_scene()
    for _ in range(2):
        _reply(scene, scene.operator)
    assert Message.objects.filter(body="Please call me.").count() == 1


def test_a_plain_form_is_redirected_to_the_lead(settings: Any) -> None:
    settings.SIMULATED = True
    scene = make_scene()
    url = reverse("leads:simulate_reply", args=[scene.lead.pk])
    response = scene.client(scene.operator).post(url, {"body": "Yes."})
    assert response["Location"] == reverse("leads:detail", args=[scene.lead.pk])


def test_an_empty_reply_is_refused(settings: Any) -> None:
    settings.SIMULATED = True
    scene = make_scene()
    assert "Write what the lead answers" in _reply(scene, scene.operator, body="  ").content.decode()
    assert Trigger.objects.filter(source="simulated").count() == 0


@pytest.mark.parametrize("who", ["viewer", "stranger"])
def test_simulating_takes_an_operator_of_the_department(settings: Any, who: str) -> None:
    settings.SIMULATED = True
    scene = make_scene()
    assert _reply(scene, getattr(scene, who)).status_code == 404
    assert Trigger.objects.filter(source="simulated").count() == 0


def test_nobody_can_simulate_where_answers_are_real(settings: Any) -> None:
    settings.SIMULATED = settings.DEBUG = False
    scene = make_scene()
    assert _reply(scene, scene.operator).status_code == 404
    html = scene.client(scene.operator).get(reverse("leads:detail", args=[scene.lead.pk])).content.decode()
    assert "Simulate a reply" not in html
