"""One action on all items that a filter has chosen."""

from __future__ import annotations

from datetime import timedelta
from html import unescape
from typing import Any
from urllib.parse import parse_qsl

import pytest
from django.contrib.auth.models import User
from django.http import QueryDict
from django.urls import reverse
from django.utils import timezone
from django_q.models import OrmQ

from agents.models import Department
from leads.models import Lead
from runs import bulk as bulks
from runs import control, selections, tasks
from runs.models import Action, AgentRun, BulkAction, Item
from runs.selections import VERBS, can_act_on_many, foresee, read_filter, select_items, start
from tests.engine import in_threads, make_office
from tests.factories import make_agent_run, make_lead, make_output, make_user
from tests.runs.scene import HTMX

pytestmark = pytest.mark.django_db
FILTER = {"status": "qualified"}
STATES = {"resume": "paused", "hand_back": "taken_over", "reopen": "closed"}
"""In which state an item must be for a verb."""
AFTER = {"pause": "paused", "take_over": "taken_over", "close": "closed", "cancel": "paused"}


@pytest.fixture(autouse=True)
def office() -> Department:
    return make_office()


@pytest.fixture
def olga(office: Department) -> User:
    return make_user("olga", department=office)


def make_items(count: int = 3, **fields: Any) -> list[Item]:
    fields.setdefault("status", "qualified")
    return [make_lead(**fields).item for _ in range(count)]


def do(office: Department, user: User, verb: str = "pause", **options: Any) -> BulkAction:
    options.setdefault("chosen", FILTER)
    bulk = start(department=office, user=user, verb=verb, **options)
    assert isinstance(bulk, BulkAction), bulk
    return bulk


def states() -> list[str]:
    return sorted(Item.objects.values_list("automation", flat=True))


# --- Every verb -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("verb", VERBS)
def test_it_is_done_to_all_that_match_and_to_no_other(verb: str, office: Department, olga: User) -> None:
    chosen = make_items(automation=STATES.get(verb, "active"))
    (other,) = make_items(1, status="new", automation=STATES.get(verb, "active"))
    for item in (*chosen, other):
        if verb in ("retry_failed", "cancel"):
            make_agent_run(item, status="failed" if verb == "retry_failed" else "queued")
    before = Item.objects.get(pk=other.pk)
    bulk = do(office, olga, verb, reason="A new price list.")
    assert (bulk.status, bulk.done, bulk.total, bulk.refused) == ("done", 3, 3, {})
    single = Action.objects.filter(bulk=bulk, item__isnull=False)
    assert set(single.values_list("item_id", flat=True)) == {item.pk for item in chosen}
    assert set(single.values_list("reason", flat=True)) == {"A new price list."}
    whole = Action.objects.get(bulk=bulk, item=None)
    assert (whole.verb, whole.user, whole.after["total"]) == (f"bulk_{verb}", olga, 3)
    for item in Item.objects.filter(pk__in=[item.pk for item in chosen]):
        assert item.automation == AFTER.get(verb, "active")
    other.refresh_from_db()
    assert (other.automation, other.changed_at) == (before.automation, before.changed_at)


def test_a_run_of_many_is_not_more_urgent_than_one_that_somebody_waits_for(office: Department, olga: User) -> None:
    make_items()
    do(office, olga, "run")
    assert set(Item.objects.values_list("priority", flat=True)) == {50}
    assert not Item.objects.filter(route_due_at=None).exists()


def test_a_time_until_when_holds_for_all(office: Department, olga: User) -> None:
    make_items()
    until = timezone.now() + timedelta(days=1)
    do(office, olga, "pause", until=until)
    assert set(Item.objects.values_list("automation_until", flat=True)) == {until}


def test_what_it_does_not_fit_is_left_out_with_the_reason(office: Department, olga: User) -> None:
    first, second = make_items(2)
    control.take_over_item(item=first, user=olga, reason="I know her.")
    bulk = do(office, olga)
    assert (bulk.done, bulk.total) == (1, 2)
    assert bulk.refused == {str(first.pk): "It is taken over by olga: I know her."}
    assert Item.objects.get(pk=second.pk).automation == "paused"


