"""Calls, attempts and two of them side by side: what is shown, to whom, and what is said where bodies are gone."""

from __future__ import annotations

import html as entities
import json
from typing import Any

import pytest
from django.urls import reverse
from django.utils import timezone

from runs.gates import STANDS_IN
from runs.models import AgentRun, ModelCall, ModelCallBody, TryOut
from tests import factories
from tests.runs.scene import HTMX, Scene, make_scene, settled

pytestmark = pytest.mark.django_db


def _request(soul: str = "You are the Qualifier.", note: str = "") -> dict[str, Any]:
    contract = f"Answer with JSON.\n{note}" if note else "Answer with JSON."
    return {
        "model": "claude-haiku-5-5",
        "max_tokens": 300,
        "system": [{"type": "text", "text": soul}, {"type": "text", "text": contract}],
        "messages": [{"role": "user", "content": "Write the `qualification` output now."}],
    }


def _response(text: str) -> dict[str, Any]:
    return {"content": [{"type": "text", "text": text}], "stop_reason": "end_turn"}


@pytest.fixture
def scene() -> Scene:
    """The failed step of the scene has three attempts, whose requests and answers differ."""
    scene = make_scene()
    scene.call.delete()
    AgentRun.objects.filter(pk=scene.failed.pk).update(attempt=3, worker="c")
    scene.failed.refresh_from_db()
    note = f"{STANDS_IN} claude-opus-5-5, which is not available now."
    for attempt, request, text, fields in (
        (1, _request(), '{"score": 1}', {"error": "score: too low", "worker": "a"}),
        (2, _request(note=note), '{"score": 2}', {"cause": "rate_limited", "http_status": 429, "worker": "b"}),
        (3, _request("You are the new Qualifier."), '{"score": 3}', {"cause": "timeout", "worker": "c"}),
    ):
        call = factories.make_model_call(
            scene.failed,
            attempt=attempt,
            request=request,
            response=_response(text),
            request_id=f"req_{attempt}",
            **fields,
        )
        if attempt == 1:
            factories.make_tool_call(call)
    return scene


def _call(scene: Scene, attempt: int) -> ModelCall:
    return scene.failed.model_calls.get(attempt=attempt)


def _panel(scene: Scene, **query: Any) -> str:
    url = reverse("runs:panel", args=[scene.run.pk])
    asked: dict[str, Any] = {"step": scene.failed.pk, "tab": "attempts", **query}
    return scene.client(scene.operator).get(url, asked, headers=HTMX).content.decode()


# --- Attempts -------------------------------------------------------------------------------------------------


def test_each_attempt_shows_its_own_worker_calls_and_complaints(scene: Scene) -> None:
    first, second, third = (_panel(scene, attempt=number) for number in (1, 2, 3))
    assert "req_1" in first
    assert "req_2" not in first
    assert "score: too low" in first
    assert "search_knowledge" in first
    assert "Rate limit reached" in second
    assert "HTTP 429" in second
    assert f"{STANDS_IN} claude-opus-5-5" in second
    assert STANDS_IN not in third
    for number, (page, worker) in enumerate(((first, "a"), (second, "b"), (third, "c")), start=1):
        assert f'<dt>Worker</dt><dd class="k-mono">{worker}</dd>' in page, number


def test_without_a_choice_it_is_the_latest_and_it_stays_with_the_one_that_was_chosen(scene: Scene) -> None:
    assert "req_3" in _panel(scene)
    live = f"step={scene.failed.pk}&amp;tab=attempts&amp;attempt=2"
    assert live in _panel(scene, attempt=2).split("data-live-url")[1][:200]
    assert "req_3" in _panel(scene, attempt=99)
    assert "req_3" in _panel(scene, attempt="x")


def test_the_input_is_that_of_the_chosen_attempt(scene: Scene) -> None:
    assert "What attempt 1 was given." in _panel(scene, tab="input", attempt=1)


def test_an_attempt_that_was_claimed_and_not_called_yet_says_so() -> None:
    scene = make_scene()
    running = scene.run.agent_runs.get(agent__slug="researcher")
    page = _panel(scene, step=running.pk)
    assert "No call to the model was written down for this attempt." in page


