"""The live page: the log of the departments that are shown, filtered in the address, paged back as far as it goes."""

from __future__ import annotations

import re
from typing import Any

import pytest
from django.test import Client
from django.urls import reverse
from pytest_django import DjangoAssertNumQueries

from agents.models import Department
from runs import log_lines
from runs.log_lines import LineFilter, read_lines
from runs.models import LogEntry
from tests import factories
from tests.runs.scene import HTMX, Scene, make_scene

pytestmark = pytest.mark.django_db


@pytest.fixture
def scene() -> Scene:
    return make_scene()


def read(client: Client, **query: Any) -> str:
    """The page with this query."""
    return client.get(reverse("runs:live"), query).content.decode()


def lines_on(html: str) -> list[int]:
    """The ids of the lines in the order in which they stand there."""
    return [int(number) for number in re.findall(r'id="line-(\d+)"', html)]


def write(scene: Scene, number: int, **values: Any) -> list[int]:
    """So many lines of the scene's item; their ids."""
    return [factories.make_log_entry(scene.lead.item, **values).pk for _ in range(number)]


def test_the_newest_line_stands_first_and_leads_to_item_run_and_step(scene: Scene) -> None:
    entry = factories.make_log_entry(
        scene.lead.item, pipeline_run=scene.run, agent_run=scene.failed, text="Out of <time>.", level="error"
    )
    html = read(scene.client(scene.viewer))
    assert lines_on(html)[0] == entry.pk
    assert f'href="{reverse("leads:detail", args=[scene.lead.pk])}"' in html
    assert f'href="{reverse("runs:detail", args=[scene.run.pk])}?step={scene.failed.pk}"' in html
    assert "Out of &lt;time&gt;." in html


def test_a_level_includes_what_is_worse(scene: Scene) -> None:
    [warning], [error] = write(scene, 1, level="warning"), write(scene, 1, level="error")
    client = scene.client(scene.viewer)
    assert lines_on(read(client, level="warning")) == [error, warning]
    assert lines_on(read(client, level="error")) == [error]
    assert len(lines_on(read(client, level="rubbish"))) > 2


def test_it_filters_by_kind_agent_and_text_together(scene: Scene) -> None:
    other = factories.make_lead(scene.department, name="Zora Zander")
    [mine] = write(scene, 1, kind="failed", agent_run=scene.failed)
    write(scene, 1, kind="failed")
    theirs = factories.make_log_entry(other.item, kind="failed")
    client = scene.client(scene.viewer)
    assert lines_on(read(client, kind="failed", agent="qualifier")) == [mine]
    assert lines_on(read(client, q="zora")) == [theirs.pk]
    assert lines_on(read(client, q="zora", kind="decision")) == []
    assert lines_on(read(client, q="nobody at all")) == []


def test_an_unknown_kind_is_offered_so_that_the_address_says_what_is_shown(scene: Scene) -> None:
    assert "<option selected>unheard_of</option>" in read(scene.client(scene.viewer), kind="unheard_of")


def test_pages_back_show_every_line_once(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_lines.read_lines, "__kwdefaults__", {"before": None, "size": 4})
    write(scene, 10)
    client, seen = scene.client(scene.viewer), []
    query: dict[str, str] = {}
    for _ in range(10):
        html = read(client, **query)
        seen += lines_on(html)
        found = re.search(r"\?before=(\d+)", html)
        if not found:
            break
        query = {"before": found[1]}
    assert seen == list(LogEntry.objects.order_by("-pk").values_list("pk", flat=True))


def test_a_page_further_back_stands_still_and_leads_to_the_newest(scene: Scene) -> None:
    newest = write(scene, 3)[-1]
    back = read(scene.client(scene.viewer), before=newest)
    assert newest not in lines_on(back)
    assert "data-live-noun" not in back
    assert "Newest" in back
    assert "data-live-noun" in read(scene.client(scene.viewer))


