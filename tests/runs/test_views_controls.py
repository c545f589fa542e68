"""What a person does on a page: every POST view, in the same ways."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from django.urls import reverse

from runs.models import Action, AgentRun, Message, Output, Review
from tests.runs.scene import HTMX, Scene, make_scene

pytestmark = pytest.mark.django_db

URLS: dict[str, Callable[[Scene], str]] = {
    "retry": lambda s: reverse("runs:step_retry", args=[s.failed.pk]),
    "approve": lambda s: reverse("runs:review_approve", args=[s.review.pk]),
    "reject": lambda s: reverse("runs:review_reject", args=[s.review.pk]),
    "sent": lambda s: reverse("runs:output_sent", args=[s.output.pk]),
}
DATA = {"reason": "Too long."}


def _ready(scene: Scene, name: str) -> Scene:
    """A draft can be marked as sent once it is approved."""
    if name == "sent":
        Output.objects.filter(pk=scene.output.pk).update(verdict=Output.Verdict.APPROVED)
    return scene


def _allowed(scene: Scene, name: str) -> Scene:
    scene = _ready(scene, name)
    if name in ("approve", "reject"):
        scene.operator = scene.reviewer
    return scene


def _changes(scene: Scene) -> tuple[object, ...]:
    """Everything that an action could have changed, in one value."""
    return (
        list(AgentRun.objects.order_by("pk").values_list("pk", "status")),
        list(Review.objects.order_by("pk").values_list("pk", "status", "answer", "answer_note")),
        list(Output.objects.order_by("pk").values_list("pk", "verdict")),
        Message.objects.count(),
        Action.objects.count(),
    )


@pytest.mark.parametrize("name", URLS)
def test_it_works_and_redirects_a_plain_form(name: str) -> None:
    scene = _allowed(make_scene(), name)
    before = _changes(scene)
    response = scene.client(scene.operator).post(URLS[name](scene), DATA)
    assert response.status_code == 302
    assert scene.client(scene.operator).get(response["Location"]).status_code == 200
    assert _changes(scene) != before
    action = Action.objects.get()
    assert (action.user, action.item_id) == (scene.operator, scene.lead.pk)


@pytest.mark.parametrize("name", URLS)
def test_it_answers_htmx_with_a_message_and_has_the_page_refetch_its_parts(name: str) -> None:
    scene = _allowed(make_scene(), name)
    response = scene.client(scene.operator).post(URLS[name](scene), DATA, headers=HTMX)
    html = response.content.decode()
    assert response.status_code == 200
    assert response["HX-Trigger"] == "kontor:changed"
    assert 'id="messages"' in html
    assert 'data-colour="success"' in html
    assert "<html" not in html


@pytest.mark.parametrize("name", URLS)
def test_a_second_time_changes_nothing_and_says_so(name: str) -> None:
    scene = _allowed(make_scene(), name)
    client = scene.client(scene.operator)
    client.post(URLS[name](scene), DATA, headers=HTMX)
    after = _changes(scene)
    html = client.post(URLS[name](scene), DATA, headers=HTMX).content.decode()
    assert _changes(scene) == after
    assert 'data-colour="warning"' in html


@pytest.mark.parametrize("name", URLS)
def test_get_is_refused(name: str) -> None:
    scene = make_scene()
    assert scene.client(scene.operator).get(URLS[name](scene)).status_code == 405


@pytest.mark.parametrize("name", URLS)
@pytest.mark.parametrize("who", ["viewer", "stranger", "nobody"])
def test_who_may_not_changes_nothing(name: str, who: str) -> None:
    scene = _ready(make_scene(), name)
    before = _changes(scene)
    user = None if who == "nobody" else getattr(scene, who)
    response = scene.client(user).post(URLS[name](scene), DATA)
    assert response.status_code == (302 if who == "nobody" else 404)
    if who == "nobody":
        assert response["Location"].startswith(reverse("login"))
    assert _changes(scene) == before


def test_a_reviewer_may_not_retry() -> None:
    scene = make_scene()
    assert scene.client(scene.reviewer).post(URLS["retry"](scene)).status_code == 404


def test_a_retry_queues_the_step_and_answers_its_review() -> None:
    scene = make_scene()
    scene.client(scene.operator).post(URLS["retry"](scene))
    scene.failed.refresh_from_db()
    assert scene.failed.status == AgentRun.Status.SUPERSEDED
    again = AgentRun.objects.filter(agent=scene.failed.agent, item=scene.failed.item).latest("pk")
    assert again.status == AgentRun.Status.QUEUED
    assert Review.objects.get(agent_run=scene.failed).status == Review.Status.ANSWERED


def test_rejecting_asks_for_a_reason() -> None:
    scene = make_scene()
    html = scene.client(scene.reviewer).post(URLS["reject"](scene), {"reason": " "}, headers=HTMX).content.decode()
    scene.review.refresh_from_db()
    assert scene.review.status == Review.Status.OPEN
    assert "Say why" in html


def test_the_second_person_is_told_who_was_first() -> None:
    scene = make_scene()
    scene.client(scene.reviewer).post(URLS["approve"](scene))
    html = scene.client(scene.operator).post(URLS["reject"](scene), DATA, headers=HTMX).content.decode()
    scene.review.refresh_from_db()
    assert scene.review.answer == "approve"
    assert "already by rudi" in html


def test_the_page_offers_only_what_the_person_may_do() -> None:
    scene = make_scene()
    url = reverse("leads:detail", args=[scene.lead.pk])
    for user, may_answer, may_retry in (
        (scene.viewer, False, False),
        (scene.reviewer, True, False),
        (scene.operator, True, True),
    ):
        html = scene.client(user).get(url).content.decode()
        assert (URLS["approve"](scene) in html) is may_answer
        assert (URLS["retry"](scene) in html) is may_retry
