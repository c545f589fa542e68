"""What became of a message is written down once: by the sender, or by the first person who knows."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from django.contrib.auth.models import User
from django.utils import timezone

from agents.models import Department
from leads.models import Lead
from runs import departures
from runs.models import Action, Alert, Item, Message, OutboxMessage, Review, Suppression, Trigger
from runs.outbox import Status
from tests.engine import in_threads
from tests.factories import make_user
from tests.runs.mailing import approved, make_sender, status_of

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def department() -> Department:
    return make_sender()


@pytest.fixture
def ulla(department: Department) -> User:
    return make_user("ulla", department=department)


def unsure(department: Department) -> OutboxMessage:
    row = approved(department)
    OutboxMessage.objects.filter(pk=row.pk).update(
        status=Status.SENDING, lease_token="7" * 32, lease_expires_at=timezone.now()
    )
    row.refresh_from_db()
    assert departures.record_unknown(row, why="Its sender was lost.")
    row.refresh_from_db()
    return row


def test_an_unsure_message_asks_a_person_once(department: Department) -> None:
    row = unsure(department)
    assert not departures.record_unknown(row, why="Again.")
    review = Review.objects.get()
    assert (review.kind, review.outbox, review.risk) == ("unsure_send", row, 3)
    assert row.address in review.ask


@pytest.mark.parametrize(("was_sent", "status", "mails"), [(True, "sent", 1), (False, "pending", 0)])
def test_the_first_person_settles_it(
    department: Department, ulla: User, was_sent: bool, status: str, mails: int
) -> None:
    row = unsure(department)
    told = in_threads(lambda _: departures.settle_unknown(message=row, user=ulla, was_sent=was_sent), 3)
    assert sorted(told) == [False, False, True]
    assert status_of(row) == status
    assert Message.objects.filter(item=row.item, direction="out").count() == mails
    assert Trigger.objects.filter(item=row.item, kind="follow_up").count() == mails
    review = Review.objects.get()
    assert (review.status, review.answered_by) == ("answered", ulla)
    assert Action.objects.filter(verb="settle_unsure").count() == 1


def test_two_who_say_otherwise_are_not_both_right(department: Department, ulla: User) -> None:
    for _ in range(4):
        row = unsure(department)

        def say(number: int, row: OutboxMessage = row) -> bool:
            return departures.settle_unknown(message=row, user=ulla, was_sent=bool(number))

        told = in_threads(say, 2)
        assert sorted(told) == [False, True]
        assert status_of(row) == ("sent" if told[1] else "pending")


def test_a_mail_sent_by_hand_does_not_leave_again(department: Department, ulla: User) -> None:
    row = approved(department)
    assert sorted(in_threads(lambda _: departures.mark_sent(message=row, user=ulla), 3)) == [False, False, True]
    assert status_of(row) == Status.SENT
    assert (
        Message.objects.get(item=row.item, direction="out").message_id == ""
    )  # it had another one, which nobody knows


@pytest.mark.parametrize("status", ["sending", "sent", "unknown", "withdrawn"])
def test_by_hand_is_refused_for_what_has_left_or_was_taken_back(
    department: Department, ulla: User, status: str
) -> None:
    row = approved(department)
    OutboxMessage.objects.update(status=status, lease_token="7" * 32, lease_expires_at=timezone.now())
    assert not departures.mark_sent(message=row, user=ulla)
    assert status_of(row) == status


def test_a_failure_is_told_and_a_bounce_suppressed(department: Department) -> None:
    row = unsure(department)
    assert departures.record_failure(row, why="550 No such user", is_bounce=True)
    row.refresh_from_db()
    assert row.bounced_at is not None
    assert (row.status, row.sent_at) == (Status.FAILED, None)
    assert "550 No such user" in Item.objects.get(pk=row.item_id).flag
    assert Suppression.objects.get().address == row.address
    assert Review.objects.get().status == Review.Status.WITHDRAWN
    assert Alert.objects.filter(kind="failure").count() == 1


def test_another_is_refused_while_one_is_on_its_way_or_unsure(department: Department, ulla: User) -> None:
    row = unsure(department)
    assert departures.send_another(message=row, user=ulla) is None
    departures.settle_unknown(message=row, user=ulla, was_sent=True)
    again = departures.send_another(message=row, user=ulla, reason="It was lost.")
    assert again is not None
    assert (again.key, again.approved_by) == (f"{row.key}:again-2", ulla)
    assert departures.send_another(message=row, user=ulla) is None


def test_another_goes_to_the_address_that_is_known_now(department: Department, ulla: User) -> None:
    row = unsure(department)
    departures.settle_unknown(message=row, user=ulla, was_sent=True)
    Lead.objects.filter(pk=row.item_id).update(email="lena@new-house.example")
    again = departures.send_another(message=row, user=ulla, reason="She has moved.")
    assert again is not None
    assert again.address == again.rendered["to"] == "lena@new-house.example"
    row.refresh_from_db()
    assert row.address != again.address, "what was sent stays as it was sent"


def test_another_is_refused_for_what_is_no_longer_approved(department: Department, ulla: User) -> None:
    row = unsure(department)
    departures.settle_unknown(message=row, user=ulla, was_sent=True)
    assert row.output is not None
    row.output.is_current = False
    row.output.save()
    assert departures.send_another(message=row, user=ulla) is None


def test_another_is_refused_on_a_closed_item(department: Department, ulla: User) -> None:
    row = unsure(department)
    departures.settle_unknown(message=row, user=ulla, was_sent=True)
    Item.objects.filter(pk=row.item_id).update(automation="closed")
    assert departures.send_another(message=row, user=ulla) is None
    assert OutboxMessage.objects.count() == 1


@pytest.mark.parametrize(
    "end",
    [
        lambda row: departures.record_sent(row),
        lambda row: departures.record_failure(row, why="550"),
        lambda row: departures.put_back(row, why="451", until=timezone.now()),
        lambda row: departures.record_unknown(row, why="?"),
    ],
)
def test_who_has_lost_the_token_writes_nothing(department: Department, end: Callable[[OutboxMessage], bool]) -> None:
    row = unsure(department)
    OutboxMessage.objects.update(lease_token="8" * 32)
    before = OutboxMessage.objects.values().get()
    assert not end(row)
    assert OutboxMessage.objects.values().get() == before


def test_another_does_not_set_off_what_the_first_has_set_off(department: Department, ulla: User) -> None:
    row = unsure(department)
    departures.settle_unknown(message=row, user=ulla, was_sent=True)
    again = departures.send_another(message=row, user=ulla, reason="It was lost.")
    assert again is not None
    assert departures.mark_sent(message=again, user=ulla)
    assert Message.objects.filter(item=row.item, direction="out").count() == 2
    assert Trigger.objects.filter(item=row.item, kind="follow_up").count() == 1


def test_what_has_left_does_not_leave_again_although_a_person_said_it_had_not(
    department: Department, ulla: User
) -> None:
    row = unsure(department)
    assert departures.settle_unknown(message=OutboxMessage.objects.get(pk=row.pk), user=ulla, was_sent=False)
    assert departures.record_sent(row)
    assert status_of(row) == Status.SENT