# --- The filter -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("params", [{}, {"status": "", "tier": " "}, {"page": "2", "item": "5"}])
def test_an_empty_filter_is_refused(params: dict[str, str], office: Department, olga: User) -> None:
    make_items()
    chosen, _ = read_filter(office.spec, params)
    assert chosen == {}
    assert "Filter the list first" in can_act_on_many(office, chosen).reason
    answer = start(department=office, user=olga, verb="pause", chosen=chosen)
    assert not isinstance(answer, BulkAction)
    assert not select_items(office, chosen).exists()
    assert states() == ["active"] * 3


@pytest.mark.parametrize("query", ["ids=&ids=", "ids=,", "cost_min=0", "ids=%20,,"])
def test_a_filter_that_says_nothing_is_an_empty_one(query: str, client: Any, office: Department, olga: User) -> None:
    make_items()
    assert not select_items(office, read_filter(office.spec, QueryDict(query))[0]).exists()
    client.force_login(olga)
    client.post(reverse("runs:bulk_start"), {"department": "sales", "verb": "pause", **QueryDict(query).dict()})
    assert states() == ["active"] * 3


def test_ticked_rows_are_never_cut_in_the_middle_of_a_number(office: Department) -> None:
    numbers = [str(10**17 + n) for n in range(200)]
    chosen, _ = read_filter(office.spec, QueryDict("&".join(f"ids={number}" for number in numbers)))
    assert chosen["ids"].split(",") == numbers


def test_the_filter_is_the_lists_own(office: Department) -> None:
    hot, warm = make_items(2)
    make_output(hot, "qualification")
    make_output(warm, "qualification", facets={"tier": "Warm"})
    assert list(select_items(office, {"tier": "Hot"})) == [hot]
    assert list(select_items(office, {"q": hot.title, "status": "qualified"})) == [hot]


def test_no_item_of_another_department_is_chosen(office: Department, olga: User) -> None:
    make_items(1)
    theirs = make_lead(make_office("other"), status="qualified").item
    bulk = do(office, olga)
    assert bulk.total == 1
    theirs.refresh_from_db()
    assert theirs.automation == "active"


def test_a_filter_that_fits_nothing_begins_nothing(office: Department, olga: User) -> None:
    answer = start(department=office, user=olga, verb="pause", chosen=FILTER)
    assert not isinstance(answer, BulkAction)
    assert not BulkAction.objects.exists()
    assert not isinstance(start(department=office, user=olga, verb="erase", chosen=FILTER), BulkAction)


def test_what_it_would_meet(office: Department) -> None:
    items = make_items()
    Item.objects.filter(pk=items[0].pk).update(automation="paused")
    make_agent_run(items[1])
    make_agent_run(items[1], "writer", status="failed")
    found = foresee(office, FILTER)
    assert found.total == 3
    assert dict(found.automation) == {"active": 2, "paused": 1}
    assert (found.active_runs, found.failed_runs) == (1, 1)


# --- On the way -----------------------------------------------------------------------------------------------


@pytest.fixture
def slowly(monkeypatch: pytest.MonkeyPatch) -> None:
    """The page does one item, the queue the rest."""
    monkeypatch.setattr(bulks, "AT_ONCE_SECONDS", -1.0)


@pytest.mark.usefixtures("slowly")
def test_the_queue_does_what_a_page_cannot_wait_for(office: Department, olga: User) -> None:
    make_items()
    bulk = do(office, olga)
    assert (bulk.status, bulk.done) == ("running", 1)
    assert OrmQ.objects.count() == 1
    tasks.carry_on_bulk(bulk.pk)
    tasks.carry_on_bulk(bulk.pk)
    bulk.refresh_from_db()
    assert (bulk.status, bulk.done) == ("done", 3)
    assert Action.objects.filter(bulk=bulk, verb="pause").count() == 3


@pytest.mark.usefixtures("slowly")
def test_one_whose_worker_died_is_taken_up_again(office: Department, olga: User) -> None:
    make_items()
    do(office, olga)
    OrmQ.objects.all().delete()
    bulks.queue_unfinished()
    assert OrmQ.objects.count() == 1


@pytest.mark.usefixtures("slowly")
def test_a_stopped_one_leaves_the_rest_alone(office: Department, olga: User) -> None:
    make_items()
    bulk = do(office, olga)
    assert bulks.abort(bulk=bulk, user=olga)
    tasks.carry_on_bulk(bulk.pk)
    bulk.refresh_from_db()
    assert (bulk.status, bulk.done) == ("aborted", 1)
    assert states() == ["active", "active", "paused"]
    assert not bulks.abort(bulk=bulk, user=olga)
    assert Action.objects.filter(verb="abort_bulk").count() == 1


