"""The pages of agents, their SOULs and try-outs: who sees and does what, and every fragment equals its page."""

from __future__ import annotations

from typing import Any

import pytest
import time_machine
from django.contrib.auth.models import User
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from agents.models import Agent, Soul
from agents.pricing import sync_prices
from agents.souls import create_draft, published_soul
from runs import agent_month, soul_editing, tryouts
from runs.agent_health import begin_of_hour
from runs.agent_settings import stamp
from runs.models import Action, AgentHour, TryOut
from runs.review_figures import Verdicts
from tests import factories
from tests.runs.scene import HTMX, Scene, make_scene, settled
from tests.runs.test_agent_settings import data

pytestmark = pytest.mark.django_db

TEXT = {"identity": "You write.", "responsibilities": "- Be short.", "prohibitions": "- Invent nothing."}
READ = ("agents", "agents_panel")
OF_AGENT = ("agent", "agent_panel", "soul_edit", "soul_history")
BY_ADMINISTRATOR = (
    *("agent_change", "agent_switch", "soul_save", "soul_preview", "soul_publish_do", "soul_rollback_do"),
    "soul_discard",
)
POSTS = (*BY_ADMINISTRATOR, "tryout_start")


@pytest.fixture
def scene() -> Scene:
    sync_prices()
    return make_scene()


@pytest.fixture
def ada(scene: Scene) -> User:
    return factories.make_user("ada", department=scene.department, role="administrator")


@pytest.fixture
def agent(scene: Scene) -> Agent:
    return factories.agent_of(scene.department, "writer")


@pytest.fixture
def draft(agent: Agent, ada: User) -> Soul:
    return create_draft(agent=agent, sections=TEXT, author=ada, note="Shorter mails")


def url(name: str, agent: Agent) -> str:
    return reverse(f"runs:{name}", args=[agent.pk])


def page(client: Client, address: str, code: int = 200) -> str:
    response = client.get(address)
    assert response.status_code == code, response.content[:300]
    return response.content.decode()


def test_everybody_of_the_department_reads(scene: Scene, agent: Agent) -> None:
    for user in (scene.viewer, scene.reviewer, scene.operator):
        client = scene.client(user)
        for name in READ:
            assert "Writer" in page(client, reverse(f"runs:{name}"))
        for name in OF_AGENT:
            assert "Writer" in page(client, url(name, agent))


def test_nobody_else_does(scene: Scene, agent: Agent, draft: Soul) -> None:
    stranger = scene.client(scene.stranger)
    assert f'href="{url("agent", agent)}"' not in page(stranger, reverse("runs:agents"))
    for name in (*OF_AGENT, "agent_settings", "soul_diff", "soul_publish", "soul_rollback", "tryout"):
        page(stranger, f"{url(name, agent)}?to=draft&number=1", 404)
        response = Client().get(url(name, agent))
        assert response.status_code == 302
        assert "/login/" in response["Location"]


@pytest.mark.parametrize("name", POSTS)
def test_actions_are_posts_of_the_right_people(scene: Scene, agent: Agent, draft: Soul, name: str) -> None:
    address = url(name, agent)
    assert scene.client(scene.viewer).get(address).status_code == 405
    assert Client().post(address).status_code == 302
    assert Client().post(address, headers=HTMX).status_code == 401
    assert scene.client(scene.stranger).post(address).status_code == 404
    wrong = scene.reviewer if name == "tryout_start" else scene.operator
    assert scene.client(wrong).post(address, TEXT).status_code == 404
    assert not Action.objects.exists()


def test_buttons_are_for_those_who_may(scene: Scene, agent: Agent, ada: User) -> None:
    for user, tries, edits in ((scene.viewer, False, False), (scene.operator, True, False), (ada, True, True)):
        html = page(scene.client(user), url("agent", agent))
        assert (url("tryout", agent) in html) == tries
        assert (url("agent_settings", agent) in html) == edits
        assert (url("agent_switch", agent) in html) == edits
        assert ("<textarea" in page(scene.client(user), url("soul_edit", agent))) == edits
    page(scene.client(scene.operator), url("agent_settings", agent), 404)
    page(scene.client(scene.operator), url("soul_publish", agent), 404)
    page(scene.client(scene.viewer), url("tryout", agent), 404)


