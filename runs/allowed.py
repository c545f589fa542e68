"""What a person may do now, and if not, why not: one function a verb, asked by buttons, URLs and services alike.

``access`` is who asks. Services ask again under the item's lock, without it: the role was checked by the view.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from django.db.models import BigIntegerField, Exists, IntegerField, OuterRef, QuerySet, SlugField

from agents.models import Member
from agents.spec import ITEM
from agents.statements import Given, Statement
from runs.access import Access
from runs.models import AgentRun, Item, Message, OutboxMessage, Output, Trigger

Role = Member.Role
Automation = Item.Automation


@dataclass(frozen=True, slots=True)
class Allowed:
    """Whether something may be done; ``reason`` says why not. As a condition it is ``ok``."""

    ok: bool
    reason: str = ""

    def __bool__(self) -> bool:
        return self.ok


YES = Allowed(True)


def no(reason: str) -> Allowed:
    """It may not, because of this."""
    return Allowed(False, reason)


ERASED = "The person was erased: nothing more is kept about them."


# --- Items ----------------------------------------------------------------------------------------------------


def can_run(item: Item, access: Access | None = None) -> Allowed:
    """Have the pipeline look at the item."""
    if item.automation != Automation.ACTIVE:
        return no(why_at_rest(item))
    return _role(access, item.department_id, Role.OPERATOR)


def can_pause(item: Item, access: Access | None = None) -> Allowed:
    """Stop the automation of an item for a while."""
    if item.automation != Automation.ACTIVE:
        return no(state_of(item))
    return _role(access, item.department_id, Role.OPERATOR)


def can_resume(item: Item, access: Access | None = None) -> Allowed:
    """Let a paused item go on."""
    if item.automation != Automation.PAUSED:
        return no(f"It is not paused: {_now(item)}.")
    return _role(access, item.department_id, Role.OPERATOR)


def can_take_over(item: Item, access: Access | None = None) -> Allowed:
    """Have a person do the work on an item."""
    if item.automation not in (Automation.ACTIVE, Automation.PAUSED):
        return no(state_of(item))
    return _role(access, item.department_id, Role.OPERATOR)


def can_hand_back(item: Item, access: Access | None = None) -> Allowed:
    """Give an item that was taken over back to the department."""
    if item.automation != Automation.TAKEN_OVER:
        return no(f"Nobody has taken it over: {_now(item)}.")
    return _role(access, item.department_id, Role.OPERATOR)


def can_close(item: Item, access: Access | None = None) -> Allowed:
    """End the work on an item."""
    if item.automation == Automation.CLOSED:
        return no(state_of(item))
    return _role(access, item.department_id, Role.OPERATOR)


def can_reopen(item: Item, access: Access | None = None) -> Allowed:
    """Take the work on a closed item up again."""
    if item.automation != Automation.CLOSED:
        return no(f"It is not closed: {_now(item)}.")
    if item.is_erased:
        return no(ERASED)
    return _role(access, item.department_id, Role.OPERATOR)


def can_cancel_steps(item: Item, access: Access | None = None) -> Allowed:
    """Stop every step that waits or is under way on an item."""
    if not item.agent_runs.filter(status__in=AgentRun.ACTIVE).exists():
        return no("No step waits or is under way.")
    return _role(access, item.department_id, Role.OPERATOR)


def can_note(item: Item, access: Access | None = None) -> Allowed:
    """Add a note or a call; also to what is closed, for the record."""
    if item.is_erased:
        return no(ERASED)
    return _role(access, item.department_id, Role.REVIEWER)


def can_record_reply(item: Item, access: Access | None = None) -> Allowed:
    """Enter what the item's person has answered elsewhere."""
    if item.is_erased:
        return no(ERASED)
    return _role(access, item.department_id, Role.OPERATOR)


def can_write_mail(item: Item, access: Access | None = None) -> Allowed:
    """Write to the item's person by hand. Whether it leaves now, the outbox decides when it is due."""
    if item.automation == Automation.CLOSED:
        return no(_when_closed(item))
    return _role(access, item.department_id, Role.OPERATOR)


# --- Outputs --------------------------------------------------------------------------------------------------


def keys_that_left(item: Item, trigger: Trigger | None) -> set[str]:
    """The keys of which what is current for the occasion has left the house, or may have."""
    current = item.outputs.filter(trigger=trigger, is_current=True)
    return set(_left_among(current).values_list("key", flat=True))


def can_inject(
    item: Item,
    key: str,
    trigger: Trigger | None,
    access: Access | None = None,
    *,
    have_left: Collection[str] | None = None,
) -> Allowed:
    """Enter an output of this key by hand. ``have_left``: of the occasion, where they are known already."""
    if item.automation == Automation.CLOSED:
        return no(_when_closed(item))
    occasion = trigger.kind if trigger else ITEM
    if item.department.spec.writer(key, occasion) is None:
        return no(f"No agent of {item.department} writes “{_words(key)}” for this occasion.")
    if key in (keys_that_left(item, trigger) if have_left is None else have_left):
        return no(LEFT_ALREADY)
    return _role(access, item.department_id, Role.OPERATOR)


