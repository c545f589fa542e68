"""The list of runs and the page of one: states that are true, tabs, exact requests, fixed numbers of queries."""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from typing import Any

import pytest
from django.urls import reverse
from django.utils import timezone

from agents import prompts
from agents.models import Agent
from agents.statements import Statement
from runs.models import LogEntry, PipelineRun
from runs.runbook import section_of_cause, url_of
from runs.views import run_rows
from tests import factories
from tests.runs.scene import HTMX, Scene, make_scene

pytestmark = pytest.mark.django_db


def _panel(scene: Scene, **query: Any) -> str:
    url = reverse("runs:panel", args=[scene.run.pk])
    return scene.client(scene.operator).get(url, query, headers=HTMX).content.decode()


def test_a_run_whose_lease_is_over_is_shown_as_lost() -> None:
    scene = make_scene()
    lost = scene.run.agent_runs.get(agent__slug="strategist")
    html = _panel(scene, step=lost.pk)
    assert "lost, being recovered" in html
    assert "The next worker that looks queues it again" in html


def test_what_waits_says_for_what() -> None:
    scene = make_scene()
    writer = scene.run.agent_runs.get(agent__slug="writer")
    html = _panel(scene, step=writer.pk)
    assert "The budget of the department is used up." in html
    assert "Waiting for <time" in html


def test_it_opens_on_the_error_of_the_step_that_failed() -> None:
    scene = make_scene()
    html = _panel(scene)
    assert f'id="step-{scene.failed.pk}-error"' in html
    assert "No answer within 60 s." in html
    assert "0 failed" not in html
    assert f'href="{url_of(section_of_cause(scene.failed.cause))}">What to do</a>' in html
    assert reverse("runs:step_retry", args=[scene.failed.pk]) in html


def test_a_step_that_cannot_be_retried_says_why() -> None:
    scene = make_scene()
    done = scene.run.agent_runs.get(agent__slug="intake")
    html = _panel(scene, step=done.pk)
    assert "Only a failed step can be retried; this one is done." in html


def test_a_step_that_the_run_has_no_longer_does_not_stop_the_page() -> None:
    scene = make_scene()
    html = _panel(scene, step=10**9)
    assert f'id="step-{scene.failed.pk}-error"' in html
    assert f'data-live-url="{reverse("runs:panel", args=[scene.run.pk])}"' in html, "it follows the run again"


def test_without_a_choice_the_page_follows_the_run_and_with_one_it_stays() -> None:
    scene = make_scene()
    assert f'data-live-url="{reverse("runs:panel", args=[scene.run.pk])}"' in _panel(scene)
    assert f"?step={scene.failed.pk}&amp;tab=cost" in _panel(scene, step=scene.failed.pk, tab="cost")


def test_the_input_tab_shows_what_the_agent_was_given() -> None:
    scene = make_scene()
    step = scene.run.agent_runs.get(agent__slug="intake")
    given = prompts.AgentInput(item={"company": "Weber <data> GmbH"}, outputs={"intake": {"category": "lead"}})
    content = prompts.user_message(given, "intake")
    factories.make_model_call(step, request={"messages": [{"role": "user", "content": content}]}, attempt=2)
    html = _panel(scene, step=step.pk, tab="input")
    assert "Weber &lt;data&gt; GmbH" in html
    assert "Output “intake”" in html


def test_the_input_is_read_as_fields_down_to_the_last_object() -> None:
    scene = make_scene()
    value = {"attributes": {"lead_source": "Fair", "rooms": [{"floor": 1}]}}
    request = {"messages": [{"role": "user", "content": prompts.data_block("item", value)}]}
    factories.make_model_call(scene.failed, attempt=3, request=request)
    html = _panel(scene, step=scene.failed.pk, tab="input", attempt=3)
    assert re.search(r"<dt >Lead source</dt>\s*<dd><span class=\"k-pre\">Fair</span>", html)
    assert "<th>Floor</th>" in html
    assert html.count("&quot;lead_source&quot;") == 1, "as JSON only behind the fold"
    assert html.index("<summary>JSON</summary>") < html.index("&quot;lead_source&quot;")


def test_every_time_is_relative_with_the_exact_one_as_its_title() -> None:
    scene = make_scene()
    at = scene.run.started_at + timedelta(seconds=90)
    LogEntry.objects.create(
        department=scene.department, item=scene.lead.item, pipeline_run=scene.run, kind="started", text="x", at=at
    )
    html = _panel(scene, step=scene.failed.pk, tab="attempts")
    times = re.findall(r'<time datetime="([^"]+)" title="([^"]+)" [^>]*>([^<]+)</time>', html)
    assert len(times) >= 6
    for moment, title, text in times:
        assert title == f"{timezone.localtime(datetime.fromisoformat(moment)):%Y-%m-%d %H:%M:%S %Z}"
        assert re.fullmatch(r"(in )?\d+ (s|min|h|d)( ago)?|just now|now|\+\d+ .+", text), text
    assert (at.isoformat(), "+1 min 30 s") in [(moment, text) for moment, _, text in times]