def test_a_filter_looks_through_a_bounded_part_of_the_log_and_goes_on_when_asked(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_lines, "WINDOW", 5)
    [rare] = write(scene, 1, kind="sent")
    write(scene, 7)
    wanted = LineFilter([scene.department.pk], kind="sent")
    first = read_lines(wanted)
    assert (first.rows, first.is_cut) == ([], True)
    second = read_lines(wanted, before=first.older)
    assert [line.pk for line in second.rows] == [rare]
    html = read(scene.client(scene.viewer), kind="sent")
    assert "Look further back" in html
    assert f"before={first.older}" in html


def test_looking_further_back_ends(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_lines, "WINDOW", 3)
    write(scene, 9)
    wanted, before, rounds = LineFilter([scene.department.pk], kind="never"), None, 0
    while (lines := read_lines(wanted, before=before)).older is not None:
        assert before is None or lines.older < before
        before, rounds = lines.older, rounds + 1
        assert rounds < 10
    assert rounds >= 3


def test_it_follows_the_events_that_can_fit(scene: Scene) -> None:
    client, pk = scene.client(scene.viewer), scene.department.pk
    assert f'data-live="department:{pk}"' in read(client)
    assert f'data-live="department:{pk}+kind:sent"' in read(client, kind="sent")
    html = read(client, kind="sent", level="warning")
    assert f'data-live="department:{pk}+kind:sent+level:warning department:{pk}+kind:sent+level:error"' in html


def test_it_counts_new_lines_only_where_the_stream_knows_that_they_fit(scene: Scene) -> None:
    client = scene.client(scene.viewer)
    assert 'data-live-noun="new line|new lines"' in read(client, kind="sent")
    assert 'data-live-noun="line written since|lines written since"' in read(client, agent="qualifier")


def test_the_fragment_is_what_the_page_shows(scene: Scene) -> None:
    write(scene, 3)
    client, url = scene.client(scene.viewer), reverse("runs:live")
    page, part = client.get(url), client.get(url, headers=HTMX)
    assert "<html" not in part.content.decode()
    assert part.content.decode().strip() in page.content.decode()
    assert "HX-Request" in page["Vary"]


def test_it_names_departments_only_where_several_are_shown(scene: Scene) -> None:
    Department.objects.filter(pk=scene.department.pk).update(name="Amselwerk")
    tag = '<span class="k-tag">Amselwerk</span>'
    assert tag not in read(scene.client(scene.viewer))
    scene.viewer.memberships.create(department=Department.objects.get(slug="other"), role="viewer")
    assert tag in read(scene.client(scene.viewer))


@pytest.mark.parametrize("before", ["x", "-1", "²", "9" * 40, ""])
def test_rubbish_in_the_address_shows_the_newest(scene: Scene, before: str) -> None:
    assert lines_on(read(scene.client(scene.viewer), before=before)) == lines_on(read(scene.client(scene.viewer)))


def test_an_empty_log_says_what_to_do(scene: Scene) -> None:
    LogEntry.objects.all().delete()
    assert "Lines appear here as soon as agents work" in read(scene.client(scene.viewer))
    assert "New lines that fit appear here by themselves" in read(scene.client(scene.viewer), kind="sent")


def test_it_takes_the_same_queries_for_a_hundred_lines_as_for_one(
    scene: Scene, django_assert_num_queries: DjangoAssertNumQueries
) -> None:
    for number in range(100):
        item = factories.make_lead(scene.department).item if number % 10 == 0 else scene.lead.item
        factories.make_log_entry(item, pipeline_run=scene.run, agent_run=scene.failed)
    client, url = scene.client(scene.viewer), reverse("runs:live")
    client.get(url)
    # Session, user, departments, roles; lines; agents.
    with django_assert_num_queries(6):
        client.get(url, headers=HTMX)
    # And the window's end.
    with django_assert_num_queries(7):
        client.get(url, {"kind": "sent"}, headers=HTMX)
