"""The list of leads as a page: orders and pages, columns, views, the file, and what is done to many."""

from __future__ import annotations

import csv
import io
import re
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from agents.models import Department, Member
from leads.columns import COLUMNS, ORDERS
from leads.models import Lead
from runs.models import BulkAction, Item, ItemTotal, ListChoice, SavedView
from runs.status_counts import Counted
from tests import factories
from tests.runs.scene import HTMX

pytestmark = pytest.mark.django_db
LIST, CSV = "/leads/", "/leads/export.csv"


@pytest.fixture
def olga() -> User:
    return factories.make_user("olga", department=factories.make_department())


@pytest.fixture
def browser(olga: User) -> Client:
    client = Client()
    client.force_login(olga)
    return client


def _many(number: int) -> list[Lead]:
    """Leads whose every order is another, some with equal values and some without any."""
    leads = [factories.make_lead(name=f"Lead {(index * 7) % number:03}") for index in range(number)]
    for index, lead in enumerate(leads):
        due = timezone.now() + timedelta(days=index % 5) if index % 3 else None
        changed = timezone.now() - timedelta(hours=index % 11)
        Item.objects.filter(pk=lead.pk).update(route_due_at=due, changed_at=changed)
        if index % 4:
            ItemTotal.objects.create(item_id=lead.pk, department=lead.department, cost_units=1_000 * (index % 6))
    return leads


def _names(html: str) -> list[str]:
    return re.findall(r'data-row-link href="/leads/\d+/">([^<]*)<', html)


def _walk(browser: Client, query: str, way: str) -> list[str]:
    """The names of all pages, one after the other, from a page on."""
    found = []
    for _ in range(20):
        html = browser.get(f"{LIST}{query}", headers=HTMX).content.decode()
        found += _names(html)
        links = re.findall(rf'href="(\?[^"]*)">(?:<svg.*?</svg>)?{way}', html)
        if not links:
            return found
        query = links[0].replace("&amp;", "&")
    raise AssertionError("it does not end")


@pytest.mark.parametrize("sort", ORDERS)
def test_every_order_pages_through_each_lead_once_in_its_order(browser: Client, sort: str) -> None:
    _many(120)
    order, rows = ORDERS[sort], Lead.objects.all()
    if order.field:
        rows = rows.filter(**{f"{order.field}__isnull": False}).order_by(*order.columns)
    else:
        rows = rows.order_by("-pk")
    wanted = [lead.name for lead in rows]
    assert _walk(browser, f"?sort={sort}", "Older") == wanted
    assert len(wanted) > 70


@pytest.mark.parametrize("sort", ORDERS)
def test_every_order_pages_back_to_where_it_came_from(browser: Client, sort: str) -> None:
    _many(120)
    first = _names(browser.get(f"{LIST}?sort={sort}", headers=HTMX).content.decode())
    html = browser.get(f"{LIST}?sort={sort}", headers=HTMX).content.decode()
    older = re.findall(r'href="(\?[^"]*before[^"]*)"', html)[0].replace("&amp;", "&")
    html = browser.get(LIST + older, headers=HTMX).content.decode()
    newer = re.findall(r'href="(\?[^"]*after=[^"]*)"', html)[0].replace("&amp;", "&")
    assert _names(browser.get(LIST + newer, headers=HTMX).content.decode()) == first


@pytest.mark.parametrize(
    "query",
    ["before=x&at=1&sort=cost", "before=1&at=rubbish&sort=activity", "after=1&at=9e9&sort=cost", "sort=nonsense"],
)
def test_a_cursor_that_cannot_be_read_is_the_first_page(browser: Client, query: str) -> None:
    _many(3)
    assert len(_names(browser.get(f"{LIST}?{query}", headers=HTMX).content.decode())) >= 2


def test_the_page_takes_as_many_queries_for_many_leads(browser: Client, django_assert_num_queries: Any) -> None:
    numbers = []
    for _ in range(2):
        for _ in range(20):
            item = factories.make_lead().item
            factories.make_output(item)
            factories.make_agent_run(item, "researcher")
            factories.make_review(item)
        with django_assert_num_queries(18, exact=False) as found:
            browser.get(LIST)
        numbers.append(len(found))
    assert numbers[0] == numbers[1]


