"""Applies what an output implies, as the kind's pure ``effects`` says, in the transaction that stores the output."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from email.utils import parseaddr
from functools import partial
from typing import Any

from django.contrib.auth.models import User
from django.db.models import Q

from agents.models import Agent
from agents.spec import Effect, OpenReview, OutputEvent, ScheduleTrigger, Send, SetItem, Suppress, WithdrawTriggers
from runs import alike, auto_approval, log, outbox, suppressions
from runs.facts import SUPPRESSED_TAG
from runs.models import Item, LogEntry, Message, Output, Review, Suppression, Trigger
from runs.risk import judge_risk
from runs.staff import Desk
from runs.wording import in_words, trigger_words

REVIEW_DEADLINE = timedelta(days=1)

Happening = tuple[Item, Output, OutputEvent]


def apply_effects(happenings: Sequence[tuple[Happening, Desk]], *, now: datetime) -> tuple[list[LogEntry], set[int]]:
    """Apply the effects of what happened to outputs. Changed items are not saved here.

    Returns the log lines and the ids of items about which the router's facts have changed beyond the output.
    """
    entries: list[LogEntry] = []
    changed: set[int] = set()
    for (item, output, event), desk in happenings:
        for effect in desk.spec.effects(event):
            entries += _apply(effect, item, output, event, desk, now)
            if not isinstance(effect, OpenReview):
                changed.add(item.pk)
        if event.what == "written" and not output.is_by_person:
            approved = _decide_without_person(item, output, event, desk, now)
            entries += approved
            changed |= {item.pk} if approved else set()
    return entries, changed


def _decide_without_person(item: Item, output: Output, event: OutputEvent, desk: Desk, now: datetime) -> list[LogEntry]:
    """What the agent's output policy and automatic approvals say about an output that was just written.

    Policy ``auto``: what would leave the house and nobody is asked about is approved. Policy ``review``: a person
    is asked. A question that the kind itself asks is answered by a person, or by an automatic approval.
    """
    agent = next((a for a in desk.agents.values() if a.writes == output.key and a.works_for(event.occasion_kind)), None)
    if agent is None:
        return []
    approval = replace(event, what="approved")
    implied = desk.spec.effects(approval)
    sends = any(isinstance(effect, Send) for effect in implied)
    if not sends and agent.output_policy == Agent.Policy.AUTO:
        return []
    review, entries = _question_about(item, output, event, agent, desk, now)
    if review is None:
        auto_approval.set_approved(output)
        text = f"Approved by policy: nobody is asked about the {in_words(output.key)}."
        entries.append(log.item_entry(item, "answer", text, at=now))
    elif event.facts is None or not sends:
        return entries
    else:
        is_approved, said = auto_approval.answer_by_rule(review, item, output, event.facts, desk, now=now)
        entries += said
        if not is_approved:
            return entries
    for effect in implied:
        entries += _apply(effect, item, output, approval, desk, now)
    if review is not None:
        auto_approval.announce(review, item, output, desk, now=now)
    return entries


def _question_about(
    item: Item, output: Output, event: OutputEvent, agent: Agent, desk: Desk, now: datetime
) -> tuple[Review | None, list[LogEntry]]:
    """The question whether the output may be used: the kind's, else the one that policy ``review`` asks."""
    asked = Review.objects.filter(output=output, kind=Review.Kind.DRAFT, status=Review.Status.OPEN)
    review = asked.first()
    if review is not None or agent.output_policy != Agent.Policy.REVIEW:
        return review, []
    ask = f"Is {in_words(output.key)} {output.number} of {item.title} right?"
    entries = _apply(OpenReview(Review.Kind.DRAFT, ask), item, output, event, desk, now)
    return asked.first(), entries


