"""What may be done about a message that leaves the house, and why not."""

from __future__ import annotations

from typing import Any

import pytest

from agents.models import Member
from runs.access import access_for
from runs.allowed_sending import can_mark_sent, can_note_sent, can_send_another, can_settle, can_withdraw, family_of
from runs.models import Item, OutboxMessage, Output
from tests.factories import make_lead, make_outbox, make_output, make_user

pytestmark = pytest.mark.django_db
Status = OutboxMessage.Status


def message(status: str = "pending", **fields: Any) -> OutboxMessage:
    item = make_lead().item
    output = make_output(item, "email", verdict="approved")
    return make_outbox(item, status=status, **{"output": output, **fields})


@pytest.mark.parametrize("status", Status.values)
def test_each_verb_fits_some_states_and_says_why_it_fits_no_other(status: str) -> None:
    row = message(status)
    for check, fitting in (
        (can_withdraw, {"pending"}),
        (can_mark_sent, {"pending", "failed"}),
        (can_settle, {"unknown"}),
        (can_send_another, {"sent"}),
    ):
        found = check(row)
        assert bool(found) is (status in fitting), check.__name__
        assert bool(found.reason) is not bool(found)


def test_it_takes_an_operator() -> None:
    row = message()
    reviewer = make_user("rudi", department=row.department, role=Member.Role.REVIEWER)
    operator = make_user("olga", department=row.department)
    assert "operator" in can_withdraw(row, access_for(reviewer)).reason
    assert can_withdraw(row, access_for(operator))


def test_another_takes_an_open_item_an_approved_text_and_nothing_under_way() -> None:
    row = message("sent")
    assert row.output is not None
    second = make_outbox(row.item, output=row.output, key=f"{row.key}:again-2", status="pending")
    assert family_of(second) == [row, second]
    assert "on its way" in can_send_another(row).reason
    OutboxMessage.objects.filter(pk=second.pk).update(status="withdrawn")
    assert can_send_another(row)
    Output.objects.update(verdict="rejected")
    assert "Nothing that is approved" in can_send_another(row).reason
    row.item.automation = Item.Automation.CLOSED
    assert "closed" in can_send_another(row).reason
    row.channel = "crm"
    assert "machine" in can_send_another(row).reason


def test_a_key_that_begins_like_another_is_not_of_its_family() -> None:
    row = message("sent")
    make_outbox(row.item, output=row.output, key=f"{row.key}:7", status="pending")
    assert family_of(row) == [row]


def test_what_nobody_approved_or_what_has_left_was_not_sent_by_hand() -> None:
    output = make_output(make_lead().item, "email")
    assert "Nobody has approved" in can_note_sent(output).reason
    output.verdict = "approved"
    assert can_note_sent(output)
    make_outbox(output.item, output=output, status="unknown")
    assert "may have" in can_note_sent(output).reason