def test_fragments_equal_the_page(scene: Scene, agent: Agent) -> None:
    client = scene.client(scene.operator)
    # Ages are in seconds, and a second may pass between two requests.
    with time_machine.travel(timezone.now(), tick=False):
        for whole, part in (("agents", "agents_panel"), ("agent", "agent_panel")):
            args = [agent.pk] if whole == "agent" else []
            fragment = settled(page(client, reverse(f"runs:{part}", args=args)))
            assert fragment in settled(page(client, reverse(f"runs:{whole}", args=args)))


def test_an_agents_page_asks_a_fixed_number_of_queries(
    scene: Scene, agent: Agent, django_assert_max_num_queries: Any
) -> None:
    client = scene.client(scene.operator)
    page(client, url("agent", agent))
    for _ in range(5):
        run = factories.make_agent_run(factories.make_item(scene.department), "writer", status="done")
        factories.make_model_call(run)
    with django_assert_max_num_queries(27):
        page(client, url("agent", agent))
    with django_assert_max_num_queries(22):
        page(client, url("agent_panel", agent))


def test_a_soul_is_shown_as_prose_and_obeys_nothing(scene: Scene, agent: Agent, ada: User) -> None:
    text = {**TEXT, "identity": "You **write**. <script>alert(1)</script> ![x](http://e.example/x.png)"}
    draft = create_draft(agent=agent, sections=text, author=ada)
    seen = soul_editing.stamp(draft, published_soul(agent))
    assert soul_editing.publish_draft(draft=draft, note="Why", user=ada, seen=seen)
    html = page(scene.client(scene.viewer), url("agent", agent))
    assert "<strong>write</strong>" in html
    assert "<script>alert" not in html
    assert "<img" not in html
    assert "<li>Be short.</li>" in html


def test_settings_are_saved_or_shown_again(scene: Scene, agent: Agent, ada: User) -> None:
    client = scene.client(ada)
    assert 'name="model"' in page(client, url("agent_settings", agent))
    given = {**data(agent, max_tokens=5000).dict(), "seen": stamp(agent)}
    assert client.post(url("agent_change", agent), given)["Location"] == url("agent", agent)
    assert Agent.objects.get(pk=agent.pk).max_tokens == 5000
    again = client.post(url("agent_change", agent), given)
    assert again.status_code == 200
    assert "Somebody else" in again.content.decode()
    agent.refresh_from_db()
    wrong = {**data(agent, model="claude-none-1").dict(), "seen": stamp(agent)}
    html = client.post(url("agent_change", agent), wrong).content.decode()
    assert "claude-none-1" in html
    assert "has no price" in html


def test_the_switch(scene: Scene, agent: Agent, ada: User) -> None:
    client, address = scene.client(ada), url("agent_switch", agent)
    assert client.post(address, {"to": "sideways"}).status_code == 302
    assert client.post(address, {"to": "off", "reason": "Too long"}, headers=HTMX)["HX-Trigger"] == "kontor:changed"
    assert not Agent.objects.get(pk=agent.pk).is_enabled
    assert "is off already" in client.post(address, {"to": "off"}, headers=HTMX).content.decode()
    assert Action.objects.count() == 1
    assert "switched off" in page(client, reverse("runs:agents"))


