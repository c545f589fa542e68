"""The action log: who sees what, the filters, and the files."""

from __future__ import annotations

import csv
import io
import json
from datetime import UTC, datetime
from decimal import Decimal
from html import unescape
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.db import connection
from django.test import AsyncClient
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone
from django.utils.html import strip_tags

from agents.models import Agent, Budget
from runs.models import Action, BulkAction, Item
from runs.views import exports
from tests.factories import make_department, make_lead, make_user
from tests.runs.scene import HTMX, Scene, make_scene

pytestmark = pytest.mark.django_db

URL = "/actions/"


def act(scene: Scene, verb: str = "pause", **fields: Any) -> Action:
    """One thing Olga did to the scene's lead."""
    at = fields.pop("at", None)
    values: dict[str, Any] = {"department": scene.department, "item": scene.lead.item, "user": scene.operator}
    action = Action.objects.create(verb=verb, **{**values, **fields})
    if at is not None:
        Action.objects.filter(pk=action.pk).update(at=at)
    return action


def page(scene: Scene, query: str = "", **options: Any) -> str:
    response = scene.client(options.pop("user", scene.viewer)).get(f"{URL}{query}", **options)
    assert response.status_code == 200
    return str(response.content.decode())


def shown(scene: Scene, query: str = "", **options: Any) -> set[int]:
    """The ids of the actions on the page."""
    html = page(scene, query, **options)
    return {action.pk for action in Action.objects.all() if f'id="action-{action.pk}"' in html}


def download(scene: Scene, kind: str, query: str = "", user: Any = None) -> str:
    response = scene.client(user or scene.viewer).get(f"{URL}export.{kind}{query}")
    assert f'filename="actions.{kind}"' in response["Content-Disposition"]
    return str(response.getvalue().decode())


def make_bulk(scene: Scene, *items: Item) -> tuple[BulkAction, Action, list[Action]]:
    """A bulk action that paused some items and left one out."""
    left = make_lead(scene.department, name="Left Out").item
    bulk = BulkAction.objects.create(
        department=scene.department,
        user=scene.operator,
        verb="pause",
        selection={"status": "new"},
        total=len(items) + 1,
        done=len(items),
        refused={str(left.pk): "It is closed."},
        status=BulkAction.Status.DONE,
    )
    own = act(scene, item=None, bulk=bulk)
    return bulk, own, [act(scene, item=item, bulk=bulk) for item in items]


def test_a_row_says_who_what_where_why_and_what_changed() -> None:
    scene = make_scene()
    after = {"automation": "paused", "until": ""}
    act(scene, before={"automation": "active", "until": None}, after=after, reason="On holiday.")
    html = page(scene)
    assert "Until:" not in html, "what was empty and is empty says nothing"
    for text in ("olga", "Pause", scene.lead.name, "On holiday.", "<del>active</del>", "paused"):
        assert text in html
    assert scene.lead.item.get_absolute_url() in html


def test_a_long_text_is_shown_line_by_line() -> None:
    scene = make_scene()
    act(scene, before={"body": "Dear Lena,\nwe save 20 %."}, after={"body": "Dear Lena,\nwe check every invoice."})
    html = page(scene)
    assert "<del>− we save 20 %.</del>" in html
    assert "<ins>+ we check every invoice.</ins>" in html
    assert "  Dear Lena," in html


def test_what_a_person_wrote_is_text_and_not_html() -> None:
    scene = make_scene()
    act(scene, reason="<script>x</script>", after={"note": "<b>bold</b>"})
    html = page(scene)
    assert "<script>x" not in html
    assert "<b>bold" not in html


def test_each_filter_narrows_and_they_add_up() -> None:
    scene = make_scene()
    other = make_lead(scene.department).item
    old = act(scene, "close", at=datetime(2026, 3, 1, 23, 59, tzinfo=UTC))
    mine = act(scene, "pause")
    theirs = act(scene, "pause", user=scene.reviewer, item=other)
    nobody = act(scene, "resume", user=None)
    assert shown(scene) == {old.pk, mine.pk, theirs.pk, nobody.pk}
    assert shown(scene, "?person=olga") == {old.pk, mine.pk}
    assert shown(scene, "?verb=pause") == {mine.pk, theirs.pk}
    assert shown(scene, "?person=olga&verb=pause") == {mine.pk}
    assert shown(scene, f"?item={other.pk}") == {theirs.pk}
    assert shown(scene, "?since=2026-03-01&until=2026-03-01") == {old.pk}
    assert shown(scene, "?until=2026-02-28") == set()
    assert shown(scene, f"?since={timezone.now():%Y-%m-%d}") == {mine.pk, theirs.pk, nobody.pk}


