"""Run, drain, hold sends, stop now: a department and the whole installation."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from agents.models import Department, Installation
from runs import control, leases, switches
from runs.commits import commit
from runs.dispatch import route_due
from runs.models import Action, AgentRun, Item, LogEntry, ModelCall, Output, PipelineRun
from runs.staff import load_staff
from runs.switches import (
    describe_halt,
    describe_state,
    foresee,
    switch_department,
    switch_installation,
    take_back_stopped,
)
from runs.views.banners import find_banners
from runs.views.shown import show_agent_run
from tests.engine import (
    answered,
    assert_accounts_agree,
    at_work,
    claim,
    claim_one,
    in_threads,
    is_settled,
    make_due,
    make_office,
    make_queued,
    run_of,
    wait_for,
)
from tests.factories import make_agent_run, make_lead, make_outbox, make_user
from tests.simulator_fixture import SimulatorServer

pytestmark = pytest.mark.django_db
STATES = ["running", "draining", "holding_sends", "stopped"]
SLOW = [{"what": {"kind": "pings", "seconds": 60, "interval_ms": 50, "after_deltas": 3}}]


@pytest.fixture(autouse=True)
def office() -> Department:
    return make_office()


@pytest.fixture
def ada() -> User:
    return make_user("ada", is_superuser=True)


def switch(what: str, office: Department, user: User, state: str, reason: str = "") -> Any:
    """The department's switch, or the installation's."""
    if what == "department":
        return switch_department(department=office, user=user, state=state, reason=reason)
    return switch_installation(user=user, state=state, reason=reason)


def held(what: str, office: Department) -> Department | Installation:
    if what == "department":
        office.refresh_from_db()
        return office
    return Installation.read()


both = pytest.mark.parametrize("what", ["department", "installation"])


@both
@pytest.mark.parametrize("state", STATES[1:])
def test_it_is_switched_and_says_who_why_and_since_when(what: str, state: str, office: Department, ada: User) -> None:
    assert switch(what, office, ada, state, "The price list is wrong.")
    row = held(what, office)
    assert (row.state, row.state_by, row.state_reason) == (state, ada, "The price list is wrong.")
    assert row.state_since is not None
    action = Action.objects.get()
    assert (action.user, action.before["state"], action.after["state"]) == (ada, "running", state)
    assert action.department == (office if what == "department" else None)
    assert "ada" in LogEntry.objects.get(kind="switch").text
    banner = find_banners([office], Installation.read())[0]
    assert ", as ada decided: The price list is wrong." in banner.title
    assert "Since" in banner.text


@both
@pytest.mark.parametrize("state", STATES)
def test_to_the_state_it_has_it_is_not_switched(what: str, state: str, office: Department, ada: User) -> None:
    if state != "running":
        switch(what, office, ada, state)
    count = Action.objects.count()
    answer = switch(what, office, make_user("otto", is_superuser=True), state)
    assert "already" in answer.reason
    assert Action.objects.count() == count


@both
@pytest.mark.django_db(transaction=True)
def test_of_two_at_once_one_switches(what: str, office: Department) -> None:
    users = [make_user("ada", is_superuser=True), make_user("otto", is_superuser=True)]
    done = in_threads(lambda number: bool(switch(what, office, users[number], "stopped")), 2)
    assert sorted(done) == [False, True]
    assert Action.objects.count() == 1


@both
@pytest.mark.parametrize(
    ("state", "works", "sends"),
    [("running", True, True), ("draining", False, False), ("holding_sends", True, False), ("stopped", False, False)],
)
def test_what_may_go_on(what: str, state: str, works: bool, sends: bool, office: Department, ada: User) -> None:
    switch(what, office, ada, state)
    desk = load_staff().desks[office.pk]
    assert (desk.is_working, desk.is_sending) == (works, sends)
    make_queued("intake")
    item = make_lead().item
    make_due(item)
    assert bool(claim()) is works
    assert bool(route_due(10, staff=load_staff())) is works


def test_the_stricter_of_both_holds(office: Department, ada: User) -> None:
    switch_installation(user=ada, state="draining")
    switch_department(department=office, user=ada, state="holding_sends")
    assert not load_staff().desks[office.pk].is_working


@both
def test_draining_finishes_what_is_under_way(what: str, office: Department, ada: User) -> None:
    work = claim_one("intake")
    switch(what, office, ada, "draining")
    assert run_of(work).status == "running"
    commit([answered(work)], load_staff())
    assert run_of(work).status == "done"
    assert not AgentRun.objects.filter(status="queued").exists()


@both
def test_stopping_takes_back_what_runs_and_queues_it_again(what: str, office: Department, ada: User) -> None:
    work = claim_one("intake")
    switch(what, office, ada, "stopped", "Now.")
    run = run_of(work)
    assert (run.status, run.lease_token, run.lost_leases, run.failures) == ("queued", None, 0, 0)
    assert ModelCall.objects.get().is_estimate
    commit([answered(work)], load_staff())
    assert not Output.objects.exists(), "what comes back is not ours any more"
    assert claim() == []
    switch(what, office, ada, "running")
    assert [work.run_id for work in claim()] == [run.pk]
    assert LogEntry.objects.filter(kind="stopped").count() == 1


def test_a_step_in_flight_on_a_closed_item_ends_with_a_stop(office: Department, ada: User) -> None:
    work = claim_one("intake")
    control.close_item(item=Item.objects.get(pk=work.item_id), user=ada)
    switch_department(department=office, user=ada, state="stopped")
    assert run_of(work).status == "cancelled", "nobody would ever take it up again"
    assert PipelineRun.objects.get().status == "cancelled"


def test_stopping_one_department_leaves_the_others_alone(office: Department, ada: User) -> None:
    other = make_office("other")
    work = claim_one("intake", other)
    switch_department(department=office, user=ada, state="stopped")
    assert run_of(work).status == "running"


def test_what_was_claimed_a_moment_too_late_is_taken_back_by_the_shifts(office: Department, ada: User) -> None:
    make_queued("intake")
    Department.objects.filter(pk=office.pk).update(state="stopped")
    stale = load_staff()
    object.__setattr__(stale.desks[office.pk], "is_working", True)
    (work,) = leases.claim(1, staff=stale, worker="host:1", is_alone=False)
    assert take_back_stopped() == 1
    assert run_of(work).status == "queued"
    assert take_back_stopped() == 0


@both
@pytest.mark.django_db(transaction=True)
def test_a_stop_closes_the_streams_and_nothing_is_lost(
    what: str, simulator: SimulatorServer, office: Department, ada: User
) -> None:
    simulator.faults(SLOW)
    item = make_lead().item
    make_due(item)
    with at_work():
        wait_for(lambda: simulator.stats()["in_flight"] == 1, "the call is in the air")
        switch(what, office, ada, "stopped")
        wait_for(lambda: simulator.stats()["in_flight"] == 0, "the stream is closed", 4)
        assert not AgentRun.objects.filter(status="running").exists()
        simulator.faults([])
        switch(what, office, ada, "running")
        wait_for(is_settled, "it is all done")
    assert set(AgentRun.objects.values_list("status", flat=True)) == {"done"}
    assert Output.objects.filter(item=item, key="email", is_current=True).count() == 1
    assert_accounts_agree()


def test_the_numbers_before_a_stop(office: Department) -> None:
    item = make_lead().item
    make_agent_run(item, "intake", status="running")
    make_agent_run(item, "qualifier")
    make_agent_run(make_lead(make_office("other")).item, status="running")
    make_outbox(item)
    found = foresee([office.pk])
    assert (found.running, found.queued, found.unsent) == (1, 1, 1)


@both
def test_a_waiting_run_says_why(what: str, office: Department, ada: User) -> None:
    run = make_queued("intake")
    switch(what, office, ada, "stopped", "Wrong price list")
    run = AgentRun.objects.select_related("item", "department").get(pk=run.pk)
    shown = show_agent_run(run, timezone.now(), describe_halt(Installation.read()))
    assert shown.label == "waiting"
    assert "Wrong price list" in shown.note


@both
def test_a_page_that_stays_open_asks_for_its_banners(what: str, office: Department, ada: User) -> None:
    client = Client()
    client.force_login(make_user("olga", department=office))
    panel = reverse("runs:banners")
    switch(what, office, ada, "stopped", "Wrong price list")
    html = client.get(panel).content.decode()
    assert "Wrong price list" in html
    assert html.strip() in client.get(reverse("leads:list")).content.decode()
    switch(what, office, ada, "running")
    assert "Wrong price list" not in client.get(panel).content.decode()
    stranger = Client()
    stranger.force_login(make_user("stan", department=make_office("other")))
    switch("department", office, ada, "stopped", "Not for others")
    assert "Not for others" not in stranger.get(panel).content.decode()
    assert Client().get(panel, headers={"HX-Request": "true", "Kontor-Refresh": "1"}).status_code == 401


def test_nothing_is_said_while_all_runs(office: Department) -> None:
    assert describe_halt(Installation.read()) == ""
    assert find_banners([office], Installation.read()) == []
    assert describe_state(Installation.read()) == "The installation is running."
    assert not Installation.objects.exists(), "reading writes nothing"


def test_who_may(office: Department, ada: User) -> None:
    assert switches.can_switch_all(Installation.read(), "stopped", ada)
    assert "superuser" in switches.can_switch_all(Installation.read(), "stopped", make_user("olga")).reason
