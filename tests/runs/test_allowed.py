"""What a person may do, and why not: the rule that buttons, URLs and services share."""

from __future__ import annotations

from typing import Any

import pytest

from agents.models import Department, Member
from runs import allowed
from runs.access import Access
from runs.allowed import YES, Allowed, has_left, no, state_of
from runs.models import Item, Output
from tests.factories import (
    make_agent_run,
    make_department,
    make_lead,
    make_message,
    make_outbox,
    make_output,
    make_trigger,
    make_user,
)

pytestmark = pytest.mark.django_db
RULES = {
    "active": {"can_run", "can_pause", "can_take_over", "can_close"},
    "paused": {"can_resume", "can_take_over", "can_close"},
    "taken_over": {"can_hand_back", "can_close"},
    "closed": {"can_reopen"},
}
ALWAYS = {"can_note", "can_record_reply"}


@pytest.fixture
def office() -> Department:
    return make_department()


def access(department: Department, role: str) -> Access:
    return Access((department,), {department.pk: role})


def test_it_is_a_condition_with_a_reason() -> None:
    assert YES
    assert not no("Because.")
    assert no("Because.") == Allowed(False, "Because.")


@pytest.mark.parametrize("state", RULES)
def test_what_an_item_allows_follows_from_its_state(state: str, office: Department) -> None:
    item = make_lead(office, automation=state).item
    for rule in set().union(*RULES.values()):
        answer = getattr(allowed, rule)(item)
        assert answer.ok is (rule in RULES[state]), rule
        assert bool(answer.reason) is not answer.ok
    assert all(getattr(allowed, rule)(item) for rule in ALWAYS)
    assert allowed.can_write_mail(item).ok is (state != "closed")


@pytest.mark.parametrize(
    ("role", "notes", "operates"),
    [("viewer", False, False), ("reviewer", True, False), ("operator", True, True), ("administrator", True, True)],
)
def test_the_role_counts_where_somebody_asks(role: str, notes: bool, operates: bool, office: Department) -> None:
    item = make_lead(office).item
    run = make_agent_run(item, status="failed")
    asking = access(office, role)
    assert allowed.can_note(item, asking).ok is notes
    for answer in (allowed.can_pause(item, asking), allowed.can_retry(run, asking), allowed.can_rerun(run, asking)):
        assert answer.ok is operates
        assert operates or "operator" in answer.reason


def test_somebody_of_another_department_has_no_role(office: Department) -> None:
    item = make_lead(office).item
    other = make_department(slug="other")
    assert not allowed.can_pause(item, access(other, Member.Role.ADMINISTRATOR))


def test_the_reason_names_who_and_why(office: Department) -> None:
    item = make_lead(office, automation="paused").item
    Item.objects.filter(pk=item.pk).update(automation_by=make_user("olga"), automation_reason="On holiday.")
    item.refresh_from_db()
    assert state_of(item) == "It is paused by olga: On holiday."
    assert allowed.can_pause(item).reason == state_of(item)
    assert allowed.can_run(item).reason == f"{state_of(item)} Nothing starts before the automation goes on."


def test_what_is_closed_starts_when_it_is_reopened_and_what_is_erased_never(office: Department) -> None:
    item = make_lead(office, automation="closed").item
    assert allowed.can_run(item).reason == "It is closed. Nothing starts before it is reopened."
    assert allowed.can_write_mail(item).reason == "It is closed. Reopen it first."
    item.tags = [Item.ERASED]
    assert allowed.can_run(item).reason == allowed.can_write_mail(item).reason == allowed.ERASED


@pytest.mark.parametrize("status", ["queued", "running", "done", "failed", "cancelled", "superseded"])
def test_what_a_step_allows_follows_from_its_status(status: str, office: Department) -> None:
    run = make_agent_run(make_lead(office).item, status=status)
    is_active = status in ("queued", "running")
    assert allowed.can_cancel(run).ok is is_active
    assert allowed.can_rerun(run).ok is not is_active
    assert allowed.can_retry(run).ok is (status == "failed")
    assert allowed.can_cancel_steps(run.item).ok is is_active


def test_a_step_of_an_agent_that_is_off_is_not_retried(office: Department) -> None:
    run = make_agent_run(make_lead(office).item, status="failed")
    type(run.agent).objects.filter(pk=run.agent_id).update(is_enabled=False)
    run.refresh_from_db()
    assert allowed.can_retry(run).reason == f"{run.agent.title} is switched off. Switch it on first."


@pytest.mark.parametrize(
    ("fields", "left"),
    [
        ({"status": "pending"}, False),
        ({"status": "withdrawn"}, False),
        ({"status": "failed"}, False),
        ({"status": "sending"}, True),
        ({"status": "sent"}, True),
        ({"status": "unknown"}, True),
    ],
)
def test_what_may_have_been_sent_has_left(fields: dict[str, Any], left: bool, office: Department) -> None:
    item = make_lead(office).item
    email = make_output(item, "email")
    make_outbox(item, output=email, **fields)
    assert has_left(email) is left
    assert allowed.can_edit(email).ok is not left


def test_what_was_sent_by_hand_has_left_and_what_came_in_has_not(office: Department) -> None:
    item = make_lead(office).item
    email, intake = make_output(item, "email"), make_output(item, "intake")
    make_message(item, "in", output=intake)
    make_message(item, "out", output=email)
    assert (has_left(email), has_left(intake)) == (True, False)


def test_only_a_current_output_is_edited(office: Department) -> None:
    output = make_output(make_lead(office).item, is_current=False, retired_why="olga wrote another.")
    assert allowed.can_edit(output).reason == "It is no longer current. olga wrote another."
    assert allowed.can_edit(Output.objects.create(item=output.item, key="intake", payload={}, schema_version="1"))


def test_a_key_is_entered_for_an_occasion_for_which_somebody_writes_it(office: Department) -> None:
    item = make_lead(office).item
    decision = make_trigger(item, "decision")
    assert allowed.can_inject(item, "draft", None)
    assert not allowed.can_inject(item, "crm_update", None)
    assert allowed.can_inject(item, "crm_update", decision)
    assert not allowed.can_inject(item, "draft", decision)