def test_a_filter_that_cannot_be_read_is_said_and_stops_acting_on_many(browser: Client) -> None:
    factories.make_lead()
    html = browser.get(f"{LIST}?tier=nonsense&status=new").content.decode()
    assert "“nonsense” is no tier" in html
    assert "A filter could not be read. Correct it first." in html
    assert "Act on all 1 that match" not in html


def test_the_form_leaves_an_address_that_can_be_passed_on(browser: Client) -> None:
    response = browser.get(f"{LIST}?q=&tier=Hot&owner=&cost_min=&sort=newest", headers=HTMX)
    assert response["HX-Push-Url"] == f"{LIST}?tier=Hot"
    response = browser.get(f"{LIST}?tier=Hot", headers={**HTMX, "Kontor-Refresh": "1"})
    assert "HX-Push-Url" not in response


def test_no_count_beside_a_status_is_of_other_leads_than_listed(browser: Client) -> None:
    for source in ("fair", "web"):
        factories.make_lead(status="contacted", source=source)
    for query, number in (("", 2), ("?status=new", 2), ("?stage=intake", 2), ("?source=fair", None), ("?q=x", None)):
        response = browser.get(f"{LIST}{query}")
        counts = {count.status.slug: count.count for count in response.context["counts"]}
        assert counts["contacted"] == (None if number is None else Counted(number)), query
        html = response.content.decode()
        html = html[html.index('aria-label="Filter by status"') :]
        assert ("<b>" in html[: html.index("</ul>")]) is (number is not None)


