"""Failures of one cause are one question, however many they are; the first answer to it wins."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from django.conf import settings
from django.contrib.auth.models import User
from django.urls import reverse
from django.utils import timezone

from agents.causes import Cause
from agents.models import Agent, Department, Member
from runs import bulk as bulks
from runs import incidents, tasks
from runs.commits import commit
from runs.control import retry_agent_run
from runs.models import Action, AgentRun, Alert, BulkAction, Item, PipelineRun, Review
from runs.staff import load_staff
from runs.views import incidents as views
from tests import factories
from tests.engine import broken_off, claim, in_threads, make_office, make_queued, run_of
from tests.factories import make_user
from tests.runs.scene import HTMX, Scene, make_scene

pytestmark = pytest.mark.django_db


@pytest.fixture
def office() -> Department:
    return make_office()


def fail(count: int = 1, agent: str = "intake", cause: Cause = Cause.REQUEST, **fields: Any) -> list[AgentRun]:
    """Agent runs of leads of their own that have failed for good, one transaction each."""
    failed = []
    for _ in range(count):
        run = make_queued(agent, **fields)
        work = next(work for work in claim() if work.run_id == run.pk)
        commit([broken_off(work, cause)], load_staff())
        failed.append(run_of(work))
        AgentRun.objects.filter(status="queued").update(status="cancelled")
    return failed


def questions() -> list[tuple[str, int, str]]:
    return list(Review.objects.filter(status="open").order_by("pk").values_list("kind", "count", "cause"))


# --- Becoming one ---------------------------------------------------------------------------------------------


def test_the_first_failure_is_a_question_of_its_own(office: Department) -> None:
    run = fail()[0]
    review = Review.objects.get()
    assert questions() == [("failure", 1, "intake:request")]
    assert (review.item_id, review.agent_run_id, run.incident_id) == (run.item_id, run.pk, review.pk)
    alert = Alert.objects.get()
    assert (alert.key, alert.count, alert.link) == ("failure:intake:request", 1, run.item.get_absolute_url())


def test_a_second_item_with_the_same_cause_makes_it_an_incident(office: Department) -> None:
    runs = fail(3)
    assert questions() == [("incident", 3, "intake:request")]
    review = Review.objects.get()
    assert review.item is None
    assert "3 items" in review.ask
    assert set(review.affected_runs.all()) == set(runs)
    assert all(Item.objects.get(pk=run.item_id).flag for run in runs)
    alert = Alert.objects.get()
    assert (alert.count, alert.link) == (3, reverse("runs:incident", args=[review.pk]))


def test_another_cause_another_agent_and_another_department_stay_apart(office: Department) -> None:
    fail()
    fail(cause=Cause.REFUSAL)
    fail(agent="qualifier")
    fail(department=make_office("other"))
    assert [(kind, count) for kind, count, _ in questions()] == [
        ("failure", 1),
        ("refusal", 1),
        ("failure", 1),
        ("failure", 1),
    ]


def test_an_old_question_stays_one_of_its_own(office: Department) -> None:
    fail()
    Review.objects.update(created_at=timezone.now() - timedelta(minutes=61))
    fail()
    assert [kind for kind, _, _ in questions()] == ["failure", "failure"]


def test_an_answered_question_is_not_joined(office: Department) -> None:
    fail()
    Review.objects.update(status="answered")
    fail()
    assert questions() == [("failure", 1, "intake:request")]


def test_those_of_one_transaction_are_one_incident_as_well(office: Department) -> None:
    for _ in range(4):
        make_queued("intake")
    commit([broken_off(work, Cause.REQUEST) for work in claim()], load_staff())
    assert questions() == [("incident", 4, "intake:request")]


@pytest.mark.django_db(transaction=True)
def test_two_shifts_that_fail_at_once_make_one_incident(office: Department) -> None:
    for _ in range(4):
        make_queued("intake")
    works, staff = claim(), load_staff()
    in_threads(lambda number: commit([broken_off(works[number], Cause.REQUEST)], staff), 4)
    assert questions() == [("incident", 4, "intake:request")]
    assert Review.objects.count() == 1
    assert Alert.objects.get().count == 4


def test_a_run_that_fails_again_is_counted_once(office: Department) -> None:
    user = make_user()
    first = fail(2)[0]
    assert retry_agent_run(run=first, user=user)
    again = AgentRun.objects.filter(item=first.item).latest("pk")
    work = next(work for work in claim() if work.run_id == again.pk)
    commit([broken_off(work, Cause.REQUEST)], load_staff())
    assert questions() == [("incident", 2, "intake:request")]


# --- Answers --------------------------------------------------------------------------------------------------


@pytest.fixture
def user(office: Department) -> User:
    return make_user(department=office)


def test_retrying_all_queues_every_run_once(office: Department, user: User) -> None:
    runs = fail(3)
    bulk = incidents.retry_all(review=Review.objects.get(), user=user)
    assert bulk is not None
    assert (bulk.status, bulk.total, bulk.done, bulk.refused) == ("done", 3, 3, {})
    assert {AgentRun.objects.get(pk=run.pk).status for run in runs} == {"superseded"}
    assert [run.item_id for run in AgentRun.objects.filter(status="queued").order_by("item")] == [
        run.item_id for run in runs
    ]
    assert (Review.objects.get().status, Review.objects.get().answer) == ("answered", "retry")
    assert Alert.objects.get().state == "closed"
    assert {Item.objects.get(pk=run.item_id).flag for run in runs} == {""}
    assert Action.objects.filter(bulk=bulk, verb="retry").count() == 3
    assert Action.objects.filter(bulk=bulk, verb="retry_all").count() == 1


def test_accepting_all_leaves_them_failed_and_takes_the_flags_away(office: Department, user: User) -> None:
    runs = fail(3)
    bulk = incidents.accept_all(review=Review.objects.get(), user=user, reason="Old leads.")
    assert bulk is not None
    assert (bulk.status, bulk.done) == ("done", 3)
    assert {AgentRun.objects.get(pk=run.pk).status for run in runs} == {"failed"}
    assert {Item.objects.get(pk=run.item_id).flag for run in runs} == {""}
    assert Review.objects.get().answer_note == "Old leads."
    assert Action.objects.filter(bulk=bulk, verb="accept_failure").count() == 3


def test_the_first_answer_wins(office: Department, user: User) -> None:
    fail(2)
    review = Review.objects.get()
    assert incidents.retry_all(review=review, user=user)
    assert incidents.accept_all(review=review, user=user, reason="") is None
    assert incidents.retry_all(review=review, user=user) is None
    assert BulkAction.objects.count() == 1


@pytest.mark.django_db(transaction=True)
def test_of_two_answers_at_once_one_counts(office: Department, user: User) -> None:
    fail(3)
    review = Review.objects.get()

    def answer(number: int) -> bool:
        if number:
            return incidents.retry_all(review=review, user=user) is not None
        return incidents.accept_all(review=review, user=user, reason="") is not None

    assert sorted(in_threads(answer, 2)) == [False, True]
    assert BulkAction.objects.get().done == 3


def test_an_answer_whose_worker_died_is_finished_by_another(
    office: Department, user: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    fail(3)
    monkeypatch.setattr(bulks, "AT_ONCE_SECONDS", -1.0)
    bulk = incidents.retry_all(review=Review.objects.get(), user=user)
    assert bulk is not None
    assert (bulk.status, bulk.done) == ("running", 1)
    tasks.carry_on_bulk(bulk.pk)
    tasks.carry_on_bulk(bulk.pk)
    bulk.refresh_from_db()
    assert (bulk.status, bulk.done) == ("done", 3)
    assert Action.objects.filter(verb="retry").count() == 3


def test_a_stopped_answer_leaves_the_rest_alone(
    office: Department, user: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    fail(3)
    monkeypatch.setattr(bulks, "AT_ONCE_SECONDS", -1.0)
    bulk = incidents.retry_all(review=Review.objects.get(), user=user)
    assert bulk is not None
    assert bulks.abort(bulk=bulk, user=user)
    assert not bulks.abort(bulk=bulk, user=user)
    tasks.carry_on_bulk(bulk.pk)
    assert AgentRun.objects.filter(status="failed").count() == 2


def test_an_incident_is_over_when_the_last_run_was_retried_by_itself(office: Department, user: User) -> None:
    runs = fail(2)
    assert retry_agent_run(run=runs[0], user=user)
    assert Review.objects.get().status == "open"
    assert retry_agent_run(run=runs[1], user=user)
    assert (Review.objects.get().status, Review.objects.get().answered_by) == ("answered", user)
    assert Alert.objects.get().state == "closed"


def test_one_failure_is_accepted_by_itself(office: Department, user: User) -> None:
    run = fail()[0]
    review = Review.objects.get()
    assert incidents.accept(review=review, user=user, reason="Not needed.")
    assert not incidents.accept(review=review, user=user, reason="Not needed.")
    review.refresh_from_db()
    assert (review.status, review.answer) == ("answered", "accept")
    assert Item.objects.get(pk=run.item_id).flag == ""
    assert Alert.objects.get().state == "closed"


def test_a_draft_is_not_answered_by_going_on_without_it() -> None:
    scene = make_scene()
    assert not incidents.accept(review=scene.review, user=scene.reviewer, reason="")


# --- Pages ----------------------------------------------------------------------------------------------------


def scene_with_incident() -> tuple[Scene, Review]:
    """Two leads whose Writer failed for the same reason, with the people of the scene."""
    department = make_office("acme")
    fail(2, agent="writer", department=department)
    scene = make_scene()
    for user, role in ((scene.operator, "operator"), (scene.viewer, "viewer"), (scene.reviewer, "reviewer")):
        Member.objects.create(department=department, user=user, role=role)
    return scene, Review.objects.get(kind="incident")


POSTS: dict[str, Callable[[Scene, Review], str]] = {
    "retry": lambda s, r: reverse("runs:incident_retry", args=[r.pk]),
    "accept": lambda s, r: reverse("runs:incident_accept", args=[r.pk]),
    "single": lambda s, r: reverse("runs:review_accept", args=[Review.objects.get(agent_run=s.failed).pk]),
}


def state() -> list[Any]:
    return [
        list(AgentRun.objects.order_by("pk").values_list("pk", "status")),
        list(Review.objects.order_by("pk").values_list("pk", "status", "answer")),
        Action.objects.count(),
        BulkAction.objects.count(),
    ]


@pytest.mark.parametrize("name", POSTS)
def test_an_answer_works_once_and_redirects_a_plain_form(name: str) -> None:
    scene, review = scene_with_incident()
    url, client, before = POSTS[name](scene, review), scene.client(scene.operator), state()
    response = client.post(url, {"reason": "Old."})
    assert response.status_code == 302
    assert client.get(response["Location"]).status_code == 200
    after = state()
    assert after != before
    html = client.post(url, {"reason": "Old."}, headers=HTMX).content.decode()
    assert "Nothing was changed" in html
    assert state() == after


@pytest.mark.parametrize("name", POSTS)
def test_htmx_gets_a_message_and_the_page_refetches_its_parts(name: str) -> None:
    scene, review = scene_with_incident()
    response = scene.client(scene.operator).post(POSTS[name](scene, review), headers=HTMX)
    assert response["HX-Trigger"] == "kontor:changed"
    assert 'data-colour="success"' in response.content.decode()


@pytest.mark.parametrize("name", POSTS)
@pytest.mark.parametrize(("who", "status"), [("viewer", 404), ("stranger", 404), ("nobody", 302)])
def test_who_may_not_answer_changes_nothing(name: str, who: str, status: int) -> None:
    scene, review = scene_with_incident()
    before = state()
    user = None if who == "nobody" else getattr(scene, who)
    client = scene.client(user)
    assert client.post(POSTS[name](scene, review)).status_code == status
    assert scene.client(scene.operator).get(POSTS[name](scene, review)).status_code == 405
    assert state() == before


def test_a_reviewer_may_accept_but_not_retry() -> None:
    scene, review = scene_with_incident()
    client = scene.client(scene.reviewer)
    html = client.get(reverse("runs:incident", args=[review.pk])).content.decode()
    assert "Retry all" not in html
    assert "Go on without it on all" in html
    assert client.post(POSTS["retry"](scene, review)).status_code == 404
    assert client.post(POSTS["accept"](scene, review)).status_code == 302


def test_the_incident_is_found_on_its_own_page_the_items_page_and_the_overview() -> None:
    scene, review = scene_with_incident()
    client, item = scene.client(scene.operator), review.affected_runs.select_related("item").order_by("pk")[0].item
    page = client.get(reverse("runs:incident", args=[review.pk])).content.decode()
    panel = client.get(reverse("runs:incident_panel", args=[review.pk])).content.decode()
    assert item.title in page
    assert "Retry all" in panel
    assert "This is one of 2" in client.get(item.get_absolute_url()).content.decode()
    assert reverse("runs:incident", args=[review.pk]) in client.get("/").content.decode()
    assert scene.client(scene.stranger).get(reverse("runs:incident", args=[review.pk])).status_code == 404


def test_a_question_that_was_withdrawn_was_answered_by_nobody() -> None:
    scene = make_scene()
    review = factories.make_review(scene.lead.item, kind="incident", cause="writer:timeout", ask="Retry them all?")
    Review.objects.filter(pk=review.pk).update(status="withdrawn")
    text = scene.client(scene.operator).get(reverse("runs:incident", args=[review.pk])).content.decode()
    assert "Nobody answered: it is withdrawn, and nothing is asked any more." in text
    assert "answered “”" not in text


def test_what_is_no_failure_has_no_page_of_an_incident() -> None:
    scene = make_scene()
    review = factories.make_review(scene.lead.item, kind="budget", ask="Allow more?")
    assert scene.client(scene.operator).get(reverse("runs:incident", args=[review.pk])).status_code == 404


def test_a_row_says_what_failed_where_and_why(django_assert_max_num_queries: Any) -> None:
    scene, review = scene_with_incident()
    run = AgentRun.objects.filter(incident=review).select_related("item", "agent").first()
    assert run is not None
    AgentRun.objects.filter(pk=run.pk).update(error="No answer. " * 50)
    PipelineRun.objects.filter(pk=run.pipeline_run_id).update(missing="The research.")
    url, client = reverse("runs:incident_panel", args=[review.pk]), scene.client(scene.operator)
    html = client.get(url).content.decode()
    row = html[html.index(f'id="affected-{run.pk}"') :].split("</tr>")[0]
    assert f'href="{run.item.get_absolute_url()}">{run.item.title}</a>' in row
    assert f'href="{reverse("runs:detail", args=[run.pipeline_run_id])}?step={run.pk}">{run.agent.title}</a>' in row
    assert '<span class="k-waits">The research.</span>' in row
    assert f'<td class="k-free">{("No answer. " * 50)[:199]}…</td>' in row
    assert "<td>failed</td>" in row
    for number in range(5):
        item = factories.make_lead(review.department, email=f"m{number}@example.com").item
        more = factories.make_agent_run(item, status="failed")
        AgentRun.objects.filter(pk=more.pk).update(incident=review)
    with django_assert_max_num_queries(9):
        assert client.get(url).content.decode().count('id="affected-') == 7


def test_a_run_that_is_erased_while_the_incident_is_read_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    scene, review = scene_with_incident()
    item = review.affected_runs.select_related("item").order_by("pk")[0].item
    monkeypatch.setattr(views, "Agent", SimpleNamespace(objects=Agent.objects.filter(pk=0)))
    response = scene.client(scene.operator).get(reverse("runs:incident", args=[review.pk]))
    assert response.status_code == 200
    assert item.title not in response.content.decode()


def test_a_long_error_without_a_space_breaks_in_its_cell() -> None:
    scene, review = scene_with_incident()
    AgentRun.objects.filter(incident=review).update(error="x" * 300)
    html = scene.client(scene.operator).get(reverse("runs:incident", args=[review.pk])).content.decode()
    assert f'<td class="k-free">{"x" * 199}…</td>' in html
    rules = (settings.BASE_DIR / "static/css/kontor.css").read_text()
    assert ".k-free { overflow-wrap: anywhere; }" in rules
