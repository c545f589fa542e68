"""The sender against a real mail server: one mail each, whatever happens meanwhile."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.utils import timezone
from django_q.models import OrmQ

from agents.models import Department, Installation
from config.checks import check_sending
from runs import departures, outbox, send_situation, sending
from runs.database import now as database_now
from runs.models import Alert, Item, LogEntry, Message, OutboxMessage, Output, Review, Sender, Suppression, Trigger
from runs.triggers import record_reply
from tests.engine import in_threads
from tests.factories import make_lead, make_message, make_output
from tests.mail_server import MailServer, mail_server
from tests.runs.mailing import WORKER, approved, claim, claimed, make_channel, make_sender, status_of

pytestmark = pytest.mark.django_db(transaction=True)
Status = OutboxMessage.Status


@pytest.fixture
def server(settings: Any) -> Iterator[MailServer]:
    """The mail server that Kontor sends over."""
    with mail_server() as running:
        settings.EMAIL_BACKEND = "django.core.mail.backends.smtp.EmailBackend"
        settings.EMAIL_HOST, settings.EMAIL_PORT = "127.0.0.1", running.port
        settings.EMAIL_IS_CONFIGURED = True
        settings.SEND_TIMEOUT_SECONDS = 0.5
        yield running


@pytest.fixture
def department() -> Department:
    return make_sender()


def send_all() -> int:
    return sending.send_due(worker=WORKER)


def fresh(row: OutboxMessage) -> OutboxMessage:
    return OutboxMessage.objects.get(pk=row.pk)


class TestSending:
    def test_what_was_approved_is_sent_once_exactly_as_it_was_rendered(
        self, server: MailServer, department: Department
    ) -> None:
        row = approved(department)
        assert send_all() == 1
        assert send_all() == 0
        [mail] = server.taken
        assert (mail["To"], mail["From"]) == (row.address, "Mara Lindqvist <mara@tallyport.example>")
        assert mail["Subject"] == "Your freight invoices"
        assert mail["Message-ID"] == row.rendered["headers"]["Message-ID"]
        assert mail["List-Unsubscribe-Post"] == "List-Unsubscribe=One-Click"
        assert "Dear Ms Weber" in str(mail.get_payload())
        row = fresh(row)
        assert (row.status, row.attempt, row.lease_token) == (Status.SENT, 1, None)
        assert row.sent_at is not None

    def test_a_sent_mail_is_part_of_the_conversation_and_sets_off_what_follows(
        self, server: MailServer, department: Department
    ) -> None:
        row = approved(department)
        send_all()
        message = Message.objects.get(item=row.item, direction="out")
        assert (message.output, message.message_id) == (row.output, row.rendered["headers"]["Message-ID"])
        assert Trigger.objects.filter(item=row.item, kind="follow_up", due_at__gt=timezone.now()).count() == 1
        row.item.refresh_from_db()
        assert row.item.status == "contacted"

    def test_a_mail_by_hand_is_sent_from_a_paused_item(self, server: MailServer, department: Department) -> None:
        item = make_lead(department, automation="paused").item
        row = outbox.write_manual(item=item, user=User.objects.create(username="olga"), subject="Hi", body="A word.")
        assert send_all() == 1
        assert server.taken[0]["Subject"] == "Hi"
        assert Message.objects.get(item=item).author == row.approved_by

    def test_a_message_in_its_undo_time_stays(self, server: MailServer, department: Department) -> None:
        approved(department, release_at=timezone.now() + timedelta(seconds=30))
        assert send_all() == 0
        assert not server.taken

    def test_a_reply_is_threaded(self, server: MailServer, department: Department) -> None:
        item = make_lead(department).item
        earlier = timezone.now() - timedelta(hours=1)
        make_message(item, "out", message_id="<a@x.example>", at=earlier)
        make_message(item, "in", message_id="<b@y.example>", at=earlier + timedelta(minutes=1))
        approved(item=item)
        send_all()
        assert server.taken[0]["In-Reply-To"] == "<b@y.example>"
        assert server.taken[0]["References"] == "<a@x.example> <b@y.example>"


class TestServersThatMisbehave:
    @pytest.mark.parametrize("answer", ["550 5.1.1 No such user", "553 Not here"])
    def test_an_address_that_is_refused_for_good_is_a_bounce(
        self, server: MailServer, department: Department, answer: str
    ) -> None:
        row = approved(department)
        server.rcpt = answer
        assert send_all() == 0
        row = fresh(row)
        assert row.status == Status.FAILED
        assert answer[4:] in row.error
        assert Suppression.objects.get().reason == Suppression.Reason.BOUNCE
        assert "could not be sent" in Item.objects.get(pk=row.item_id).flag
        assert Alert.objects.filter(kind="failure").exists()

    @pytest.mark.parametrize(("step", "answer"), [("rcpt", "451 4.7.1 Greylisted"), ("data", "452 4.3.1 Disk full")])
    def test_what_is_put_off_is_tried_again_later(
        self, server: MailServer, department: Department, step: str, answer: str
    ) -> None:
        row = approved(department)
        setattr(server, step, answer)
        assert send_all() == 0
        held = fresh(row)
        assert (held.status, held.attempt) == (Status.PENDING, 1)
        assert answer[4:] in held.waiting_for
        assert held.release_at > timezone.now() + timedelta(seconds=30)
        setattr(server, step, "250 OK")
        OutboxMessage.objects.update(release_at=timezone.now())
        assert send_all() == 1
        assert len(server.taken) == 1

    def test_a_mail_that_is_refused_after_it_was_shown_has_failed(
        self, server: MailServer, department: Department
    ) -> None:
        row = approved(department)
        server.data = "554 5.7.1 Spam"
        send_all()
        assert status_of(row) == Status.FAILED
        assert not Suppression.objects.exists()

    def test_a_server_that_hangs_up_before_the_mail_is_tried_again(
        self, server: MailServer, department: Department
    ) -> None:
        row = approved(department)
        server.drop_at = "rcpt"
        send_all()
        assert status_of(row) == Status.PENDING

    @pytest.mark.parametrize("fault", ["drop_at", "stall_at"])
    def test_a_server_that_falls_silent_with_the_mail_makes_it_unsure(
        self, server: MailServer, department: Department, fault: str
    ) -> None:
        row = approved(department)
        setattr(server, fault, "data")
        assert send_all() == 0
        assert status_of(row) == Status.UNKNOWN
        review = Review.objects.get(outbox=row)
        assert (review.kind, review.status) == ("unsure_send", "open")
        setattr(server, fault, "")
        assert send_all() == 0
        assert len(server.taken) == 1

    def test_no_server_at_all_is_tried_again(self, department: Department, settings: Any) -> None:
        settings.EMAIL_BACKEND = "django.core.mail.backends.smtp.EmailBackend"
        settings.EMAIL_HOST, settings.EMAIL_PORT, settings.EMAIL_IS_CONFIGURED = "127.0.0.1", 9, True
        row = approved(department)
        send_all()
        assert (status_of(row), fresh(row).attempt) == (Status.PENDING, 1)

    def test_tries_come_to_an_end(self, server: MailServer, department: Department) -> None:
        row = approved(department, attempt=sending.MAX_ATTEMPTS - 1)
        server.rcpt = "451 4.7.1 Greylisted"
        send_all()
        assert status_of(row) == Status.FAILED


class TestWaiting:
    def test_a_held_department_keeps_its_mails_and_says_so(self, server: MailServer, department: Department) -> None:
        row = approved(department)
        Department.objects.update(state="holding_sends", state_reason="Too many bounces.")
        assert send_all() == 0
        assert fresh(row).waiting_for == "Sales is holding sends: Too many bounces."
        Department.objects.update(state="running")
        assert send_all() == 1  # at once: it was not put off

    def test_the_switch_of_the_installation_holds_every_department(
        self, server: MailServer, department: Department
    ) -> None:
        row = approved(department)
        Installation.objects.update_or_create(pk=1, defaults={"state": "stopped", "state_reason": "Audit."})
        assert send_all() == 0
        assert fresh(row).waiting_for == "The installation is stopped: Audit."

    def test_without_a_channel_mails_wait_until_there_is_one(self, server: MailServer) -> None:
        item = make_lead().item
        row = approved(item=item)
        assert send_all() == 0
        assert "an administrator sets it up" in fresh(row).waiting_for
        make_channel(item.department)
        assert send_all() == 1
        assert server.taken[0]["From"] == "Mara Lindqvist <mara@tallyport.example>"

    def test_the_rate_limit_holds_for_two_senders_together(self, server: MailServer, department: Department) -> None:
        for _ in range(5):
            approved(department)
        department.channels.update(per_minute=3)
        in_threads(lambda _: send_all(), 2)
        assert len(server.taken) == 3
        waiting = OutboxMessage.objects.filter(status=Status.PENDING)
        assert {row.waiting_for for row in waiting} == {"3 have left in a minute, which is the most."}
        assert all(row.release_at > timezone.now() for row in waiting)

    def test_a_paused_item_keeps_its_mail(self, server: MailServer, department: Department) -> None:
        row = approved(department)
        Item.objects.update(automation="paused")
        assert send_all() == 0
        assert "paused" in fresh(row).waiting_for


class TestWhatComesBetween:
    def test_a_reply_after_the_approval_takes_the_mail_back_to_a_person(
        self, server: MailServer, department: Department
    ) -> None:
        row = approved(department)
        record_reply(item=row.item, body="Please wait.")
        assert send_all() == 0
        assert not server.taken
        assert status_of(row) == Status.WITHDRAWN
        review = Review.objects.get(item=row.item, status="open")
        # It may not be approved as it is, so nobody is asked whether it shall be sent.
        assert review.ask.startswith("A reply came in after it was approved. What shall become of the first mail to")
        assert Output.objects.get(outbox=row).verdict == Output.Verdict.NONE

    def test_a_reply_takes_back_a_mail_that_waits_for_the_morning_as_well(
        self, server: MailServer, department: Department
    ) -> None:
        row = approved(department, release_at=timezone.now() + timedelta(hours=8))
        record_reply(item=row.item, body="Please wait.")
        assert send_all() == 0
        assert (status_of(row), server.taken) == (Status.WITHDRAWN, [])

    def test_a_reply_that_was_written_earlier_but_came_in_later_counts_as_well(
        self, server: MailServer, department: Department
    ) -> None:
        row = approved(department)
        record_reply(item=row.item, body="Please wait.", at=timezone.now() - timedelta(hours=1))
        assert send_all() == 0
        assert status_of(row) == Status.WITHDRAWN

    def test_an_address_that_was_suppressed_meanwhile_gets_nothing(
        self, server: MailServer, department: Department
    ) -> None:
        row = approved(department)
        Suppression.objects.create(address="@example.com", reason="manual")
        assert send_all() == 0
        assert (status_of(row), not server.taken) == (Status.WITHDRAWN, True)
        assert "@example.com" in fresh(row).reason

    def test_an_address_that_came_in_after_the_approval_is_approved_first(
        self, server: MailServer, department: Department
    ) -> None:
        item = make_lead(department, email="").item
        row = approved(department, item=item, address="")
        assert send_all() == 0
        assert (status_of(row), fresh(row).waiting_for) == (Status.PENDING, "Nobody knows the address.")
        item.lead.email = "somebody.else@example.com"
        item.lead.save(update_fields=["email"])
        OutboxMessage.objects.filter(pk=row.pk).update(release_at=timezone.now())
        assert send_all() == 0
        assert (status_of(row), server.taken) == (Status.WITHDRAWN, [])
        review = Review.objects.get(output=row.output, status=Review.Status.OPEN)
        assert "somebody.else@example.com came in since. Shall the first mail" in review.ask

    def test_who_has_asked_under_another_address_gets_nothing(self, server: MailServer, department: Department) -> None:
        row = approved(department)
        Item.objects.filter(pk=row.item_id).update(tags=["suppressed"])
        assert send_all() == 0
        assert (status_of(row), server.taken) == (Status.WITHDRAWN, [])
        assert "asked not to be written to" in fresh(row).reason

    def test_an_output_that_was_replaced_is_not_sent(self, server: MailServer, department: Department) -> None:
        row = approved(department)
        Output.objects.filter(outbox=row).update(is_current=False)
        assert send_all() == 0
        assert status_of(row) == Status.WITHDRAWN

    def test_what_a_rule_approved_goes_to_a_person_until_five_were_sent(
        self, server: MailServer, department: Department
    ) -> None:
        row = approved(department, approved_by=None)
        assert send_all() == 0
        assert status_of(row) == Status.WITHDRAWN
        assert "Shall the first mail to" in Review.objects.get(output=row.output, kind="draft", status="open").ask
        for _ in range(outbox.PROVEN_SENDS):
            approved(department)
        assert send_all() == outbox.PROVEN_SENDS
        again = approved(department, approved_by=None)
        assert send_all() == 1
        assert status_of(again) == Status.SENT


class TestRaces:
    def test_two_senders_send_each_mail_once(self, server: MailServer, department: Department) -> None:
        rows = [approved(department) for _ in range(12)]
        assert sum(in_threads(lambda _: send_all(), 2)) == 12
        assert sorted(server.ids()) == sorted(row.rendered["headers"]["Message-ID"] for row in rows)

    def test_undo_and_sender_agree_who_was_first(self, server: MailServer, department: Department) -> None:
        user = User.objects.create(username="ulla")
        for _ in range(6):
            row = approved(department)
            server.taken.clear()

            def act(number: int, row: OutboxMessage = row) -> bool:
                return bool(send_all()) if number else outbox.withdraw(message=row, user=user)

            undone, sent = in_threads(act, 2)
            assert undone != sent
            assert len(server.taken) == sent
            assert status_of(row) == (Status.SENT if sent else Status.WITHDRAWN)

    def test_reply_and_sender_agree_who_was_first(self, server: MailServer, department: Department) -> None:
        for _ in range(6):
            row = approved(department)
            server.taken.clear()

            def act(number: int, row: OutboxMessage = row) -> bool:
                return bool(send_all()) if number else bool(record_reply(item=row.item, body="Stop, please."))

            _, sent = in_threads(act, 2)
            assert len(server.taken) == sent
            assert status_of(row) == (Status.SENT if sent else Status.WITHDRAWN)


class TestLostSenders:
    def test_a_message_found_in_sending_is_unsure_and_not_sent_again(
        self, server: MailServer, department: Department
    ) -> None:
        row = claimed(approved(department))
        OutboxMessage.objects.update(lease_expires_at=timezone.now() - timedelta(seconds=1))
        assert send_all() == 0
        assert status_of(row) == Status.UNKNOWN
        assert "was lost" in Review.objects.get(outbox=row).ask
        assert not server.taken

    def test_a_live_lease_is_left_alone(self, department: Department, server: MailServer) -> None:
        row = claimed(approved(department))
        assert sending.reap() == 0
        assert status_of(row) == Status.SENDING

    def test_a_lease_far_in_the_future_counts_as_run_out(self, department: Department, server: MailServer) -> None:
        row = claimed(approved(department))
        OutboxMessage.objects.update(lease_expires_at=timezone.now() + timedelta(days=1))
        assert sending.reap() == 1
        assert status_of(row) == Status.UNKNOWN

    def test_a_sender_that_wakes_up_too_late_sends_nothing(self, server: MailServer, department: Department) -> None:
        row = claimed(approved(department))
        OutboxMessage.objects.update(lease_expires_at=timezone.now() - timedelta(seconds=1))
        sending.reap()
        assert not sending.send(row)
        assert not server.taken
        # It knows that it has not sent it, so nobody need be asked.
        assert status_of(row) == Status.PENDING
        assert Review.objects.get(outbox=row).status == Review.Status.WITHDRAWN

    def test_a_late_but_clear_answer_still_counts(self, server: MailServer, department: Department) -> None:
        row = claimed(approved(department))
        OutboxMessage.objects.update(lease_expires_at=timezone.now() - timedelta(seconds=1))
        sending.reap()
        assert departures.record_sent(row)
        assert status_of(row) == Status.SENT
        assert Review.objects.get(outbox=row).status == Review.Status.WITHDRAWN

    def test_a_sender_whose_message_a_person_has_settled_writes_nothing(
        self, server: MailServer, department: Department
    ) -> None:
        row = claimed(approved(department))
        OutboxMessage.objects.update(lease_expires_at=timezone.now() - timedelta(seconds=1))
        sending.reap()
        user = User.objects.create(username="ulla")
        assert departures.settle_unknown(message=fresh(row), user=user, was_sent=True)
        assert not departures.record_sent(row)
        assert not sending.send(row)
        assert Message.objects.filter(item=row.item, direction="out").count() == 1

    def test_an_unsure_message_that_may_be_repeated_is_tried_again(self, department: Department) -> None:
        make_channel(department, "crm")
        row = approved(department, channel="crm", purpose="crm_update", key="1:crm_update")
        OutboxMessage.objects.update(status=Status.SENDING, lease_token="0" * 32, lease_expires_at=timezone.now())
        assert sending.reap() == 1
        assert status_of(row) == Status.PENDING


class TestQueue:
    def test_one_task_is_queued_while_something_is_due(self, server: MailServer, department: Department) -> None:
        assert not sending.queue_due()
        approved(department)
        assert sending.queue_due()
        assert not sending.queue_due()
        assert [task.task["func"] for task in OrmQ.objects.all()] == [sending.SEND_DUE]

    def test_another_task_is_queued_when_the_sender_was_lost(self, server: MailServer, department: Department) -> None:
        approved(department)
        sending.queue_due()
        Sender.objects.update(asked_at=database_now() - 2 * sending.ASKED)
        assert sending.queue_due()

    def test_what_is_held_asks_for_no_sender(self, server: MailServer, department: Department) -> None:
        approved(department)
        Department.objects.update(state="stopped")
        assert not sending.queue_due()

    def test_a_sender_that_has_ended_makes_place_for_the_next(self, server: MailServer, department: Department) -> None:
        approved(department)
        sending.queue_due()
        send_all()
        approved(department)
        assert sending.queue_due()


@pytest.mark.parametrize(("lease", "count"), [(120, 0), (89, 1)])
def test_a_lease_shorter_than_a_sending_is_a_mistake_in_the_settings(settings: Any, lease: int, count: int) -> None:
    settings.SEND_TIMEOUT_SECONDS, settings.SEND_LEASE_SECONDS = 15, lease
    assert len(check_sending(None)) == count


def test_nothing_is_claimed_when_nothing_is_due(department: Department) -> None:
    assert claim() is None
    assert not LogEntry.objects.filter(kind="outbox").exists()


def test_a_message_that_cannot_be_looked_at_does_not_hold_up_others(
    server: MailServer, department: Department, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken, row = approved(department), approved(department)
    look = send_situation.situation

    def fail(message: OutboxMessage, *args: Any, **kwargs: Any) -> Any:
        if message == broken:
            raise RuntimeError("no fields")
        return look(message, *args, **kwargs)

    monkeypatch.setattr(sending, "situation", fail)
    assert send_all() == 1
    assert status_of(row) == Status.SENT
    assert "no fields" in fresh(broken).waiting_for
    assert not server.ids().count(str(broken.rendered["headers"]["Message-ID"]))


def test_a_kind_that_cannot_say_what_follows_does_not_undo_a_sending(
    server: MailServer, department: Department, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = approved(department)

    def fail(*args: object, **kwargs: object) -> None:
        raise RuntimeError("the kind is broken")

    monkeypatch.setattr("runs.departures.dispatch.route", fail)
    assert send_all() == 1
    assert status_of(row) == Status.SENT
    assert Message.objects.filter(item=row.item, direction="out").count() == 1
    assert Item.objects.get(pk=row.item_id).route_due_at is not None


def test_an_unapproved_output_is_never_written(department: Department) -> None:
    item = make_lead(department).item
    make_output(item, "email")
    assert not OutboxMessage.objects.exists()