def test_more_than_a_page_counts_is_said_as_more_and_all_that_match_is_offered_without_a_number(
    browser: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("leads.listing.MOST", 2)
    for _ in range(3):
        newest = factories.make_lead(status="contacted")
    page = browser.get(f"{LIST}?status=contacted")
    assert [count.count for count in page.context["counts"]] == [Counted(2, is_more=True)]
    assert "<b>2+</b>" in page.content.decode()
    assert "Act on all 3 that match…" in page.content.decode(), "all are on the page"
    older = browser.get(f"{LIST}?status=contacted&before={newest.pk}").content.decode()
    assert "Act on all that match…" in older


def test_leads_of_two_departments_are_counted_together(browser: Client, olga: User) -> None:
    other = factories.make_department(slug="other")
    Member.objects.create(user=olga, department=other, role=Member.Role.VIEWER)
    for department in (Department.objects.get(slug="sales"), other):
        factories.make_lead(department, status="won")
    assert [count.count for count in browser.get(LIST).context["counts"]] == [Counted(2)]


def test_a_narrowed_list_names_the_statuses_there_are_without_reading_every_lead(browser: Client, olga: User) -> None:
    sales, other = Department.objects.get(), factories.make_department(slug="other")
    Member.objects.create(user=olga, department=other, role=Member.Role.VIEWER)
    hidden = factories.make_department(slug="hidden")
    for department, status in ((sales, "new"), (sales, "won"), (sales, "odd"), (other, "won"), (other, "lost")):
        factories.make_lead(department, status=status)
    factories.make_lead(hidden, status="meeting")
    with CaptureQueriesContext(connection) as asked:
        counts = browser.get(f"{LIST}?q=nobody").context["counts"]
    assert [count.status.slug for count in counts] == ["new", "won", "lost", "odd"]
    assert not [query["sql"] for query in asked if 'COUNT(*) AS "count" FROM "runs_item"' in query["sql"]]
    counts = browser.get(f"{LIST}?q=nobody&department=other").context["counts"]
    assert [count.status.slug for count in counts] == ["won", "lost"]


def test_counts_leave_the_stage_and_keep_the_rest(browser: Client) -> None:
    factories.make_lead(status="contacted")
    html = browser.get(f"{LIST}?stage=intake&tier=Hot").content.decode()
    assert 'href="?status=contacted&amp;tier=Hot"' in html


# --- Columns and views -----------------------------------------------------------------------------------------


def test_chosen_columns_are_shown_and_stay_chosen(browser: Client) -> None:
    factories.make_lead(source="fair")
    url = reverse("runs:view_columns")
    response = browser.post(url, {"list": "leads", "columns": ["source", "created", "nonsense"], "query": "tier=Hot"})
    assert response["Location"] == "/leads/?tier=Hot"
    html = browser.get(LIST).content.decode()
    assert "<th >Source</th>" in html
    assert "<th >Tier</th>" not in html
    assert ListChoice.objects.get().columns == ["source", "created"]


def test_a_view_is_opened_with_its_filters_order_and_columns(browser: Client) -> None:
    factories.make_lead(name="Cold Carl", status="contacted")
    factories.make_lead(name="New Nora")
    data = {"list": "leads", "name": "Contacted", "query": "status=contacted&sort=name&before=3", "columns": ["source"]}
    browser.post(reverse("runs:view_save"), data)
    view = SavedView.objects.get()
    assert view.params == {"status": "contacted", "sort": "name"}
    html = browser.get(LIST).content.decode()
    assert f'href="?status=contacted&amp;sort=name&amp;view={view.pk}"' in html
    html = browser.get(f"{LIST}?status=contacted&sort=name&view={view.pk}").content.decode()
    assert _names(html) == ["Cold Carl"]
    assert "<th >Source</th>" in html
    assert "<th >Tier</th>" not in html


def test_the_list_begins_with_the_view_a_person_has_chosen(browser: Client, olga: User) -> None:
    view = SavedView.objects.create(user=olga, list_name="leads", name="Hot", params={"tier": "Hot"})
    browser.post(reverse("runs:view_default", args=[view.pk]))
    assert browser.get(LIST)["Location"] == f"{LIST}?tier=Hot&view={view.pk}"
    assert browser.get(f"{LIST}?all=1").status_code == 200
    assert browser.get(LIST, headers=HTMX).status_code == 200
    browser.post(reverse("runs:view_default", args=[view.pk]), {"stop": "yes"})
    assert browser.get(LIST).status_code == 200


# --- The file --------------------------------------------------------------------------------------------------


def _file(browser: Client, query: str = "") -> list[list[str]]:
    response = browser.get(f"{CSV}{query}")
    assert response["Content-Type"].startswith("text/csv")
    return list(csv.reader(io.StringIO(b"".join(response.streaming_content).decode())))  # type: ignore[attr-defined]


def test_the_file_has_what_the_list_shows(browser: Client) -> None:
    _many(60)
    factories.make_lead(name="Hanna Hot", status="drafted", email="hanna@hot.example", company="Hot AG")
    item = Item.objects.get(title="Hanna Hot")
    factories.make_output(item)
    factories.make_review(item)
    lines = _file(browser)
    assert lines[0] == ["Name", "Company", "Email", "Status", "Tier", "Waits for", "Owner", *lines[0][7:]]
    assert [line[0] for line in lines[1:]] == _walk(browser, "", "Older")
    assert lines[1][:6] == [
        "Hanna Hot",
        "Hot AG",
        "hanna@hot.example",
        "Waiting for approval",
        "Hot",
        "a person: 1 question",
    ]
    assert [line[0] for line in _file(browser, "?tier=Hot")[1:]] == ["Hanna Hot"]


def test_the_file_has_the_chosen_columns_and_no_formulas(browser: Client) -> None:
    factories.make_lead(name="=1+1", source="@fair")
    browser.post(reverse("runs:view_columns"), {"list": "leads", "columns": list(COLUMNS)})
    lines = _file(browser)
    assert lines[0][3:] == list(COLUMNS.values())
    assert lines[1][0] == "'=1+1"
    assert "'@fair" in lines[1]


def test_times_in_the_file_are_the_persons_with_their_distance_from_utc(browser: Client) -> None:
    lead = factories.make_lead()
    Item.objects.filter(pk=lead.pk).update(created_at=datetime(2026, 7, 1, 22, 30, tzinfo=UTC))
    browser.post(reverse("runs:view_columns"), {"list": "leads", "columns": ["created"]})
    assert _file(browser)[1][3] == "2026-07-01T22:30:00+00:00", "of a browser that names no zone"
    browser.cookies["kontor-zone"] = "Europe/Berlin"
    assert _file(browser)[1][3] == "2026-07-02T00:30:00+02:00"


@pytest.mark.parametrize("query", ["?tier=Lukewarm", "?cost_min=much&tier=Hot", "?owner=somebody", "?age=old"])
def test_no_file_is_made_of_filters_that_cannot_be_read(browser: Client, query: str) -> None:
    factories.make_lead(email="not@asked.example")
    response = browser.get(f"{CSV}{query}")
    text = response.content.decode()
    assert response.status_code == 400
    assert text.startswith("No file was made. “")
    assert text.endswith("Correct the filter, then export again.\n")
    assert "not@asked.example" not in text


def test_the_file_has_nothing_of_other_departments(browser: Client) -> None:
    factories.make_lead(factories.make_department(slug="other"), name="Secret Sam")
    assert len(_file(browser)) == 1


# --- Many at once ----------------------------------------------------------------------------------------------


def test_ticked_leads_and_no_others_are_acted_on(browser: Client) -> None:
    leads = [factories.make_lead() for _ in range(4)]
    ticked = [leads[0].pk, leads[2].pk]
    page = browser.get(reverse("runs:bulk_new"), {"ids": ticked, "department": "sales"})
    assert "2 leads at once" in page.content.decode()
    value = re.findall(r'name="ids" value="([^"]*)"', page.content.decode())
    assert value == [",".join(map(str, ticked))]
    browser.post(
        reverse("runs:bulk_start"), {"ids": value, "department": "sales", "verb": "pause", "reason": "Holiday"}
    )
    assert BulkAction.objects.get().done == 2
    assert set(Item.objects.filter(automation="paused").values_list("pk", flat=True)) == set(ticked)


def test_fifty_ticked_leads_with_long_numbers_fit(browser: Client) -> None:
    numbers = [str(10_000_000 + index) for index in range(50)]
    html = browser.get(reverse("runs:bulk_new"), {"ids": numbers, "department": "sales"}).content.decode()
    assert "50 ticked" in html
    assert "%2C".join(numbers) in html, "the way back to the list"


def test_nothing_ticked_is_refused(browser: Client) -> None:
    factories.make_lead()
    html = browser.get(reverse("runs:bulk_new"), {"department": "sales"}).content.decode()
    assert "Nothing is chosen. Tick rows of the list, or filter it: nothing is done to everything at once." in html


def test_all_that_match_is_offered_with_every_filter_and_who_is_meant_by_mine(browser: Client, olga: User) -> None:
    factories.make_lead(owner=olga, status="contacted")
    html = browser.get(f"{LIST}?owner=me&status=contacted&waiting=time").content.decode()
    assert "Act on all that match" not in html, "none does"
    html = browser.get(f"{LIST}?owner=me&status=contacted").content.decode()
    assert f"/bulk/new/?status=contacted&amp;owner={olga.pk}&amp;department=sales" in html
    assert "Act on all 1 that match…" in html


@pytest.mark.parametrize(
    ("item", "department", "is_looked_at"),
    [
        ({}, {}, True),
        ({"automation": "paused"}, {}, False),
        ({}, {"state": "stopped"}, False),
        ({}, {"stopped_by_error": "401"}, False),
    ],
)
def test_what_is_due_is_looked_at_next_only_where_something_starts(
    browser: Client, olga: User, item: dict[str, Any], department: dict[str, Any], is_looked_at: bool
) -> None:
    Department.objects.update(**department)
    factories.make_lead(Department.objects.get(), route_due_at=timezone.now(), **item)
    assert ("looked at next" in browser.get(LIST).content.decode()) is is_looked_at


@pytest.fixture
def other(olga: User) -> Department:
    department = factories.make_department(slug="other", name="Other")
    department.members.create(user=olga, role="operator")
    return department


def test_of_several_departments_all_that_match_are_acted_on_in_one_that_is_chosen(
    browser: Client, other: Department
) -> None:
    factories.make_lead(other)
    html = browser.get(f"{LIST}?status=new").content.decode()
    assert "An action on all that match is about one client" in html
    assert 'href="?status=new&amp;department=other"' in html
    assert "Act on all 1 that match" not in html


def test_ticked_leads_of_one_department_are_acted_on_while_all_are_shown(browser: Client, other: Department) -> None:
    sales = Department.objects.get(slug="sales")
    leads = [factories.make_lead(department) for department in (other, other, sales)]
    html = browser.get(LIST).content.decode()
    assert html.count('name="ids"') == 3
    page = browser.get(reverse("runs:bulk_new"), {"ids": [lead.pk for lead in leads[:2]]}).content.decode()
    assert "2 leads at once" in page
    assert '<input type="hidden" name="department" value="other">' in page


def test_ticked_leads_of_several_departments_are_acted_on_in_each(browser: Client, other: Department) -> None:
    sales = Department.objects.get(slug="sales")
    ids = [factories.make_lead(department).pk for department in (other, other, sales)]
    page = browser.get(reverse("runs:bulk_new"), {"ids": ids}).content.decode()
    links = re.findall(r'<a href="(\?[^"]*)">([^<]*)</a>', page)
    asked = {text: link.replace("&amp;", "&") for link, text in links if " of " in text}
    assert set(asked) == {"2 leads of Other", "1 lead of Sales"}
    html = browser.get(reverse("runs:bulk_new") + asked["2 leads of Other"]).content.decode()
    assert "2 leads at once" in html
    assert '<span class="k-tag">2 ticked</span>' in html, "only those of this department"
    back = (
        f'<a href="{reverse("runs:bulk_new")}?ids={",".join(map(str, ids)).replace(",", "%2C")}">Of which department?'
    )
    assert back in html
    sent = dict(re.findall(r'<input type="hidden" name="([^"]*)" value="([^"]*)"', html))
    done = browser.post(reverse("runs:bulk_start"), {**sent, "verb": "pause", "reason": "Holiday"}, follow=True)
    assert back in done.content.decode(), "the other department's part comes next"
    again = browser.get(reverse("runs:bulk_new"), {"ids": ids}).content.decode()
    assert "1 lead of Sales" in again
    refused = browser.post(reverse("runs:bulk_start"), {**sent, "verb": "pause", "until": "never"}, follow=True)
    assert back in refused.content.decode()


def test_nothing_ticked_of_several_departments_is_said(browser: Client, other: Department) -> None:
    assert "Nothing is ticked" in browser.get(reverse("runs:bulk_new")).content.decode()


def test_rows_of_a_department_that_a_person_only_sees_cannot_be_ticked(browser: Client, other: Department) -> None:
    other.members.update(role="viewer")
    mine, theirs = factories.make_lead(Department.objects.get(slug="sales")), factories.make_lead(other)
    html = browser.get(LIST).content.decode()
    assert f'name="ids" value="{mine.pk}"' in html
    assert f'name="ids" value="{theirs.pk}"' not in html
    page = browser.get(reverse("runs:bulk_new"), {"ids": [theirs.pk]}).content.decode()
    assert "Nothing fits the filter" in page


def test_running_keeps_every_filter(browser: Client, olga: User) -> None:
    mine, other = factories.make_lead(owner=olga), factories.make_lead()
    html = browser.get(reverse("leads:run_preview"), {"owner": "me"}).content.decode()
    assert f'name="owner" value="{olga.pk}"' in html
    browser.post(reverse("leads:run"), {"owner": str(olga.pk)})
    assert Item.objects.get(pk=mine.pk).route_due_at is not None
    assert Item.objects.get(pk=other.pk).route_due_at is None


def test_running_by_a_filter_that_cannot_be_read_runs_nothing(browser: Client) -> None:
    lead = factories.make_lead()
    browser.post(reverse("leads:run"), {"tier": "nonsense"})
    assert Item.objects.get(pk=lead.pk).route_due_at is None