def test_a_step_that_was_taken_up_again_leads_to_its_successor(scene: Scene) -> None:
    assert "taken up again later" not in _panel(scene)
    again = factories.make_agent_run(scene.lead.item, "qualifier", status="done")
    html = _panel(scene)
    assert "The same work was taken up again later" in html
    assert f'?step={again.pk}">step {again.pk}, done' in html
    assert "taken up again later" not in _panel(scene, step=again.pk)


@pytest.mark.parametrize("tab", ["error", "input", "output", "reasoning", "attempts", "cost"])
def test_each_tab_takes_a_fixed_number_of_queries(scene: Scene, tab: str, django_assert_num_queries: Any) -> None:
    client, url, numbers = scene.client(scene.operator), reverse("runs:panel", args=[scene.run.pk]), []
    for _ in range(2):
        with django_assert_num_queries(30, exact=False) as found:
            client.get(url, {"step": str(scene.failed.pk), "tab": tab})
        numbers.append(len(found))
        for attempt in (4, 5, 6):
            factories.make_tool_call(factories.make_model_call(scene.failed, attempt=attempt))
        for slug in ("fact_checker", "formatter"):
            factories.make_model_call(factories.make_agent_run(scene.lead.item, slug, status="failed"))
    assert numbers[0] == numbers[1]


# --- Side by side ---------------------------------------------------------------------------------------------


def _compare(scene: Scene, **query: Any) -> Any:
    return scene.client(scene.operator).get(reverse("runs:step_compare", args=[scene.failed.pk]), query)


def test_it_compares_the_last_two_attempts_unless_others_are_chosen(scene: Scene) -> None:
    response = _compare(scene)
    assert (response.context["left"].row.call, response.context["right"].row.call) == (_call(scene, 2), _call(scene, 3))
    first = _compare(scene, right=_call(scene, 2).pk)
    assert (first.context["left"].row.call, first.context["right"].row.call) == (_call(scene, 1), _call(scene, 2))
    oldest = _compare(scene, right=_call(scene, 1).pk)
    assert (oldest.context["left"].row.call, oldest.context["right"].row.call) == (_call(scene, 2), _call(scene, 1))
    chosen = _compare(scene, left=_call(scene, 1).pk, right=_call(scene, 2).pk)
    assert (chosen.context["left"].row.call, chosen.context["right"].row.call) == (_call(scene, 1), _call(scene, 2))


def test_what_differs_is_marked_in_words_and_signs_and_what_is_the_same_is_folded(scene: Scene) -> None:
    html = _compare(scene, left=_call(scene, 1).pk, right=_call(scene, 3).pk).content.decode()
    assert '<span class="k-hidden">added: </span></span>You are the <ins>new </ins>Qualifier.' in html
    assert '<span class="k-hidden">removed: </span>' in html
    assert "<del>1</del>" in html
    assert "<ins>3</ins>" in html
    assert "the same</span>" in html
    states = {part.key: part.state for part in _compare(scene).context["request_parts"]}
    assert states == {"system-0": "changed", "system-1": "changed", "message-1": "same", "parameters": "same"}


def test_a_retry_and_a_rerun_are_attempts_at_the_same_work(scene: Scene) -> None:
    again = factories.make_agent_run(scene.lead.item, "qualifier", status="done")
    newest = factories.make_model_call(again, request=_request("You are another."))
    response = _compare(scene)
    assert response.context["right"].row.call == newest
    assert f"step {again.pk}, attempt 1" in response.content.decode()
    other = factories.make_trigger(scene.lead.item, "reply")
    elsewhere = factories.make_agent_run(scene.lead.item, "qualifier", status="done", trigger=other)
    assert factories.make_model_call(elsewhere) not in _compare(scene).context["calls"], "another occasion"


def test_a_call_of_another_step_cannot_be_chosen(scene: Scene) -> None:
    other = factories.make_model_call(scene.run.agent_runs.get(agent__slug="intake"), attempt=2)
    for wrong in (other.pk, "x", "9" * 40):
        assert _compare(scene, left=wrong).context["left"].row.call == _call(scene, 2)


def test_one_call_has_nothing_to_be_compared_with() -> None:
    scene = make_scene()
    html = _compare(scene).content.decode()
    assert "There is nothing to compare yet: the model was called 1 time for this." in html