@pytest.mark.usefixtures("slowly")
def test_it_is_done_to_those_that_were_chosen_and_what_has_changed_since_is_left_out_with_the_reason(
    office: Department, olga: User
) -> None:
    items = make_items(5)
    bulk = do(office, olga)
    (late,) = make_items(1)
    Item.objects.filter(pk=items[1].pk).update(status="contacted")  # it does not fit the filter any more
    control.take_over_item(item=items[2], user=olga, reason="I know her.")
    items[3].delete()
    tasks.carry_on_bulk(bulk.pk)
    bulk.refresh_from_db()
    assert (bulk.status, bulk.done, bulk.total) == ("done", 3, 5)
    assert bulk.refused == {
        str(items[2].pk): "It is taken over by olga: I know her.",
        str(items[3].pk or bulk.selection["ids"][3]): "It is no longer here.",
    }
    assert Item.objects.get(pk=items[1].pk).automation == "paused"
    assert Item.objects.get(pk=late.pk).automation == "active"


@pytest.mark.django_db(transaction=True)
def test_of_what_others_change_while_it_runs_each_item_is_done_or_left_out_once(office: Department, olga: User) -> None:
    items = make_items(8)
    rudi = make_user("rudi", department=office)

    def job(number: int) -> int:
        if number == 0:
            return do(office, olga).pk
        taken = [control.take_over_item(item=item, user=rudi, reason="Mine.") for item in reversed(items)]
        return sum(map(bool, taken))

    started, _ = in_threads(job, 2)
    tasks.carry_on_bulk(started)
    bulk = BulkAction.objects.get()
    assert (bulk.status, bulk.done + len(bulk.refused)) == ("done", 8)
    assert set(bulk.refused.values()) <= {"It is taken over by rudi: Mine."}
    paused = Action.objects.filter(bulk=bulk, verb="pause").values_list("item_id", flat=True)
    assert {item.pk for item in items} == {*paused} | {int(pk) for pk in bulk.refused}
    assert states() == ["taken_over"] * 8, "who comes after a pause takes over too"


def test_one_that_an_earlier_version_began_goes_on(office: Department, olga: User) -> None:
    items = make_items()
    bulk = bulks.begin(
        department=office,
        user=olga,
        verb="bulk_pause",
        selection={"filter": FILTER},
        arguments={"until": "", "after": [items[0].pk], "last": items[2].pk},
        total=3,
    )
    tasks.carry_on_bulk(bulk.pk)
    bulk.refresh_from_db()
    assert (bulk.status, bulk.done) == ("done", 2)


def test_an_error_on_one_item_stops_nothing(office: Department, olga: User, monkeypatch: pytest.MonkeyPatch) -> None:
    items = make_items()
    real = control.pause_item

    def fail(**options: Any) -> Any:
        if options["item"].pk == items[1].pk:
            raise RuntimeError("no")
        return real(**options)

    monkeypatch.setitem(selections._UNTIL, "pause", fail)
    bulk = do(office, olga)
    assert (bulk.status, bulk.done) == ("done", 2)
    assert bulk.refused == {str(items[1].pk): "An error in Kontor: RuntimeError."}


@pytest.mark.usefixtures("slowly")
@pytest.mark.django_db(transaction=True)
def test_several_workers_do_each_item_once(office: Department, olga: User) -> None:
    make_items(8)
    bulk = do(office, olga)
    in_threads(lambda _: bulks.carry_on(bulk.pk), 3)
    tasks.carry_on_bulk(bulk.pk)
    bulk.refresh_from_db()
    assert (bulk.status, bulk.done, bulk.refused) == ("done", 8, {})
    assert Action.objects.filter(bulk=bulk, verb="pause").count() == 8


def test_a_step_under_way_ends_although_its_item_was_paused_with_many(office: Department, olga: User) -> None:
    (item,) = make_items(1)
    run = make_agent_run(item, status="running")
    do(office, olga)
    run.refresh_from_db()
    assert run.status == "running"


# --- Pages ----------------------------------------------------------------------------------------------------


def form(**values: str) -> dict[str, str]:
    return {"department": "sales", "status": "qualified", "verb": "pause", "reason": "List", **values}