def can_edit(output: Output, access: Access | None = None) -> Allowed:
    """Write an output anew by hand."""
    if not output.is_current:
        return no(f"It is no longer current. {output.retired_why}".strip())
    return can_inject(output.item, output.key, output.trigger, access)


LEFT_ALREADY = "It has left the house, or may have: what was sent stays as it was sent."


def has_left(output: Output) -> bool:
    """Whether the output was sent, or given to a channel that may have sent it."""
    return bool(_HAS_LEFT.rows(limit=1, output=output.pk))


def _left_among(outputs: QuerySet[Output]) -> QuerySet[Output]:
    written = Message.objects.filter(output=OuterRef("pk"), direction=Message.Direction.OUT)
    handed = OutboxMessage.objects.filter(output=OuterRef("pk"), status__in=OutboxMessage.LEFT)
    return outputs.filter(Exists(written) | Exists(handed))


_HAS_LEFT = Statement(
    lambda: _left_among(Output.objects.filter(pk=Given("output", BigIntegerField()))).values_list("pk")
)

# --- Agent runs -----------------------------------------------------------------------------------------------


def can_retry(run: AgentRun, access: Access | None = None) -> Allowed:
    """Have a failed step tried again."""
    if run.status != AgentRun.Status.FAILED:
        return no(f"Only a failed step can be retried; this one is {run.get_status_display()}.")
    if run.item.automation == Automation.CLOSED:
        return no(_when_closed(run.item))
    if not run.agent.is_enabled:
        return no(f"{run.agent.title} is switched off. Switch it on first.")
    return _role(access, run.department_id, Role.OPERATOR)


def can_cancel(run: AgentRun, access: Access | None = None) -> Allowed:
    """Stop a step that waits or is under way."""
    if run.status not in AgentRun.ACTIVE:
        return no(f"Only a step that waits or runs can be cancelled; this one is {run.get_status_display()}.")
    return _role(access, run.department_id, Role.OPERATOR)


def can_rerun(run: AgentRun, access: Access | None = None) -> Allowed:
    """Have a step done anew, also one that succeeded, and with it what was made from it."""
    if run.status in AgentRun.ACTIVE:
        return no(f"It is {run.get_status_display()} already. Cancel it first.")
    if run.item.automation == Automation.CLOSED:
        return no(_when_closed(run.item))
    if not run.agent.is_enabled:
        return no(f"{run.agent.title} is switched off.")
    occasion = (run.trigger_id,)
    if occasion in _AT_WORK.rows(item=run.item_id, agent=run.agent_id):
        return no(f"{run.agent.title} is at work on it already. Cancel that step first.")
    if occasion in _LEFT.rows(item=run.item_id, key=run.agent.writes):
        return no(LEFT_ALREADY)
    return _role(access, run.department_id, Role.OPERATOR)


_AT_WORK = Statement(
    lambda: AgentRun.objects.filter(
        item=Given("item", IntegerField()), agent=Given("agent", IntegerField()), status__in=AgentRun.ACTIVE
    ).values_list("trigger_id")
)
_LEFT = Statement(
    lambda: _left_among(
        Output.objects.filter(item=Given("item", IntegerField()), key=Given("key", SlugField()), is_current=True)
    ).values_list("trigger_id")
)
"""For which occasions an agent is at work on an item, and what is current of a key has left the house."""


# --- Words ----------------------------------------------------------------------------------------------------


def state_of(item: Item) -> str:
    """What a person has switched on the item, as a sentence: who and why."""
    who = f" by {item.automation_by}" if item.automation_by else ""
    why = f": {item.automation_reason.rstrip('.')}" if item.automation_reason else ""
    return f"It is {item.get_automation_display()}{who}{why}."


def why_at_rest(item: Item) -> str:
    """Why nothing starts on an item whose automation is not active, and until when, in sentences."""
    if item.is_erased:
        return ERASED
    until = "it is reopened" if item.automation == Automation.CLOSED else "the automation goes on"
    return f"{state_of(item)} Nothing starts before {until}."


def _when_closed(item: Item) -> str:
    return ERASED if item.is_erased else f"{state_of(item)} Reopen it first."


def _now(item: Item) -> str:
    is_active = item.automation == Automation.ACTIVE
    return "the department works on it" if is_active else f"it is {item.get_automation_display()}"


def _words(key: str) -> str:
    return key.replace("_", " ")


def _role(access: Access | None, department_id: int, role: str) -> Allowed:
    if access is None or access.can(department_id, role):
        return YES
    article = "an" if role[0] in "aeiou" else "a"
    return no(f"This takes the role of {article} {role}.")
