"""Approvals without a person: off by default, sampled, never on what is new, off by themselves after a rejection."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.utils import timezone

from agents.models import Agent, Department
from agents.spec import OutputEvent
from runs import outbox
from runs.auto_approval import is_sample
from runs.dispatch import output_event, route
from runs.models import (
    AutoApproval,
    Channel,
    Item,
    LogEntry,
    OutboxMessage,
    Output,
    Review,
    RiskRule,
    Suppression,
    Trigger,
)
from runs.reviews import approve, reject, undo
from runs.staff import load_staff
from tests.engine import make_office
from tests.factories import agent_of, make_agent_run, make_lead, make_message, make_outbox, make_output, make_user

pytestmark = pytest.mark.django_db
CLEAN_CHECK = {"reasoning_summary": "All supported.", "checks": [], "unsupported": 0}


@pytest.fixture
def office() -> Department:
    return make_office()


@pytest.fixture
def rita() -> User:
    return make_user("rita")


@pytest.fixture
def rule(office: Department) -> AutoApproval:
    """Drafts of the Writer for hot leads, without a sample."""
    return AutoApproval.objects.create(
        department=office,
        agent=agent_of(office, "writer"),
        name="Hot leads",
        when={"facet": {"tier": ["Hot"]}},
        sample_percent=0,
        is_enabled=True,
    )


@pytest.fixture
def proven(office: Department, rita: User) -> None:
    """Enough mails that a person approved have left."""
    configuration = outbox.configuration_of(load_staff().desks[office.pk])
    item = make_lead(office).item
    output = make_output(item, "email", verdict="approved")
    for number in range(outbox.PROVEN_SENDS):
        key = f"proof:{number}"
        make_outbox(item, output=output, key=key, status="sent", configuration=configuration, approved_by=rita)


def write_mail(office: Department, **fields: Any) -> Output:
    """A checked mail, written as a shift writes it: stored, told to the kind, routed."""
    item = make_lead(office, status="qualified", **fields).item
    draft = make_output(item, "draft", agent_run=make_agent_run(item, "writer", status="done"))
    made = {"draft": draft}
    for key in ("intake", "qualification", "research", "strategy"):
        make_output(item, key)
    made["fact_check"] = make_output(item, "fact_check", payload=CLEAN_CHECK)
    run = make_agent_run(item, "formatter", status="done")
    payload = {"reasoning_summary": "Fine.", "subject": "Freight", "body": "Dear Lena", "removed_claims": []}
    output = make_output(item, "email", payload=payload, agent_run=run, made_from=[one.pk for one in made.values()])
    told(output, "written")
    return output


def told(output: Output, what: Any) -> OutputEvent:
    item, staff = Item.objects.get(pk=output.item_id), load_staff()
    event = output_event(what, output, output.trigger, {})
    route([item], staff, now=timezone.now(), events=[(item, output, event)])
    output.refresh_from_db()
    return event


def question(output: Output) -> Review:
    return Review.objects.get(output=output, kind="draft")


@pytest.mark.usefixtures("proven", "rule")
def test_a_draft_that_fits_is_approved_and_waits_to_be_sent(office: Department) -> None:
    output = write_mail(office)
    assert output.verdict == "approved"
    review = question(output)
    assert (review.status, review.answer, review.answered_by) == ("answered", "approve", None)
    assert str(review.by_rule) == "Hot leads"
    message = OutboxMessage.objects.get(output=output, status="pending")
    assert message.approved_by is None
    decision = Trigger.objects.get(item=output.item, kind="decision")
    assert (decision.due_at, decision.source) == (message.release_at, f"review:{review.pk}")
    item = Item.objects.get(pk=output.item_id)
    assert (item.status, item.route_due_at) == ("approved", decision.due_at)


@pytest.mark.usefixtures("proven")
def test_it_is_off_by_default(office: Department) -> None:
    AutoApproval.objects.create(department=office, agent=agent_of(office, "writer"), name="Off", sample_percent=0)
    assert question(write_mail(office)).status == "open"


@pytest.mark.usefixtures("rule")
def test_before_enough_mails_have_left_it_is_a_persons_matter(office: Department) -> None:
    review = question(write_mail(office))
    assert (review.status, str(review.by_rule)) == ("open", "Hot leads")
    assert not OutboxMessage.objects.filter(status="pending").exists()


@pytest.mark.usefixtures("proven", "rule")
def test_a_new_model_is_a_new_beginning(office: Department) -> None:
    Agent.objects.filter(department=office, slug="writer").update(model="claude-opus-5-5")
    assert question(write_mail(office)).status == "open"


@pytest.mark.usefixtures("proven")
@pytest.mark.parametrize(
    "changes",
    [
        {"is_enabled": False},
        {"when": {"facet": {"tier": ["Warm"]}}},
        {"when": {"unheard": ["of"]}},
        {"sample_percent": 100},
    ],
)
def test_what_does_not_fit_goes_to_a_person(office: Department, rule: AutoApproval, changes: dict[str, Any]) -> None:
    AutoApproval.objects.filter(pk=rule.pk).update(**changes)
    output = write_mail(office)
    assert (question(output).status, output.verdict) == ("open", "none")


@pytest.mark.usefixtures("proven", "rule")
def test_what_is_too_risky_goes_to_a_person(office: Department) -> None:
    RiskRule.objects.create(department=office, name="First contact", when={"marks": ["first_contact"]}, risk=2)
    review = question(write_mail(office))
    assert (review.status, review.risk, review.risk_why) == ("open", 2, "First contact")


@pytest.mark.usefixtures("proven")
def test_the_rule_of_another_agent_says_nothing(office: Department, rule: AutoApproval) -> None:
    AutoApproval.objects.filter(pk=rule.pk).update(agent=agent_of(office, "reply_handler"))
    assert question(write_mail(office)).status == "open"


@pytest.mark.usefixtures("proven", "rule")
def test_who_must_not_be_written_to_is_not(office: Department) -> None:
    Suppression.objects.create(address="lena@example.com", reason="manual")
    assert question(write_mail(office, email="lena@example.com")).status == "open"


@pytest.mark.usefixtures("proven", "rule")
def test_a_paused_lead_is_a_persons_matter(office: Department) -> None:
    output = write_mail(office, automation="paused")
    assert question(output).status == "open"


@pytest.mark.usefixtures("proven")
def test_after_a_rejection_it_switches_itself_off_and_says_so(
    office: Department, rule: AutoApproval, rita: User
) -> None:
    AutoApproval.objects.filter(pk=rule.pk).update(sample_percent=100)
    assert reject(review=question(write_mail(office)), user=rita, reason="Too pushy.")
    rule.refresh_from_db()
    assert (rule.is_enabled, rule.revoked_why) == (False, "rita rejected a draft: Too pushy.")
    assert rule.revoked_at is not None
    assert "approves nothing any more" in LogEntry.objects.get(kind="auto_approval").text
    assert question(write_mail(office)).status == "open"


@pytest.mark.usefixtures("proven")
def test_the_rejection_of_another_agents_draft_leaves_it_on(office: Department, rule: AutoApproval, rita: User) -> None:
    AutoApproval.objects.filter(pk=rule.pk).update(agent=agent_of(office, "reply_handler"))
    assert reject(review=question(write_mail(office)), user=rita, reason="Too pushy.")
    rule.refresh_from_db()
    assert rule.is_enabled


@pytest.mark.usefixtures("proven", "rule")
def test_a_person_can_take_an_automatic_approval_back(office: Department, rita: User) -> None:
    output = write_mail(office)
    review = question(output)
    assert undo(review=review, user=rita)
    review.refresh_from_db()
    output.refresh_from_db()
    assert (review.status, output.verdict) == ("open", "none")
    assert not OutboxMessage.objects.filter(output=output, status="pending").exists()
    assert approve(review=review, user=rita)


def test_the_sample_is_a_share_and_always_the_same(office: Department, rule: AutoApproval) -> None:
    rule.sample_percent = 20
    outputs = [Output(pk=number) for number in range(1, 2_001)]
    sampled = [is_sample(rule, output) for output in outputs]
    assert sampled == [is_sample(rule, output) for output in outputs]
    assert 340 < sum(sampled) < 460
    rule.sample_percent = 0
    assert not any(is_sample(rule, output) for output in outputs)
    rule.sample_percent = 100
    assert all(is_sample(rule, output) for output in outputs)


# --- The agent's output policy --------------------------------------------------------------------------------


def write_update(office: Department) -> Output:
    Channel.objects.create(department=office, kind="crm")
    item = make_lead(office).item
    decision = Trigger.objects.create(item=item, kind="decision", due_at=timezone.now() - timedelta(seconds=1))
    run = make_agent_run(item, "crm_scribe", status="done", trigger=decision)
    make_message(item, "in")
    output = make_output(item, "crm_update", trigger=decision, agent_run=run)
    told(output, "written")
    return output


def test_policy_auto_approves_what_nobody_is_asked_about(office: Department) -> None:
    output = write_update(office)
    assert output.verdict == "approved"
    message = OutboxMessage.objects.get()
    assert (message.channel, message.output, message.approved_by) == ("crm", output, None)
    assert not Review.objects.exists()


def test_policy_review_asks_a_person_first(office: Department, rita: User) -> None:
    Agent.objects.filter(slug="crm_scribe").update(output_policy="review")
    output = write_update(office)
    assert (output.verdict, OutboxMessage.objects.count()) == ("none", 0)
    review = question(output)
    assert review.ask == f"Is CRM update 1 of {output.item.title} right?"
    assert approve(review=review, user=rita)
    message = OutboxMessage.objects.get()
    assert (message.channel, message.approved_by) == ("crm", rita)


def test_policy_auto_does_not_answer_what_the_kind_asks(office: Department) -> None:
    Agent.objects.filter(slug="formatter").update(output_policy="auto")
    output = write_mail(office)
    assert (question(output).status, output.verdict) == ("open", "none")


def test_what_does_not_leave_the_house_needs_no_verdict(office: Department) -> None:
    output = make_output(make_lead(office).item, "research")
    told(output, "written")
    assert output.verdict == "none"
    assert not Review.objects.exists()