def test_the_list_offers_it_only_for_a_filter(client: Any, olga: User) -> None:
    make_items()
    client.force_login(olga)
    without = client.get(reverse("leads:list")).content.decode()
    assert "Filter the list first" in without
    with_filter = client.get(reverse("leads:list"), FILTER).content.decode()
    assert "Filter the list first" not in with_filter
    assert "Act on all 3 that match" in with_filter


def test_the_question_before_it_says_how_many(client: Any, olga: User) -> None:
    make_items()
    client.force_login(olga)
    html = client.get(reverse("runs:bulk_new"), form()).content.decode()
    assert "3 leads at once" in html
    assert "Do it to 3" in html
    empty = client.get(reverse("runs:bulk_new"), {"department": "sales"}).content.decode()
    assert "Nothing is chosen. Tick rows of the list, or filter it" in empty
    assert "<form" not in empty[empty.index("Nothing is chosen") :]


def test_the_filter_is_said_in_the_words_of_the_list(client: Any, olga: User) -> None:
    items = make_items()
    client.force_login(olga)
    html = client.get(reverse("runs:bulk_new"), form()).content.decode()
    assert "Status “Qualified”" in unescape(html)
    client.post(
        reverse("runs:bulk_start"), {"department": "sales", "verb": "pause", "ids": [item.pk for item in items]}
    )
    page = client.get(reverse("runs:bulk", args=[BulkAction.objects.get().pk])).content.decode()
    assert "3 ticked</span> · olga, <time" in page
    assert "data-ago" in page[page.index("3 ticked") :].split("</time>")[0]
    assert 'href="/leads/?ids=' in page


def test_it_is_begun_from_the_page_and_shows_its_progress(client: Any, olga: User) -> None:
    items = make_items()
    Item.objects.filter(pk=items[0].pk).update(automation="closed", automation_reason="Bought")
    client.force_login(olga)
    response = client.post(reverse("runs:bulk_start"), form())
    bulk = BulkAction.objects.get()
    assert response["Location"] == reverse("runs:bulk", args=[bulk.pk])
    html = client.get(response["Location"]).content.decode()
    assert "2 of 3 done, 1 left out" in html
    assert "It is closed: Bought." in html
    assert items[0].title in html
    assert client.get(reverse("runs:bulk_panel", args=[bulk.pk])).content.decode().strip() in html
    assert client.get(reverse("runs:bulk_list")).status_code == 200


def test_more_than_the_question_said_are_asked_about_again(client: Any, olga: User) -> None:
    make_items()
    client.force_login(olga)
    html = client.get(reverse("runs:bulk_new"), form()).content.decode()
    assert '<input type="hidden" name="seen" value="3">' in html
    make_items(1)
    html = client.post(reverse("runs:bulk_start"), form(seen="3"), follow=True).content.decode()
    assert "4 fit the filter by now, 3 did when you looked. Look again." in html
    assert "Do it to 4" in html
    assert states() == ["active"] * 4
    client.post(reverse("runs:bulk_start"), form(seen="5"))
    assert states() == ["paused"] * 4, "fewer are no surprise"


def test_what_was_typed_is_there_again_after_a_refusal(client: Any, olga: User) -> None:
    make_items()
    client.force_login(olga)
    values = form(verb="close", reason="Sold & gone", until="2001-02-03T04:05")
    html = client.post(reverse("runs:bulk_start"), values, follow=True).content.decode()
    assert "has to lie ahead" in html
    assert '<option value="close" selected>' in html
    assert 'value="Sold &amp; gone"' in html
    assert 'value="2001-02-03T04:05"' in html
    assert "Do it to 3" in html
    assert states() == ["active"] * 3


def test_those_of_the_question_are_meant_whatever_the_filter_finds_by_then(client: Any, olga: User) -> None:
    items = make_items()
    client.force_login(olga)
    html = client.get(reverse("runs:bulk_new"), form()).content.decode()
    named = ",".join(str(item.pk) for item in items)
    assert f'<input type="hidden" name="items" value="{named}">' in html
    (late,) = make_items(1)
    Item.objects.filter(pk=items[0].pk).update(status="contacted")
    theirs = make_lead(make_office("other"), status="qualified").item
    client.post(reverse("runs:bulk_start"), form(seen="3", items=f"{named},{theirs.pk},x"))
    bulk = BulkAction.objects.get()
    assert bulk.selection["ids"] == [*(item.pk for item in items), theirs.pk]
    assert (bulk.done, bulk.refused) == (3, {str(theirs.pk): "It is no longer here."})
    assert states() == ["active"] * 2 + ["paused"] * 3
    assert Item.objects.get(pk=late.pk).automation == "active"
    assert Action.objects.get(bulk=bulk, item=None).after == {"selection": {"filter": FILTER}, "total": 4}