def test_a_draft_is_written_compared_and_published(scene: Scene, agent: Agent, ada: User) -> None:
    client = scene.client(ada)
    given = {**TEXT, "note": "Shorter", "seen": soul_editing.stamp(None)}
    assert client.post(url("soul_save", agent), given)["Location"] == url("soul_edit", agent)
    draft = soul_editing.newest_draft(agent)
    assert draft is not None
    assert "You write.</textarea>" in page(client, url("soul_edit", agent))
    assert "<ins>You write.</ins>" in page(scene.client(scene.viewer), f"{url('soul_diff', agent)}?to=draft")
    confirm = page(client, url("soul_publish", agent))
    assert "The first sends go to a person" in confirm
    assert "1 queued step will work by it" in confirm
    told = {"note": "Shorter", "seen": soul_editing.stamp(draft, published_soul(agent))}
    assert told["seen"] in confirm
    assert client.post(url("soul_publish_do", agent), told)["Location"] == url("agent", agent)
    assert "SOUL 2" in page(client, url("agent", agent))
    # A second time there is nothing left to publish.
    client.post(url("soul_publish_do", agent), told)
    assert agent.souls.filter(number__isnull=False).count() == 2
    assert client.get(url("soul_publish", agent))["Location"] == url("soul_edit", agent)
    history = page(client, url("soul_history", agent))
    assert "Shorter" in history
    assert f"{url('soul_rollback', agent)}?number=1" in history
    confirm = page(client, f"{url('soul_rollback', agent)}?number=1")
    assert "<del>You write.</del>" in confirm
    back = {"number": "1", "note": "Worse", "seen": soul_editing.stamp(published_soul(agent))}
    assert back["seen"] in confirm
    client.post(url("soul_rollback_do", agent), back)
    client.post(url("soul_rollback_do", agent), back)  # a second click
    now = published_soul(agent)
    assert now is not None
    assert now.number == 3


def test_a_draft_somebody_changed_is_not_lost_and_not_published(
    scene: Scene, agent: Agent, ada: User, draft: Soul
) -> None:
    client, seen = scene.client(ada), soul_editing.stamp(draft)
    Soul.objects.filter(pk=draft.pk).update(identity="Theirs.")
    response = client.post(url("soul_save", agent), {**TEXT, "identity": "Mine.", "seen": seen})
    assert response.status_code == 200
    assert "Mine.</textarea>" in response.content.decode()
    assert "Somebody else" in response.content.decode()
    shown = soul_editing.stamp(draft, published_soul(agent))
    client.post(url("soul_publish_do", agent), {"note": "Why", "seen": shown})
    client.post(url("soul_discard", agent), {"seen": seen})
    kept = Soul.objects.get(pk=draft.pk)
    assert (kept.identity, kept.status) == ("Theirs.", "draft")
    fresh = soul_editing.stamp(kept)
    response = client.post(url("soul_discard", agent), {"seen": fresh}, headers=HTMX)
    assert "is discarded" in response.content.decode()
    assert not Soul.objects.filter(pk=draft.pk).exists()


def test_the_preview_stores_nothing(scene: Scene, agent: Agent, ada: User) -> None:
    given = {**TEXT, "identity": "# Mine", "prohibitions": ""}
    html = scene.client(ada).post(url("soul_preview", agent), given, headers=HTMX).content.decode()
    assert "would begin another section" in html
    assert "Prohibitions is empty" in html
    assert "<ins># Mine</ins>" in html
    assert 'id="soul-preview"' in html
    assert not agent.souls.filter(status="draft").exists()


def test_saving_may_go_on_to_trying_or_publishing(scene: Scene, agent: Agent, ada: User) -> None:
    client = scene.client(ada)
    first = client.post(url("soul_save", agent), {**TEXT, "seen": soul_editing.stamp(None), "then": "try"})
    assert first["Location"] == f"{url('tryout', agent)}?soul=draft"
    seen = soul_editing.stamp(soul_editing.newest_draft(agent))
    second = client.post(url("soul_save", agent), {**TEXT, "seen": seen, "then": "publish"})
    assert second["Location"] == url("soul_publish", agent)


@pytest.mark.parametrize("query", ["?to=", "?to=9", "?to=x", "?to=1&from=zzz", "?to=99999999999999999999"])
def test_versions_that_are_not_there(scene: Scene, agent: Agent, query: str) -> None:
    code = scene.client(scene.viewer).get(url("soul_diff", agent) + query).status_code
    assert code == (200 if query == "?to=1&from=zzz" else 404)


def test_what_reviewers_change_is_suggested(scene: Scene, agent: Agent, ada: User) -> None:
    html = page(scene.client(ada), f"{url('soul_edit', agent)}?suggest=Never+write+%3Cb%3E")
    assert "Never write &lt;b&gt;" in html


# --- Trying ---------------------------------------------------------------------------------------------------