def test_days_are_those_of_whoever_reads_the_times() -> None:
    scene = make_scene()
    late = act(scene, "close", at=datetime(2026, 3, 1, 23, 30, tzinfo=UTC))
    client = scene.client(scene.operator)
    client.cookies["kontor-zone"] = "Europe/Berlin"
    for name in ("runs:actions_json", "runs:actions_csv"):
        for query, is_there in (("since=2026-03-02&until=2026-03-02", True), ("until=2026-03-01", False)):
            answer = client.get(f"{reverse(name)}?{query}")
            text = answer.getvalue().decode()
            assert ("close" in text) is is_there
    assert shown(scene, "?until=2026-03-01") == {late.pk}, "in UTC, where the browser says nothing"


@pytest.mark.parametrize("day", ["0001-01-01", "9999-12-30", "9999-12-31", "2026-3-1", "2026-02-30"])
@pytest.mark.parametrize("zone", ["Pacific/Kiritimati", "Pacific/Pago_Pago"])
def test_the_ends_of_the_calendar_are_no_day_anywhere(day: str, zone: str) -> None:
    scene = make_scene()
    act(scene)
    client = scene.client(scene.operator)
    client.cookies["kontor-zone"] = zone
    response = client.get(f"{reverse('runs:actions')}?since={day}&until={day}")
    assert response.status_code == 200
    assert response.content.decode().count("is no day") == 2


@pytest.mark.parametrize(
    "query", ["?since=nonsense&until=2026-13-99", "?item=x&bulk=-1", "?person=&verb=", "?until=9999-12-31"]
)
def test_a_filter_that_is_none_is_left_out(query: str) -> None:
    scene = make_scene()
    action = act(scene)
    assert shown(scene, query) == {action.pk}


def test_an_empty_result_says_so_and_how_to_get_back() -> None:
    scene = make_scene()
    assert "Nobody has done anything yet" in page(scene)
    assert "No action fits the filters" in page(scene, "?verb=pause")


def test_an_action_on_many_items_is_one_row_that_leads_to_them() -> None:
    scene = make_scene()
    items = [make_lead(scene.department).item for _ in range(3)]
    bulk, own, each = make_bulk(scene, *items)
    assert shown(scene) == {own.pk}
    html = page(scene)
    assert "3 of 4" in html
    assert f'href="{URL}?bulk={bulk.pk}"' in html
    opened = page(scene, f"?bulk={bulk.pk}")
    assert shown(scene, f"?bulk={bulk.pk}") == {own.pk, *(action.pk for action in each)}
    assert "Left Out</a>: It is closed." in opened
    assert shown(scene, f"?item={items[0].pk}") == {each[0].pk}, "on the item's own list it is not hidden"


def test_another_department_is_not_seen_whatever_is_asked() -> None:
    scene = make_scene()
    bulk, _, _ = make_bulk(scene, scene.lead.item)
    act(scene)
    client = scene.client(scene.stranger)
    assert shown(scene, user=scene.stranger) == set()
    assert shown(scene, "?person=olga&verb=pause", user=scene.stranger) == set()
    assert client.get(f"{URL}?item={scene.lead.pk}").status_code == 404
    assert client.get(f"{URL}?bulk={bulk.pk}").status_code == 404
    assert list(csv.DictReader(io.StringIO(download(scene, "csv", user=scene.stranger)))) == []
    assert json.loads(download(scene, "json", user=scene.stranger)) == []


def test_a_person_of_two_departments_sees_both_and_can_choose_one() -> None:
    scene = make_scene()
    theirs = make_department(slug="third")
    scene.viewer.memberships.create(department=theirs, role="viewer")
    first, second = act(scene), act(scene, department=theirs, item=make_lead(theirs).item)
    assert shown(scene) == {first.pk, second.pk}
    assert shown(scene, "?department=third") == {second.pk}