def test_two_calls_of_one_attempt_are_compared(scene: Scene) -> None:
    scene.failed.model_calls.exclude(attempt=3).delete()
    second = factories.make_model_call(scene.failed, attempt=3)
    response = _compare(scene)
    assert (response.context["left"].row.call.number, response.context["right"].row.call) == (1, second)


def test_bodies_that_were_pruned_leave_the_figures(scene: Scene) -> None:
    _call(scene, 2).body.delete()
    html = _compare(scene).content.decode()
    assert "The request of the left side was pruned or erased" in html
    assert "req_2" in html


def test_an_answer_that_never_came_is_said(scene: Scene) -> None:
    ModelCallBody.objects.update(response=None)
    assert "Neither side received one." in _compare(scene).content.decode()


def test_it_is_the_same_with_htmx_and_takes_a_fixed_number_of_queries(
    scene: Scene, django_assert_num_queries: Any
) -> None:
    client, url = scene.client(scene.operator), reverse("runs:step_compare", args=[scene.failed.pk])
    page = settled(client.get(url).content.decode())
    assert settled(client.get(url, headers=HTMX).content.decode()) in page
    numbers = []
    for _ in range(2):
        with django_assert_num_queries(20, exact=False) as found:
            client.get(url)
        numbers.append(len(found))
        for attempt in range(4, 9):
            factories.make_model_call(scene.failed, attempt=attempt)
    assert numbers[0] == numbers[1]


# --- One call -------------------------------------------------------------------------------------------------


def test_a_call_is_readable_and_its_json_and_command_are_there_to_be_copied(scene: Scene, settings: Any) -> None:
    settings.ANTHROPIC_BASE_URL = "http://models.example:81"
    call = _call(scene, 1)
    html = scene.client(scene.operator).get(reverse("runs:call", args=[call.pk])).content.decode()
    assert "SOUL" in html
    assert "You are the Qualifier." in html
    assert f'data-copy="#call-{call.pk}-request"' in html
    raw = html.split(f'id="call-{call.pk}-request"')[1].partition(">")[2].partition("</pre>")[0]
    assert json.loads(entities.unescape(raw)) == _request()
    command = entities.unescape(html.split(f'id="call-{call.pk}-curl"')[1])
    assert "curl -sS http://models.example:81/v1/messages" in command
    assert '-H "x-api-key: $ANTHROPIC_API_KEY"' in command


def test_a_call_without_its_bodies_says_so_and_copies_nothing(scene: Scene) -> None:
    call = _call(scene, 1)
    call.body.delete()
    html = scene.client(scene.viewer).get(reverse("runs:call", args=[call.pk])).content.decode()
    assert "pruned or erased" in html
    assert "data-copy" not in html
    assert "req_1" in html, "the accounts are kept"


def test_a_call_without_an_answer_has_no_answer_to_copy(scene: Scene) -> None:
    ModelCallBody.objects.filter(call=_call(scene, 1)).update(response=None)
    html = scene.client(scene.viewer).get(reverse("runs:call", args=[_call(scene, 1).pk])).content.decode()
    assert 'disabled title="No answer was received."' in html


def test_a_call_of_a_try_out_belongs_to_no_step(scene: Scene) -> None:
    call, agent = _call(scene, 1), scene.failed.agent
    tried = TryOut.objects.create(
        department=scene.department,
        agent=agent,
        item=scene.lead.item,
        soul_name="a draft",
        sections={},
        model=agent.model,
        bound_usd=1,
        created_at=timezone.now(),
    )
    ModelCall.objects.filter(pk=call.pk).update(agent_run=None, try_out=tried)
    html = scene.client(scene.operator).get(reverse("runs:call", args=[call.pk])).content.decode()
    assert ">try-out</a>, call 1" in html
    assert "/compare/" not in html


def test_markup_in_what_was_said_is_text(scene: Scene) -> None:
    evil = "<script>alert(1)</script>"
    ModelCallBody.objects.filter(call=_call(scene, 1)).update(response=_response(evil), request=_request(evil))
    urls = [reverse("runs:call", args=[_call(scene, 1).pk])]
    urls.append(f"{reverse('runs:step_compare', args=[scene.failed.pk])}?left={_call(scene, 1).pk}")
    for url in urls:
        html = scene.client(scene.operator).get(url).content.decode()
        assert evil not in html
        assert entities.escape(evil) in html