def _apply(effect: Effect, item: Item, output: Output, event: OutputEvent, desk: Desk, now: datetime) -> list[LogEntry]:
    match effect:
        case OpenReview():
            risk, why = effect.risk, ""
            if effect.kind == Review.Kind.DRAFT and event.facts is not None:
                risk, why = judge_risk(output, event.facts, desk, base=effect.risk)
            told: dict[str, Any] = {
                "department_id": item.department_id,
                "item": item,
                "agent_run_id": output.agent_run_id,
                "ask": effect.ask[:500],
                "risk": risk,
                "risk_why": why,
                "deadline": now + effect.within,
                "at_deadline": effect.at_deadline,
            }
            if effect.kind == Review.Kind.DRAFT:
                # Called where the question is new.
                told["group"] = partial(alike.find_group, item, output, event.occasion_kind, desk, now=now)
            # A review pins the output it asks about; asking twice about the same output is one question.
            Review.objects.get_or_create(output=output, kind=effect.kind, status=Review.Status.OPEN, defaults=told)
            return [log.item_entry(item, "review", f"A person is asked: {effect.ask}", at=now)]
        case Suppress():
            return _suppress(effect, item, output, desk, now)
        case ScheduleTrigger():
            due = now + effect.after
            Trigger.objects.create(item=item, kind=effect.kind, payload=effect.payload, due_at=due, source="effect")
            text = f"{trigger_words(effect.kind, 'is')} for {due:%Y-%m-%d %H:%M} UTC."
            return [log.item_entry(item, "trigger", text, at=now)]
        case WithdrawTriggers():
            count = Trigger.objects.filter(item=item, kind=effect.kind, status=Trigger.Status.OPEN).update(
                status=Trigger.Status.NOTED, settled_at=now, settled_note=effect.reason[:300]
            )
            text = f"{count} open {Trigger.Kind(effect.kind).label} withdrawn: {effect.reason}"
            return [log.item_entry(item, "trigger", text, at=now)] if count else []
        case SetItem():
            for name, value in effect.changes.items():
                setattr(item, name, value)
            return []
        case Send():
            return outbox.write_message(item, output, effect, desk, now=now, approved_by=_approver(output))


def _approver(output: Output) -> User | None:
    """Who has approved the output; None where a rule or the agent's policy did."""
    about = Q(output=output) | Q(edited=output)
    answered = Review.objects.filter(about, status=Review.Status.ANSWERED, answer__in=Review.APPROVALS)
    review = answered.select_related("answered_by").order_by("-answered_at", "-pk").first()
    return review.answered_by if review is not None else None


def withdraw_drafts(item: Item, reason: str, *, now: datetime) -> list[LogEntry]:
    """Take back every question whether a mail to this item's person may leave: what it asks is no longer so."""
    count = Review.objects.filter(item=item, kind=Review.Kind.DRAFT, status=Review.Status.OPEN).update(
        status=Review.Status.WITHDRAWN, answer_note=reason, answered_at=now
    )
    text = f"{count} drafts are no longer to be approved: {reason}"
    return [log.item_entry(item, "review", text, at=now)] if count else []


def _suppress(effect: Suppress, item: Item, output: Output, desk: Desk, now: datetime) -> list[LogEntry]:
    if SUPPRESSED_TAG not in item.tags:
        item.tags = [*item.tags, SUPPRESSED_TAG]
    # Also the address they wrote from: another department may know them by that one.
    wrote = Message.objects.filter(item=item, trigger=output.trigger_id, direction=Message.Direction.IN)
    wrote_from = wrote.values_list("address", flat=True) if output.trigger_id is not None else ()
    addresses = {outbox.address_of(item, desk), *(parseaddr(text)[1] for text in wrote_from)}
    for address in sorted(addresses - {""}):
        suppressions.suppress(address=address, reason=Suppression.Reason.OPT_OUT, note=effect.reason, item=item)
    text = f"Nobody writes to this person any more: {in_words(effect.reason)}."
    withdrawn = withdraw_drafts(item, "The person asked not to be written to again.", now=now)
    return [log.item_entry(item, "suppressed", text, at=now, level=LogEntry.Level.WARNING), *withdrawn]