def test_what_was_done_to_the_whole_installation_is_for_those_who_see_the_system() -> None:
    scene = make_scene()
    whole = act(scene, "stop_everything", department=None, item=None)
    assert shown(scene) == set()
    administrator = make_user("anna", department=scene.department, role="administrator")
    assert shown(scene, user=administrator) == {whole.pk}
    assert "the whole installation" in page(scene, user=administrator)


def test_htmx_gets_the_part_that_the_page_includes() -> None:
    scene = make_scene()
    act(scene)
    part = page(scene, headers=HTMX)
    assert "<html" not in part
    assert 'id="actions"' in part


def test_pages_follow_each_other_without_a_gap() -> None:
    scene = make_scene()
    ids = [act(scene).pk for _ in range(52)]
    assert shown(scene) == set(ids[2:])
    assert shown(scene, f"?before={ids[2]}") == set(ids[:2])
    assert f"before={ids[2]}" in page(scene)


def test_the_page_takes_as_many_queries_for_fifty_rows_as_for_one(django_assert_num_queries: Any) -> None:
    scene = make_scene()
    client = scene.client(scene.viewer)
    act(scene)
    with CaptureQueriesContext(connection) as first:
        client.get(URL)
    for _ in range(40):
        act(scene, item=make_lead(scene.department).item, after={"automation": "paused"})
    with django_assert_num_queries(len(first)):
        client.get(URL)


def test_csv_has_every_row_also_those_of_each_item() -> None:
    scene = make_scene()
    bulk, _, _ = make_bulk(scene, scene.lead.item)
    act(scene, reason="=HYPERLINK(1)", before={"a": 1}, after={"a": 2})
    rows = list(csv.DictReader(io.StringIO(download(scene, "csv"))))
    assert len(rows) == 3
    newest = rows[0]
    assert (newest["person"], newest["department"], newest["verb"]) == ("olga", "sales", "pause")
    assert (newest["before"], newest["after"], newest["item"]) == ('{"a": 1}', '{"a": 2}', str(scene.lead.pk))
    assert newest["reason"] == "'=HYPERLINK(1)", "a spreadsheet must not run what a person wrote"
    assert [row["bulk"] for row in rows] == ["", str(bulk.pk), str(bulk.pk)]


def test_files_follow_the_filters() -> None:
    scene = make_scene()
    act(scene, "pause", after={"automation": "paused"})
    act(scene, "close")
    assert [row["verb"] for row in csv.DictReader(io.StringIO(download(scene, "csv", "?verb=close")))] == ["close"]
    found = json.loads(download(scene, "json", "?verb=pause"))
    assert [(row["verb"], row["after"]) for row in found] == [("pause", {"automation": "paused"})]


@pytest.mark.parametrize("kind", ["csv", "json"])
@pytest.mark.parametrize("query", ["since=yesterday", "until=2026-02-31", "item=lena", "bulk=x"])
def test_no_file_is_made_of_filters_that_cannot_be_read(kind: str, query: str) -> None:
    scene = make_scene()
    act(scene)
    response = scene.client(scene.viewer).get(f"{URL}export.{kind}?{query}")
    assert response.status_code == 400
    assert "No file was made. “" in response.content.decode()
    page = scene.client(scene.viewer).get(f"{URL}?{query}").content.decode()
    assert "It is left out." in page


def test_times_in_files_are_the_persons_with_their_distance_from_utc() -> None:
    scene = make_scene()
    row = act(scene)
    type(row).objects.filter(pk=row.pk).update(at=datetime(2026, 1, 1, 23, 30, tzinfo=UTC))
    client = scene.client(scene.viewer)
    client.cookies["kontor-zone"] = "Europe/Berlin"
    for kind in ("csv", "json"):
        assert b"2026-01-02T00:30:00+01:00" in b"".join(client.get(f"{URL}export.{kind}").streaming_content)  # type: ignore[attr-defined]