def test_items_are_offered_with_what_a_call_may_cost(scene: Scene, agent: Agent, draft: Soul) -> None:
    client = scene.client(scene.operator)
    run = factories.make_agent_run(
        factories.make_lead(scene.department, name="Lena Weber").item, "writer", status="done"
    )
    html = page(client, url("tryout", agent))
    assert f'value="{run.item_id}"' in html
    assert "a call costs at most $" in html
    assert "the draft" in html
    found = page(client, f"{url('tryout', agent)}?q=lena&soul=draft&model=claude-opus-5-5")
    assert "Lena Weber" in found
    assert "Nothing it could work on is called so" in page(client, f"{url('tryout', agent)}?q=nobody-at-all")
    chosen = page(client, f"{url('tryout', agent)}?item={scene.lead.pk}")
    assert f'value="{scene.lead.pk}" checked' in chosen
    checker = factories.agent_of(scene.department, "fact_checker")
    html = page(client, f"{url('tryout', checker)}?item={scene.lead.pk}")
    assert "It has no draft yet, which Fact-Checker needs." in html


def test_a_step_leads_to_trying_its_agent_on_the_same_occasion(scene: Scene) -> None:
    handler = factories.agent_of(scene.department, "reply_handler")
    item, client = factories.make_lead(scene.department, name="Nora").item, scene.client(scene.operator)
    address = url("tryout", handler)
    html = page(client, f"{address}?item={item.pk}")
    assert "It has no reply yet, for which Reply Handler works." in html
    assert "checked" not in html
    first = factories.make_trigger(item, "reply")
    second = factories.make_trigger(item, "reply")
    html = page(client, f"{address}?item={item.pk}")
    assert f'value="{item.pk}:{second.pk}" checked' in html
    status = scene.department.spec.status_spec(item.status).label
    assert f'<b>Nora</b> <span class="k-soft">{status}, for the reply' in html
    run = factories.make_agent_run(item, "reply_handler", trigger=first, status="done")
    detail = reverse("runs:detail", args=[run.pipeline_run_id]) + f"?step={run.pk}"
    link = f"{address}?item={item.pk}:{first.pk}"
    assert link in page(client, detail)
    assert address not in page(scene.client(scene.viewer), detail), "it costs: operators may"
    html = page(client, link)
    assert f'value="{item.pk}:{first.pk}" checked' in html
    # Another SOUL or model is chosen without losing it.
    assert f'<input type="hidden" name="item" value="{item.pk}:{first.pk}">' in html
    foreign = factories.make_trigger(factories.make_item(scene.department), "reply")
    for rubbish in (f"{item.pk}:{foreign.pk}", f"{item.pk}:x", f"{item.pk}:"):
        assert f'value="{item.pk}:{second.pk}" checked' in page(client, f"{address}?item={rubbish}")


def test_the_form_asks_a_fixed_number_of_queries(
    scene: Scene, agent: Agent, django_assert_max_num_queries: Any
) -> None:
    client = scene.client(scene.operator)
    factories.make_agent_run(factories.make_item(scene.department), "writer", status="done")
    page(client, url("tryout", agent))
    with django_assert_max_num_queries(26) as few:
        page(client, url("tryout", agent))
    for _ in range(6):
        factories.make_agent_run(factories.make_item(scene.department), "writer", status="done")
    with django_assert_max_num_queries(len(few.captured_queries)):
        page(client, url("tryout", agent))


