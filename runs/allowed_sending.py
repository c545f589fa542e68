"""What a person may do about a message that leaves the house, and if not, why not. Asked by buttons and services alike.

``access`` is who asks; services ask again under the item's lock, without it. ``item`` of the message is read.
"""

from __future__ import annotations

from agents.models import Member
from runs.access import Access
from runs.allowed import YES, Allowed, has_left, no
from runs.models import Item, OutboxMessage, Output
from runs.send_channels import CHANNELS

Role, Status = Member.Role, OutboxMessage.Status
AGAIN = ":again-"
"""What the key of a second message of one purpose goes on with."""
NOT_LEFT = (Status.PENDING, Status.FAILED)


def can_withdraw(message: OutboxMessage, access: Access | None = None) -> Allowed:
    """Take a message back before it leaves."""
    if message.status != Status.PENDING:
        return no(f"Only what waits can be taken back; this one is {message.get_status_display()}.")
    return _operator(message.department_id, access)


def can_mark_sent(message: OutboxMessage, access: Access | None = None) -> Allowed:
    """Say that one has sent it by other means."""
    if message.status not in NOT_LEFT:
        return no(f"Only what waits or has failed can be sent by hand; this one is {message.get_status_display()}.")
    return _operator(message.department_id, access)


def can_settle(message: OutboxMessage, access: Access | None = None) -> Allowed:
    """Say whether an unsure message was sent."""
    if message.status != Status.UNKNOWN:
        return no(f"Nobody is unsure about it: it is {message.get_status_display()}.")
    return _operator(message.department_id, access)


def can_send_another(message: OutboxMessage, access: Access | None = None) -> Allowed:
    """Have a second message sent for a purpose of which one has been sent. Two queries."""
    plugin = CHANNELS.get(message.channel)
    if plugin is None or not plugin.reaches_person:
        return no("It went to a machine, not to a person.")
    if message.item.automation == Item.Automation.CLOSED:
        return no("It is closed. Reopen it first.")
    states = {row.status for row in family_of(message)}
    if states - {Status.SENT, Status.WITHDRAWN, Status.FAILED}:
        return no("One is on its way, or it is unsure whether it was sent.")
    if Status.SENT not in states:
        return no("None was sent yet: the first one can be approved again.")
    if message.output is not None:
        same = Output.objects.filter(item=message.item_id, key=message.output.key, trigger=message.trigger_id)
        if not same.filter(is_current=True, verdict=Output.Verdict.APPROVED).exists():
            return no("Nothing that is approved is left to send.")
    return _operator(message.department_id, access)


def can_note_sent(output: Output, access: Access | None = None) -> Allowed:
    """Say that one has sent an approved output by hand. ``item`` of the output is read."""
    if output.verdict != Output.Verdict.APPROVED:
        return no("Nobody has approved it.")
    if has_left(output):
        return no("It has left already, or may have.")
    return _operator(output.item.department_id, access)


def family_of(message: OutboxMessage) -> list[OutboxMessage]:
    """Every message of its item for the same purpose and occasion, the first one first."""
    first = message.key.partition(AGAIN)[0]
    rows = OutboxMessage.objects.filter(item=message.item_id, key__startswith=first).order_by("pk")
    return [row for row in rows if row.key.partition(AGAIN)[0] == first]


def _operator(department_id: int, access: Access | None) -> Allowed:
    if access is None or access.can(department_id, Role.OPERATOR):
        return YES
    return no("This takes the role of an operator.")
