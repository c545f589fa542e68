"""The lists of steps and runs: filters, counts, pages that stay bounded, and the way to the next failure."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import time_machine
from django.urls import reverse
from django.utils import timezone

from agents.models import Department
from runs.models import AgentRun
from runs.status_counts import count_statuses
from runs.views import windows
from tests import factories
from tests.runs.scene import HTMX, Scene, make_scene, settled

pytestmark = pytest.mark.django_db


def _rows(scene: Scene, name: str = "runs:steps", **query: Any) -> list[Any]:
    response = scene.client(scene.operator).get(reverse(name), query)
    assert response.status_code == 200
    return list(response.context["rows"])


def _agents(scene: Scene, **query: Any) -> list[str]:
    return [row.run.agent.slug for row in _rows(scene, **query)]


@pytest.mark.parametrize(
    ("query", "agents"),
    [
        ({}, ["writer", "strategist", "researcher", "qualifier", "intake"]),
        ({"status": "queued"}, ["writer"]),
        ({"status": "running"}, ["researcher"]),
        ({"status": "lost"}, ["strategist"]),
        ({"status": "failed"}, ["qualifier"]),
        ({"status": "done"}, ["intake"]),
        ({"agent": "writer"}, ["writer"]),
        ({"agent": "nobody"}, []),
        ({"cause": "timeout"}, ["qualifier"]),
        ({"cause": "refusal"}, []),
        ({"cause": "timeout", "status": "done"}, []),
        ({"model": "claude-haiku-5-5"}, ["qualifier", "intake"]),
        ({"model": "claude-none"}, []),
        ({"since": "1h"}, ["writer", "strategist", "researcher", "qualifier", "intake"]),
        ({"text": "LENA web"}, ["writer", "strategist", "researcher", "qualifier", "intake"]),
        ({"text": "nobody"}, []),
    ],
)
def test_it_filters_by_what_the_address_says(query: dict[str, str], agents: list[str]) -> None:
    assert _agents(make_scene(), **query) == agents


@pytest.mark.parametrize(
    "query", [{"status": "x"}, {"cause": "x"}, {"since": "x"}, {"before": "x"}, {"after": "9" * 30}]
)
def test_nonsense_in_the_address_is_no_filter(query: dict[str, str]) -> None:
    assert len(_rows(make_scene(), **query)) == 5


@pytest.mark.parametrize(
    "query", [{"status": "%"}, {"text": "%_'\"<b>"}, {"model": "' OR 1=1 --"}, {"agent": "é" * 200}]
)
def test_rubbish_is_answered_and_escaped(query: dict[str, str]) -> None:
    scene = make_scene()
    html = scene.client(scene.operator).get(reverse("runs:steps"), query).content.decode()
    assert '<b>"' not in html
    assert "%_'\"<b>" not in html


def test_a_failed_step_says_what_went_wrong_and_a_waiting_one_for_what() -> None:
    scene = make_scene()
    html = scene.client(scene.operator).get(reverse("runs:steps")).content.decode()
    assert "No answer in time: No answer within 60 s." in html
    assert "The budget of the department is used up. Waiting for" in html
    assert "lost, being recovered" in html


def test_steps_of_other_departments_are_not_there() -> None:
    scene = make_scene()
    theirs = factories.make_lead(Department.objects.get(slug="other")).item
    factories.make_agent_run(theirs, "intake", status="failed")
    assert len(_rows(scene, status="failed")) == 1
    response = scene.client(scene.stranger).get(reverse("runs:steps"))
    assert [row.run.item for row in response.context["rows"]] == [theirs]


def test_counts_of_now_are_the_pages_own_and_the_others_the_jobs() -> None:
    scene = make_scene()
    client = scene.client(scene.operator)
    chips = {chip.value: chip.counted for chip in client.get(reverse("runs:steps")).context["chips"]}
    assert {value: counted and counted.number for value, counted in chips.items()} == {
        **{"queued": 1, "running": 1, "lost": 1, "failed": 1},
        **{"done": None, "cancelled": None, "superseded": None},
    }
    count_statuses()
    chips = {chip.value: chip.counted for chip in client.get(reverse("runs:steps")).context["chips"]}
    assert (chips["done"].number, chips["cancelled"].number) == (1, 0)
    runs = {chip.value: chip.counted.number for chip in client.get(reverse("runs:list")).context["chips"]}
    assert runs == {"active": 1, "completed": 0, "degraded": 0, "cancelled": 0}


@pytest.mark.parametrize(
    ("name", "query"),
    [
        *(
            ("runs:steps", query)
            for query in ({"agent": "writer"}, {"cause": "timeout"}, {"since": "1h"}, {"text": "x"})
        ),
        *(("runs:list", query) for query in ({"since": "1h"}, {"text": "Lena", "status": "active"})),
    ],
)
def test_no_count_beside_a_status_is_of_other_rows_than_listed(name: str, query: dict[str, str]) -> None:
    scene = make_scene()
    count_statuses()
    client = scene.client(scene.operator)
    assert any(chip.counted for chip in client.get(reverse(name), {"status": "failed"}).context["chips"])
    response = client.get(reverse(name), query)
    chips = response.context["chips"]
    assert len(chips) >= 4
    assert not any(chip.counted for chip in chips)
    html = response.content.decode()
    html = html[html.index('aria-label="Filter by status"') :]
    assert "<b" not in html[: html.index("</ul>")]


def test_steps_and_calls_belong_to_runs_in_the_menu() -> None:
    scene = make_scene()
    for url in (reverse("runs:steps"), reverse("runs:call", args=[scene.call.pk]), reverse("runs:list")):
        html = scene.client(scene.operator).get(url).content.decode()
        assert f'href="{reverse("runs:list")}" aria-current="page"' in html, url


def test_the_fragment_is_the_page() -> None:
    scene = make_scene()
    with time_machine.travel(timezone.now(), tick=False):
        for name in ("runs:steps", "runs:list"):
            client, url = scene.client(scene.operator), reverse(name)
            page = settled(client.get(url).content.decode())
            assert settled(client.get(url, headers=HTMX).content.decode()) in page


@pytest.mark.parametrize("query", [{}, {"model": "claude-haiku-5-5", "since": "7d"}, {"text": "Lena"}])
def test_it_takes_as_many_queries_for_many_steps(query: dict[str, str], django_assert_num_queries: Any) -> None:
    scene = make_scene()
    client, numbers = scene.client(scene.operator), []
    for _ in range(2):
        with django_assert_num_queries(18, exact=False) as found:
            client.get(reverse("runs:steps"), query)
        numbers.append(len(found))
        for _ in range(5):
            item = factories.make_lead(scene.department).item
            factories.make_model_call(factories.make_agent_run(item, "intake", status="done"))
    assert numbers[0] == numbers[1]


@pytest.mark.parametrize("query", [{}, {"since": "7d"}, {"text": "Lena", "status": "active"}])
def test_the_list_of_runs_takes_as_many_queries_for_many(query: dict[str, str], django_assert_num_queries: Any) -> None:
    scene = make_scene()
    client, numbers = scene.client(scene.operator), []
    for _ in range(2):
        with django_assert_num_queries(18, exact=False) as found:
            client.get(reverse("runs:list"), query)
        numbers.append(len(found))
        for _ in range(5):
            factories.make_agent_run(factories.make_lead(scene.department).item, "intake", status="done")
    assert numbers[0] == numbers[1]


# --- Pages ----------------------------------------------------------------------------------------------------


@pytest.fixture
def small_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    """A page looks through 40 rows."""
    monkeypatch.setattr(windows, "SPAN", 40)


def _many(scene: Scene, number: int) -> list[AgentRun]:
    runs = []
    for _ in range(number):
        item = factories.make_lead(scene.department).item
        runs.append(factories.make_agent_run(item, "formatter", status="done"))
    return runs


def _walk(scene: Scene, query: str, link: str) -> list[list[int]]:
    """The ids on every page from one end to the other."""
    client, pages = scene.client(scene.operator), []
    for _ in range(50):
        response = client.get(f"{reverse('runs:steps')}{query}")
        pages.append([row.run.pk for row in response.context["rows"]])
        query = getattr(response.context["page"], link)
        if not query:
            return pages
    raise AssertionError("The pages have no end.")


@pytest.mark.parametrize("query", ["?agent=formatter", "?model=claude-haiku-5-5", "?model=claude-haiku-5-5&since=30d"])
def test_every_step_is_on_one_page_both_ways(query: str, small_windows: None) -> None:
    scene = make_scene()
    runs = _many(scene, 130)
    for run in runs[::7]:
        factories.make_model_call(run, model_used="claude-haiku-5-5")
    expected = _expected(query, runs)
    older = _walk(scene, query, "older")
    assert [pk for page in older for pk in page] == expected[::-1]
    first = f"{query}&after={expected[0] - 1}"
    assert [pk for page in _walk(scene, first, "newer") for pk in page[::-1]] == expected


def _expected(query: str, runs: list[AgentRun]) -> list[int]:
    if "agent" in query:
        return [run.pk for run in runs]
    found = AgentRun.objects.filter(model_calls__model_used="claude-haiku-5-5").distinct()
    return sorted(found.values_list("pk", flat=True))


def test_a_page_that_found_nothing_says_that_there_is_more_to_look_at(small_windows: None) -> None:
    scene = make_scene()
    _many(scene, 60)
    response = scene.client(scene.operator).get(reverse("runs:steps"), {"model": "claude-haiku-5-5"})
    assert response.context["rows"] == []
    assert "Older ones have not been looked at yet" in response.content.decode()
    assert response.context["page"].older


def test_nothing_older_than_the_period_is_looked_at(small_windows: None) -> None:
    scene = make_scene()
    runs = _many(scene, 60)
    AgentRun.objects.filter(pk__lte=runs[30].pk).update(queued_at=timezone.now() - timedelta(days=3))
    response = scene.client(scene.operator).get(reverse("runs:steps"), {"since": "24h"})
    assert [row.run.pk for row in response.context["rows"]] == [run.pk for run in runs[:30:-1]]
    assert response.context["page"].older == ""


def test_runs_are_found_by_item_and_since() -> None:
    scene = make_scene()
    old = factories.make_lead(scene.department, name="Old One").item
    factories.make_pipeline_run(old, status="completed", started_at=timezone.now() - timedelta(days=3))
    assert [row.run.item.title for row in _rows(scene, "runs:list", text="old o")] == ["Old One"]
    assert [row.run for row in _rows(scene, "runs:list", since="24h")] == [scene.run]
    assert len(_rows(scene, "runs:list", since="7d")) == 2


# --- The next failure -----------------------------------------------------------------------------------------


def _next(scene: Scene, **query: Any) -> str:
    response = scene.client(scene.operator).get(reverse("runs:next_failure"), query)
    assert response.status_code == 302
    return str(response["Location"])


def _failures(scene: Scene) -> list[AgentRun]:
    agents = ("writer", "intake", "writer")
    items = [factories.make_lead(scene.department).item for _ in agents]
    return [factories.make_agent_run(item, agent, status="failed") for item, agent in zip(items, agents, strict=True)]


def test_it_goes_from_failure_to_failure_the_newest_first() -> None:
    scene = make_scene()
    first, second, third = _failures(scene)
    for run, query in (
        (third, {}),
        (second, {"from": third.pk}),
        (first, {"from": second.pk}),
        (scene.failed, {"from": first.pk}),
    ):
        url = reverse("runs:detail", args=[run.pipeline_run_id])
        assert _next(scene, **query) == f"{url}?step={run.pk}&tab=error"


def test_it_stays_within_the_filters_one_came_from() -> None:
    scene = make_scene()
    first, _, third = _failures(scene)
    place = urlsplit(_next(scene, **{"in": "agent=writer&status=done", "from": third.pk}))
    assert parse_qs(place.query)["step"] == [str(first.pk)]
    page = scene.client(scene.operator).get(f"{place.path}?{place.query}").content.decode()
    assert f"from={first.pk}&amp;in=agent%3Dwriter%26status%3Ddone" in page, "the page hands them on"


def test_it_says_when_there_is_none() -> None:
    scene = make_scene()
    client = scene.client(scene.operator)
    for query, text in (
        ({"from": scene.failed.pk}, "This was the last failed step."),
        ({"in": "agent=writer"}, "No step has failed that the filters let through."),
    ):
        response = client.get(reverse("runs:next_failure"), query, follow=True)
        assert text in response.content.decode()
        assert "status=failed" in response.redirect_chain[0][0]


def test_failures_of_others_are_not_found() -> None:
    scene = make_scene()
    theirs = factories.make_lead(Department.objects.get(slug="other")).item
    factories.make_agent_run(theirs, "intake", status="failed")
    assert f"step={scene.failed.pk}&" in _next(scene)


@pytest.mark.parametrize(
    ("name", "query", "said"),
    [
        ("runs:steps", {"status": "sleeping"}, "“sleeping” is no status (known: queued, running, lost,"),
        ("runs:steps", {"cause": "bad luck"}, "“bad luck” is no cause (known: "),
        ("runs:steps", {"since": "1y"}, "“1y” is no period (known: 1h, 24h, 7d, 30d)."),
        (
            "runs:list",
            {"status": "sleeping"},
            "“sleeping” is no status (known: active, completed, degraded, cancelled).",
        ),
        ("runs:list", {"since": "1y"}, "“1y” is no period"),
    ],
)
def test_what_no_list_could_have_is_left_out_and_said(name: str, query: dict[str, str], said: str) -> None:
    scene = make_scene()
    html = scene.client(scene.operator).get(reverse(name), query).content.decode()
    assert said in html
    assert "It is left out." in html
    assert "It is left out." not in scene.client(scene.operator).get(reverse(name), {"status": ""}).content.decode()


@pytest.mark.parametrize("query", [{"from": "x"}, {"in": "%%%&&=;"}, {"in": "status=x&before=3"}, {"from": "9" * 40}])
def test_rubbish_leads_to_the_newest_failure(query: dict[str, str]) -> None:
    scene = make_scene()
    assert f"step={scene.failed.pk}&" in _next(scene, **query)