def test_the_output_tab_shows_the_payload_and_its_json() -> None:
    scene = make_scene()
    html = _panel(scene, step=scene.run.agent_runs.get(agent__slug="intake").pk, tab="output")
    assert "1,200 freight invoices" in html
    assert "&quot;confidence&quot;: &quot;high&quot;" in html


def test_the_calls_tab_lists_tools_and_leads_to_the_exact_request() -> None:
    scene = make_scene()
    step = scene.run.agent_runs.get(agent__slug="intake")
    html = _panel(scene, step=step.pk, tab="attempts")
    assert "search_knowledge" in html
    url = reverse("runs:call", args=[step.model_calls.get().pk])
    assert url in html
    body = scene.client(scene.operator).get(url, headers=HTMX).content.decode()
    assert "&quot;max_tokens&quot;: 3000" in body
    assert "&quot;stop_reason&quot;: &quot;end_turn&quot;" in body


def test_pruned_bodies_leave_the_accounts() -> None:
    scene = make_scene()
    scene.call.body.delete()
    html = scene.client(scene.operator).get(reverse("runs:call", args=[scene.call.pk])).content.decode()
    assert "were pruned" in html
    assert str(scene.call.call_id) in html


def test_a_step_of_another_run_is_not_shown_here() -> None:
    scene = make_scene()
    other = factories.make_agent_run(factories.make_lead(scene.department).item, "intake")
    for step in (str(other.pk), "nonsense"):
        html = _panel(scene, step=step)
        assert f'id="step-{other.pk}-' not in html
        assert f'id="step-{scene.failed.pk}-error"' in html


def test_the_run_page_takes_as_many_queries_for_many_steps(django_assert_num_queries: Any) -> None:
    scene = make_scene()
    client, url = scene.client(scene.operator), reverse("runs:panel", args=[scene.run.pk])
    numbers = []
    for _ in range(2):
        with django_assert_num_queries(27, exact=False) as found:
            client.get(url)
        numbers.append(len(found))
        for slug in ("fact_checker", "formatter", "crm_scribe"):
            run = factories.make_agent_run(scene.lead.item, slug, status="done", pipeline_run=scene.run)
            factories.make_model_call(run)
            factories.make_log_entry(scene.lead.item, pipeline_run=scene.run, agent_run=run)
    assert numbers[0] == numbers[1]


def test_the_list_takes_as_many_queries_for_many_runs(django_assert_num_queries: Any) -> None:
    scene = make_scene()
    client, numbers = scene.client(scene.operator), []
    for _ in range(2):
        with django_assert_num_queries(15, exact=False) as found:
            client.get(reverse("runs:list"))
        numbers.append(len(found))
        for _ in range(5):
            factories.make_agent_run(factories.make_lead(scene.department).item, "intake", status="done")
    assert numbers[0] == numbers[1]


def test_the_list_filters_by_status_and_pages_by_key() -> None:
    scene = make_scene()
    for index in range(60):
        item = factories.make_lead(scene.department, name=f"Lead {index:02}").item
        factories.make_pipeline_run(item, status=PipelineRun.Status.COMPLETED)
    client = scene.client(scene.operator)
    url, completed = reverse("runs:list"), "completed"
    first = client.get(url, {"status": completed}).content.decode()
    assert scene.lead.name not in first
    assert "Lead 59" in first
    assert "Lead 09" not in first
    oldest = PipelineRun.objects.order_by("-pk")[49].pk
    assert f"?status=completed&amp;before={oldest}" in first
    second = client.get(f"{url}?status=completed&before={oldest}").content.decode()
    assert "Lead 09" in second
    assert "Lead 10" not in second
    newest = PipelineRun.objects.get(item__title="Lead 09").pk
    assert f"?status=completed&amp;after={newest}" in second
    back = client.get(f"{url}?status=completed&after={newest}").content.decode()
    assert "Lead 59" in back


def test_nonsense_in_the_address_is_the_first_page() -> None:
    scene = make_scene()
    for query in ({"before": "x"}, {"after": "9" * 40}, {"status": "nonsense"}, {"before": "-1"}):
        html = scene.client(scene.operator).get(reverse("runs:list"), query).content.decode()
        assert scene.lead.name in html


def test_spend_today_leaves_out_yesterday() -> None:
    scene = make_scene()
    run = factories.make_agent_run(factories.make_lead(scene.department).item, "intake", status="done")
    factories.make_model_call(run, cost_usd="7.5", started_at=timezone.now() - timedelta(days=2))
    factories.make_model_call(run, cost_usd="2.25", started_at=timezone.now())
    html = scene.client(scene.operator).get(reverse("runs:overview")).content.decode()
    assert "$2.25" in html
    assert "$9.75" not in html


def test_a_step_that_is_erased_while_the_page_is_read_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = make_scene()
    assert run_rows.load_steps(scene.run)
    monkeypatch.setattr(run_rows, "_AGENTS", Statement(lambda: Agent.objects.filter(pk=0)))
    assert run_rows.load_steps(scene.run) == []