def test_a_try_out_is_started_shown_and_stopped(scene: Scene, agent: Agent, draft: Soul) -> None:
    client = scene.client(scene.operator)
    given = {"item": str(scene.lead.pk), "soul": "draft", "model": "claude-opus-5-5"}
    response = client.post(url("tryout_start", agent), given)
    row = TryOut.objects.get()
    assert response["Location"] == reverse("runs:tryout_result", args=[row.pk])
    assert (row.soul, row.model, row.user, row.item_id) == (draft, "claude-opus-5-5", scene.operator, scene.lead.pk)
    html = page(client, response["Location"])
    assert "Waiting for a worker" in html
    with time_machine.travel(timezone.now(), tick=False):
        panel = settled(page(client, reverse("runs:tryout_panel", args=[row.pk])))
        assert panel in settled(page(client, response["Location"]))
    assert "still under way" in page(client, url("tryout", agent))
    refused = client.post(url("tryout_start", agent), given)["Location"]
    assert refused == f"{url('tryout', agent)}?soul=draft&model=claude-opus-5-5&item={scene.lead.pk}"
    assert TryOut.objects.count() == 1
    stop = reverse("runs:tryout_stop", args=[row.pk])
    assert client.get(stop).status_code == 405
    assert Client().post(stop).status_code == 302
    assert scene.client(scene.viewer).post(stop).status_code == 404
    assert scene.client(scene.stranger).post(stop).status_code == 404
    assert "It is stopped" in client.post(stop, headers=HTMX).content.decode()
    assert "It is over already" in client.post(stop, headers=HTMX).content.decode()
    html = page(client, reverse("runs:tryout_result", args=[row.pk]))
    assert "olga stopped it." in html
    assert "hx-trigger" not in html.split('id="tryout-', 1)[1].split(">", 1)[0], "nothing changes any more"
    page(scene.client(scene.stranger), reverse("runs:tryout_result", args=[row.pk]), 404)


@pytest.mark.parametrize(
    "given",
    [
        {"soul": "9", "item": "LEAD"},
        {"soul": "1"},
        {"soul": "1", "item": "99999999"},
        {"soul": "1", "item": "LEAD:99999999"},
        {"soul": "1", "item": "<b>"},
        {"soul": "1", "item": "OTHER"},
        {"soul": "1", "item": "LEAD", "model": "claude-none-1"},
    ],
)
def test_rubbish_starts_nothing(scene: Scene, agent: Agent, given: dict[str, str]) -> None:
    other = factories.make_lead(scene.stranger.memberships.get().department)
    values = {
        name: value.replace("LEAD", str(scene.lead.pk)).replace("OTHER", str(other.pk)) for name, value in given.items()
    }
    response = scene.client(scene.operator).post(url("tryout_start", agent), values, follow=True)
    assert response.status_code == 200
    assert not TryOut.objects.exists()
    assert 'data-colour="warning"' in response.content.decode()


def test_an_answer_stands_beside_what_is_there(scene: Scene, agent: Agent) -> None:
    item = scene.lead.item
    factories.make_output(item, "draft", payload={**factories.PAYLOADS["draft"], "subject": "An older subject"})
    soul = published_soul(agent)
    assert soul is not None
    _, (row,) = tryouts.start(
        agent=agent, wanted=[tryouts.Wanted(item)], soul=soul, model=agent.model, user=scene.operator
    )
    assert row.compared_with is not None
    TryOut.objects.filter(pk=row.pk).update(
        status="done", payload=factories.PAYLOADS["draft"], started_at=timezone.now(), ended_at=timezone.now()
    )
    html = page(scene.client(scene.viewer), reverse("runs:tryout_result", args=[row.pk]))
    assert "Your freight invoices" in html
    assert "An older subject" in html
    assert "What differs" in html
    assert "<ins>" in html
    assert "<h3>Body</h3>" not in html, "what is the same is not shown as a difference"


def test_an_agent_that_is_switched_off_keeps_its_figures_and_what_nobody_decided_is_said(
    scene: Scene, agent: Agent
) -> None:
    hour = begin_of_hour(timezone.now())
    AgentHour.objects.create(department=scene.department, agent=agent, hour=hour, done=998, failed=2)
    Agent.objects.filter(pk=agent.pk).update(is_enabled=False)
    html = page(scene.client(scene.operator), url("agent", agent))
    assert "998 of 1,000 steps" in html
    assert "nobody has decided yet in 30 days" in html


def test_a_share_of_nothing_approved_is_no_dash(scene: Scene, agent: Agent, monkeypatch: pytest.MonkeyPatch) -> None:
    verdicts = Verdicts()
    verdicts.add("send_back")
    monkeypatch.setattr(agent_month, "load_verdicts", lambda *given: verdicts)
    html = page(scene.client(scene.operator), url("agent", agent))
    assert "<strong>None approved</strong>of 1 decided in 30 days, 100 % sent back" in html
