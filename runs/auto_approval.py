"""Approvals without a person: by a rule that an administrator switched on, never on a doubt, and never for ever.

Off by default. A share still goes to a person; the first sends after a SOUL, model, rule or setting changed always
do; a rejected or sent-back draft of the same agent switches the rule off by itself.
"""

from __future__ import annotations

import hashlib
from datetime import datetime

from django.contrib.auth.models import User
from django.db.models import Q

from agents.spec import ITEM, Facts
from runs import log, outbox
from runs.clauses import Known
from runs.models import AutoApproval, Item, LogEntry, OutboxMessage, Output, Review, Trigger
from runs.outputs import writer_of
from runs.risk import holds, marks_of
from runs.sendable import why_not_send
from runs.staff import Desk


def answer_by_rule(
    review: Review, item: Item, output: Output, facts: Facts, desk: Desk, *, now: datetime
) -> tuple[bool, list[LogEntry]]:
    """Answer a new question by the first rule that fits; whether it was approved, and unsaved log lines.

    The item must be locked. An approved output still has to be told to the kind, and ``announce``d after that.
    """
    rule = _fitting(review, item, output, facts, desk)
    if rule is None:
        return False, []
    why_not = _why_a_person(rule, item, output, desk)
    if why_not:
        Review.objects.filter(pk=review.pk).update(by_rule=rule)
        return False, [log.item_entry(item, "review", f"“{rule}” leaves it to a person: {why_not}", at=now)]
    Review.objects.filter(pk=review.pk, status=Review.Status.OPEN).update(
        status=Review.Status.ANSWERED, answer=Review.Answer.APPROVE, by_rule=rule, answered_at=now
    )
    set_approved(output)
    return True, [log.item_entry(item, "answer", f"Approved by the rule “{rule}”: {review.ask}", at=now)]


def set_approved(output: Output) -> None:
    """Store the verdict of a rule or of the agent's policy."""
    output.verdict = Output.Verdict.APPROVED
    Output.objects.filter(pk=output.pk).update(verdict=output.verdict)


def announce(review: Review, item: Item, output: Output, desk: Desk, *, now: datetime) -> None:
    """Tell other agents of an approval by rule once it cannot be taken back any more. After it was written to send."""
    if output.key != desk.spec.final_key:
        return
    waiting = OutboxMessage.objects.filter(output=output, status=OutboxMessage.Status.PENDING)
    release_at = waiting.order_by("-release_at").values_list("release_at", flat=True).first()
    payload = {"answer": "approve", "key": output.key, "note": ""}
    Trigger.objects.create(
        item=item,
        kind=Trigger.Kind.DECISION,
        payload=payload,
        due_at=release_at or now,
        source=f"review:{review.pk}",
    )


def revoke(item: Item, output: Output, why: str, *, user: User | None = None, now: datetime) -> int:
    """Switch off the rules that approve drafts of the agents who made this one; their number. Logged."""
    if output.is_by_person:
        return 0
    authors = Q(agent__runs__outputs=output) | Q(agent__runs__outputs__in=output.made_from)
    rules = AutoApproval.objects.filter(authors, department=item.department_id, is_enabled=True).distinct()
    found = list(rules.order_by("pk"))
    for rule in found:
        AutoApproval.objects.filter(pk=rule.pk, is_enabled=True).update(
            is_enabled=False, revoked_at=now, revoked_why=why[:300]
        )
    log.write(
        log.item_entry(
            item,
            "auto_approval",
            f"The rule “{rule}” approves nothing any more, until an administrator switches it on again. {why}",
            at=now,
            level=LogEntry.Level.WARNING,
        )
        for rule in found
    )
    return len(found)


def is_sample(rule: AutoApproval, output: Output) -> bool:
    """Whether this draft is of the share that goes to a person all the same; always the same for the same draft."""
    digest = hashlib.sha256(f"{rule.pk}:{output.pk}".encode()).digest()
    return int.from_bytes(digest[:4]) % 100 < rule.sample_percent


def _fitting(review: Review, item: Item, output: Output, facts: Facts, desk: Desk) -> AutoApproval | None:
    # Read anew each time and not with the staff: a rule that was revoked a moment ago approves nothing.
    rules = AutoApproval.objects.filter(
        department=item.department_id,
        is_enabled=True,
        max_risk__gte=review.risk,
        agent__slug__in=_authors(output, desk),
    )
    known, marks = Known(facts), marks_of(facts, desk)
    return next((rule for rule in rules.order_by("pk") if holds(rule.when, known, output.trigger_id, marks)), None)


def _authors(output: Output, desk: Desk) -> list[str]:
    """Whose draft it is: who wrote the output, and who writes what is written again when it is sent back."""
    occasion = output.trigger.kind if output.trigger else ITEM
    keys = {output.key, desk.spec.send_back_to.get(output.key, output.key)}
    try:
        return [writer_of(desk.spec, key, occasion).slug for key in sorted(keys)]
    except LookupError:
        return []  # nobody's draft is nobody's to approve


def _why_a_person(rule: AutoApproval, item: Item, output: Output, desk: Desk) -> str:
    if is_sample(rule, output):
        return f"it is of the {rule.sample_percent} % that people look at."
    if item.automation != Item.Automation.ACTIVE:
        return f"the automation is {item.get_automation_display()}."
    if not outbox.is_proven(desk.department, outbox.configuration_behind(output, desk)):
        return (
            f"fewer than {outbox.PROVEN_SENDS} approved mails have left since a SOUL, model, rule or setting changed."
        )
    return why_not_send(item, output)