@pytest.mark.parametrize(
    ("values", "said"),
    [({"status": ""}, "Filter the list first"), ({"until": "soon"}, "Write the time"), ({"verb": "x"}, "no such")],
)
def test_what_is_wrong_is_said(client: Any, olga: User, values: dict[str, str], said: str) -> None:
    make_items()
    client.force_login(olga)
    html = client.post(reverse("runs:bulk_start"), form(**values), headers=HTMX).content.decode()
    assert said in html
    assert not BulkAction.objects.exists()
    assert states() == ["active"] * 3


@pytest.mark.usefixtures("slowly")
def test_only_an_operator_begins_or_stops_it(client: Any, office: Department, olga: User) -> None:
    make_items()
    bulk = do(office, olga)
    for role, code in (("viewer", 200), ("reviewer", 200)):
        user = make_user(role, department=office, role=role)
        client.force_login(user)
        assert client.get(reverse("runs:bulk", args=[bulk.pk])).status_code == code
        assert client.get(reverse("runs:bulk_new"), form()).status_code == 404
        assert client.post(reverse("runs:bulk_start"), form()).status_code == 404
        assert client.post(reverse("runs:bulk_abort", args=[bulk.pk])).status_code == 404
    client.force_login(make_user("stan", department=make_office("other"), role="administrator"))
    assert client.get(reverse("runs:bulk", args=[bulk.pk])).status_code == 404
    assert client.post(reverse("runs:bulk_start"), form()).status_code == 404
    bulk.refresh_from_db()
    assert bulk.status == "running"
    client.force_login(olga)
    assert client.get(reverse("runs:bulk_start")).status_code == 405
    html = client.post(reverse("runs:bulk_abort", args=[bulk.pk]), headers=HTMX).content.decode()
    assert "Stopped after 1 of 3." in html
    again = client.post(reverse("runs:bulk_abort", args=[bulk.pk]), headers=HTMX).content.decode()
    assert "It is aborted already." in again


def test_runs_of_many_items_are_only_touched_where_the_verb_says_so(office: Department, olga: User) -> None:
    (item,) = make_items(1)
    make_agent_run(item, "intake", status="failed")
    make_agent_run(item, "writer")
    do(office, olga, "cancel")
    assert sorted(AgentRun.objects.values_list("status", flat=True)) == ["cancelled", "failed"]


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("status=qualified&tier=bogus", "“bogus” is no tier (known: Hot, Warm, Cold)."),
        ("age=week", "“week” is no age"),
        ("cost_min=0", "Nothing is chosen."),
        ("status=won", "Nothing fits the filter."),
    ],
)
def test_a_filter_that_chooses_nothing_says_why_and_offers_nothing(
    client: Any, olga: User, query: str, said: str
) -> None:
    make_items()
    client.force_login(olga)
    html = unescape(client.get(f"{reverse('runs:bulk_new')}?department=sales&{query}").content.decode())
    assert f'data-colour="warning">{said}' in html
    assert "No lead is chosen" in html
    assert reverse("runs:bulk_start") not in html
    client.post(f"{reverse('runs:bulk_start')}", {"department": "sales", "verb": "pause", **dict(parse_qsl(query))})
    assert not BulkAction.objects.exists()


def test_mine_are_those_of_whoever_asks(client: Any, olga: User) -> None:
    items = make_items()
    Lead.objects.filter(pk=items[0].pk).update(owner=olga)
    client.force_login(olga)
    html = client.get(reverse("runs:bulk_new"), {"department": "sales", "owner": "me"}).content.decode()
    assert "1 lead at once" in html
    client.post(reverse("runs:bulk_start"), {"department": "sales", "verb": "pause", "owner": "me"})
    assert BulkAction.objects.get().selection == {"filter": {"owner": str(olga.pk)}, "ids": [items[0].pk]}