def test_a_long_file_is_read_in_pieces_and_has_every_row_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exports, "CHUNK_ROWS", 3)
    scene = make_scene()
    ids = [act(scene).pk for _ in range(8)]
    assert [row["id"] for row in json.loads(download(scene, "json"))] == ids[::-1]
    rows = csv.DictReader(io.StringIO(download(scene, "csv")))
    assert [int(row["id"]) for row in rows] == ids[::-1]


@pytest.mark.django_db(transaction=True)
def test_under_asgi_a_file_is_sent_while_it_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exports, "CHUNK_ROWS", 3)
    scene = make_scene()
    ids = [act(scene).pk for _ in range(8)]
    client = AsyncClient()
    client.force_login(scene.viewer)

    async def fetch() -> list[bytes]:
        response: Any = await client.get(f"{URL}export.json")
        assert response.is_async, "else Django collects all of it first"
        return [piece async for piece in response.streaming_content]

    pieces = async_to_sync(fetch)()
    assert len(pieces) == 4
    assert [row["id"] for row in json.loads(b"".join(pieces))] == ids[::-1]


def test_the_navigation_leads_there() -> None:
    scene = make_scene()
    assert f'href="{URL}"' in scene.client(scene.viewer).get(reverse("runs:overview")).content.decode()


def test_pages_and_files_are_kept_by_no_cache_on_the_way() -> None:
    scene = make_scene()
    client = scene.client(scene.operator)
    assert client.get(reverse("runs:actions"))["Cache-Control"] == "private, no-cache"
    for name in ("runs:actions_csv", "runs:actions_json", "runs:costs_csv", "leads:csv"):
        answer = client.get(reverse(name), headers={"Accept-Encoding": "gzip"})
        assert answer["Cache-Control"] == "private, no-store", name
        assert not answer.has_header("Content-Encoding"), f"{name}: compressed piece by piece it cannot be read"


def test_what_it_was_done_to_is_said_in_words() -> None:
    scene = make_scene()
    act(scene, "snooze_review", target="review:5")
    act(scene, "export_run", target="agent_run:7")
    bulk, row, _ = make_bulk(scene, scene.lead.item)
    Action.objects.filter(pk=row.pk).update(after={"selection": {"filter": {"status": "new"}}, "total": 2})
    html = unescape(page(scene))
    assert ">question 5</span>" in html
    assert ">step 7</span>" in html
    assert "Status “New”" in html
    assert "{&quot;" not in page(scene)
    assert "Chosen by Status “New”." in unescape(page(scene, f"?bulk={bulk.pk}"))


def test_budgets_and_departments_are_named_amounts_are_money_and_states_words() -> None:
    scene = make_scene()
    budget = Budget.objects.create(department=scene.department, period="day", limit_usd=Decimal("0.2"))
    limits = {"limit_usd": "0.30000000", "limit_tokens": "None", "is_enabled": "True"}
    act(scene, "change_budget", target=f"budget:{budget.pk}", item=None, before={"limit_usd": "0.2"}, after=limits)
    act(scene, "run", target=f"department:{scene.department.pk}", item=None, after={"state": "holding_sends"})
    act(scene, "delete_budget", target="budget:999", item=None)
    html = unescape(page(scene))
    assert ">budget of the department a day</span>" in html
    assert f">{scene.department}</span>" in html
    assert ">budget 999</span>" in html, "it is gone"
    told = " ".join(strip_tags(html).split())
    assert "Limit: $0.2000 → $0.3000" in told
    assert "Is enabled: yes" in told
    assert "State: holding sends" in told
    assert "None" not in told
    agent = Agent.objects.filter(department=scene.department).order_by("pk")[0]
    Budget.objects.filter(pk=budget.pk).update(agent=agent, model="claude-opus-5-5")
    assert f">budget of {agent.title}, claude-opus-5-5 a day</span>" in unescape(page(scene))


def test_an_absence_is_not_of_the_whole_installation() -> None:
    scene = make_scene()
    root = make_user("root", is_superuser=True)
    act(scene, "plan_absence", target="absence:3", department=None, item=None)
    html = page(scene, user=root)
    assert ">absence 3</span>" in html
    assert "the whole installation" not in html
    act(scene, "stop", target="installation", department=None, item=None)
    assert "the whole installation" in page(scene, user=root)
