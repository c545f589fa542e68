"""Erasing takes a person out of what others have written, and nothing else: words, keys and entries of others stay."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from agents.models import Department, Member
from leads import erasing
from leads.erasing import erase_lead
from leads.models import Lead
from runs import commits, suppressions
from runs.addresses import erased_entry
from runs.erasure import forget_address
from runs.models import Action, BulkAction, LogEntry, Message, SavedView, Suppression
from tests import factories

pytestmark = pytest.mark.django_db
ADDRESS, NAME = "ann@werk.example", "Ann Best"


@pytest.fixture
def here() -> Department:
    return factories.make_department()


@pytest.fixture
def elsewhere() -> Department:
    return factories.make_department(slug="second")


@pytest.fixture
def ada(here: Department) -> User:
    return factories.make_user("ada", department=here, role=Member.Role.ADMINISTRATOR)


@pytest.fixture
def bob(elsewhere: Department) -> User:
    return factories.make_user("bob", department=elsewhere, role=Member.Role.ADMINISTRATOR)


@pytest.fixture
def lead(here: Department) -> Lead:
    return factories.make_lead(here, name=NAME, email=ADDRESS, phone="reason", external_id="reason")


def browse(user: User) -> Client:
    client = Client()
    client.force_login(user)
    return client


def test_the_opt_out_of_another_department_stays_theirs(
    lead: Lead, elsewhere: Department, ada: User, bob: User
) -> None:
    theirs = factories.make_lead(elsewhere, email=ADDRESS)
    row = Suppression.objects.create(
        address=ADDRESS, reason="complaint", note="Ann is angry.", item=theirs.item, author=bob
    )
    assert erase_lead(lead=lead, user=ada)
    row.refresh_from_db()
    assert (row.address, row.note) == (erased_entry(ADDRESS), "")
    assert (row.item, row.author, row.reason) == (theirs.item, bob, "complaint")
    url = reverse("runs:suppression_lift", args=[row.pk])
    assert browse(ada).post(url, {"reason": "x"}).status_code == 404
    assert Suppression.objects.filter(pk=row.pk).exists()


def test_only_who_runs_the_installation_lifts_what_is_kept_of_an_erased_person(lead: Lead, ada: User) -> None:
    assert erase_lead(lead=lead, user=ada)
    row = Suppression.objects.get()
    url, page = reverse("runs:suppression_lift", args=[row.pk]), reverse("runs:suppressions")
    assert url not in browse(ada).get(page).content.decode()
    said = browse(ada).post(url, {"reason": "x"}, follow=True).content.decode()
    assert "Only who runs this installation removes it." in said
    assert suppressions.is_suppressed(ADDRESS)
    root = factories.make_user("root", is_superuser=True)
    assert url in browse(root).get(page).content.decode()
    browse(root).post(url, {"reason": "They wrote to us."})
    assert not suppressions.is_suppressed(ADDRESS)


def test_an_entry_that_was_hashed_meanwhile_is_not_lifted(lead: Lead, ada: User) -> None:
    shown = Suppression.objects.create(address=ADDRESS, reason="opt_out", item=lead.item)
    assert erase_lead(lead=lead, user=ada)
    assert not suppressions.lift(suppression=shown, user=ada, reason="The page was open before.")
    assert suppressions.is_suppressed(ADDRESS)


def make_rows(department: Department, user: User, text: str) -> tuple[Action, BulkAction, SavedView]:
    """One of each that keeps a text under a key of its own."""
    said: dict[str, Any] = {"reason": text, ADDRESS: "as a key"}
    return (
        Action.objects.create(department=department, user=user, verb="tag", after=said, target=f"view:{NAME}"),
        BulkAction.objects.create(
            department=department, user=user, verb="bulk_close", selection={"filter": {"reason": text}}, arguments=said
        ),
        SavedView.objects.create(user=user, department=department, list_name="leads", name=text, params={"q": text}),
    )


def values(rows: tuple[Any, ...]) -> list[list[Any]]:
    for row in rows:
        row.refresh_from_db()
    return [[getattr(row, field.attname) for field in row._meta.concrete_fields] for row in rows]


def test_words_in_rows_of_another_department_stay(lead: Lead, elsewhere: Department, ada: User, bob: User) -> None:
    rows = make_rows(elsewhere, bob, f"{NAME}: the reason")
    mine = SavedView.objects.create(user=bob, list_name="leads", name=NAME)
    before = values((*rows, mine))
    assert erase_lead(lead=lead, user=ada)
    assert values((*rows, mine)) == before


def test_in_their_own_department_the_name_goes_and_keys_stay(lead: Lead, here: Department, ada: User) -> None:
    action, bulk, view = make_rows(here, ada, f"{NAME}: the reason")
    mine = SavedView.objects.create(user=ada, list_name="leads", name=f"Only {NAME}")
    assert erase_lead(lead=lead, user=ada)
    values((action, bulk, view, mine))
    said = {"reason": "[erased]: the reason", ADDRESS: "as a key"}
    assert action.after == bulk.arguments == said
    assert action.target == f"view:{NAME}", "what no person writes names nobody"
    assert bulk.selection == {"filter": {"reason": "[erased]: the reason"}}
    assert view.name == f"[erased]: the reason {view.pk}"
    assert mine.name == f"Only [erased] {mine.pk}", "of somebody who is in this department alone"


def test_a_view_that_somebody_of_two_departments_keeps_is_of_neither(
    lead: Lead, elsewhere: Department, ada: User
) -> None:
    Member.objects.create(department=elsewhere, user=ada, role=Member.Role.VIEWER)
    view = SavedView.objects.create(user=ada, list_name="leads", name=NAME, params={"q": ADDRESS})
    assert erase_lead(lead=lead, user=ada)
    view.refresh_from_db()
    assert (view.name, view.params) == (NAME, {"q": "[erased]"})


def test_the_address_goes_from_every_department_as_a_whole(
    lead: Lead, here: Department, elsewhere: Department, ada: User, bob: User
) -> None:
    other = factories.make_lead(elsewhere)
    beside = factories.make_lead(here)
    lines = [
        factories.make_log_entry(other.item, text=f"The same address as {ADDRESS.upper()}.", data={"to": [ADDRESS]}),
        factories.make_log_entry(beside.item, text=f"{NAME} <{ADDRESS}> is a colleague."),
        factories.make_log_entry(other.item, text=f"jo.{ADDRESS}, jo{ADDRESS} and {ADDRESS}.org are others."),
    ]
    action = Action.objects.create(department=elsewhere, user=bob, verb="suppress", target=f"suppression:{ADDRESS}")
    assert erase_lead(lead=lead, user=ada)
    texts = [LogEntry.objects.get(pk=line.pk).text for line in lines]
    assert texts == [
        "The same address as [erased].",
        "[erased] <[erased]> is a colleague.",
        f"jo.{ADDRESS}, jo{ADDRESS} and {ADDRESS}.org are others.",
    ]
    assert LogEntry.objects.get(pk=lines[0].pk).data == {"to": ["[erased]"]}
    action.refresh_from_db()
    assert action.target == "suppression:[erased]"


def test_what_was_imported_as_an_address_and_is_a_word_is_nobodys_elsewhere(
    here: Department, elsewhere: Department, ada: User, bob: User
) -> None:
    lead = factories.make_lead(here, email="reason")
    rows = make_rows(elsewhere, bob, "the reason")
    before = values(rows)
    assert erase_lead(lead=lead, user=ada)
    assert values(rows) == before


def test_two_views_that_differ_only_in_the_person_are_two_afterwards(lead: Lead, here: Department, ada: User) -> None:
    names = [ADDRESS, NAME, f"{'x' * 62} {ADDRESS}"]
    views = [SavedView.objects.create(user=ada, list_name="leads", name=name) for name in names]
    assert erase_lead(lead=lead, user=ada)
    found = [SavedView.objects.get(pk=view.pk).name for view in views]
    assert found == [
        f"[erased] {views[0].pk}",
        f"[erased] {views[1].pk}",
        f"{'x' * 62} [erased] {views[2].pk}"[:80],
    ]


def _before_the_lock(monkeypatch: pytest.MonkeyPatch, do: Callable[[], object]) -> None:
    lock = commits.lock_items

    def locked(ids: set[int]) -> Any:
        do()
        return lock(ids)

    monkeypatch.setattr(erasing, "lock_items", locked)


def test_what_was_written_between_the_look_and_the_lock_is_found(
    lead: Lead, ada: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = factories.make_lead(lead.department)
    _before_the_lock(monkeypatch, lambda: factories.make_log_entry(other.item, text=f"Not to {ADDRESS}."))
    assert erase_lead(lead=lead, user=ada)
    assert LogEntry.objects.get(item=other.item).text == "Not to [erased]."


def test_whole_tables_are_read_before_anything_is_locked(
    lead: Lead, ada: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    marks: list[int] = []
    with CaptureQueriesContext(connection) as queries:
        _before_the_lock(monkeypatch, lambda: marks.append(len(queries)))
        assert erase_lead(lead=lead, user=ada)
    tables = [f'FROM "{model._meta.db_table}"' for model in (LogEntry, Action)]
    looks = [
        (number, query["sql"])
        for number, query in enumerate(queries.captured_queries)
        if any(table in query["sql"] for table in tables) and " LIKE " in query["sql"]
    ]
    assert {number < marks[0] for number, _ in looks} == {True, False}
    assert all('."id" > ' in sql for number, sql in looks if number >= marks[0])


def test_an_address_that_came_in_meanwhile_is_not_left_behind(
    lead: Lead, ada: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write() -> None:
        Message.objects.create(item=lead.item, direction="out", address="ann@home.example", at=timezone.now())

    _before_the_lock(monkeypatch, write)
    assert "has changed just now. Try again." in erase_lead(lead=lead, user=ada).reason
    lead.refresh_from_db()
    assert (lead.email, lead.item.automation, Suppression.objects.count()) == (ADDRESS, "active", 0)
    monkeypatch.undo()
    assert erase_lead(lead=lead, user=ada)
    assert suppressions.is_suppressed("ann@home.example")


def test_an_address_that_no_lead_has_is_forgotten_everywhere(elsewhere: Department, bob: User) -> None:
    view = SavedView.objects.create(user=bob, list_name="leads", name="Search", params={"q": ADDRESS})
    forget_address(ADDRESS)
    view.refresh_from_db()
    assert (view.name, view.params) == ("Search", {"q": "[erased]"})
