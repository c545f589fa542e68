"""What is written into the outbox: with the approval, one row for one purpose, exactly what will be sent."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core import signing
from django.db import IntegrityError, transaction
from django.utils import timezone

from agents.models import Department
from agents.souls import create_draft, publish
from agents.spec import Send
from runs import outbox
from runs.models import Action, Item, LogEntry, OutboxMessage, Output
from runs.staff import Desk, load_staff
from tests.engine import in_threads
from tests.factories import (
    make_agent_run,
    make_department,
    make_lead,
    make_message,
    make_output,
    make_rule,
    make_soul,
    make_trigger,
    make_user,
)
from tests.runs.mailing import SENDER, make_channel, make_sender

pytestmark = pytest.mark.django_db(transaction=True)
Status = OutboxMessage.Status
FIRST = Send("email", "first_mail", {"subject": "Your\ninvoices", "body": "Dear Ms Weber"})


@pytest.fixture
def department() -> Department:
    return make_sender()


@pytest.fixture
def rita(department: Department) -> User:
    return make_user("rita", department=department)


def mail_of(department: Department, **fields: Any) -> Output:
    return make_output(make_lead(department).item, "email", verdict=Output.Verdict.APPROVED, **fields)


def desk_of(output: Output) -> Desk:
    return load_staff().desks[output.item.department_id]


def write(output: Output, user: User | None = None, effect: Send = FIRST) -> list[LogEntry]:
    with transaction.atomic():
        item = Item.objects.select_for_update().get(pk=output.item_id)
        return outbox.write_message(item, output, effect, desk_of(output), now=timezone.now(), approved_by=user)


class TestWriting:
    def test_the_row_holds_exactly_what_will_be_sent(self, department: Department, rita: User) -> None:
        output = mail_of(department)
        write(output, rita)
        row = OutboxMessage.objects.get()
        assert (row.key, row.status, row.approved_by) == (f"{output.item_id}:first_mail", Status.PENDING, rita)
        assert row.rendered["subject"] == "Your invoices"
        assert (row.rendered["from"], row.rendered["to"]) == (SENDER, row.address)
        headers = row.rendered["headers"]
        assert headers["Message-ID"].endswith("@tallyport.example>")
        assert headers["List-Unsubscribe-Post"] == "List-Unsubscribe=One-Click"
        token = headers["List-Unsubscribe"].split("/")[-2]
        assert signing.loads(token, salt=outbox.UNSUBSCRIBE_SALT)["address"] == row.address

    def test_it_leaves_when_the_time_to_undo_is_over(self, department: Department, rita: User) -> None:
        department.channels.update(undo_seconds=90)
        before = timezone.now()
        write(mail_of(department), rita)
        assert OutboxMessage.objects.get().release_at >= before + timedelta(seconds=90)

    def test_an_output_that_nobody_approved_is_not_written(self, department: Department) -> None:
        [entry] = write(make_output(make_lead(department).item, "email"))
        assert "nobody has approved" in entry.text
        assert not OutboxMessage.objects.exists()

    def test_each_occasion_has_a_message_of_its_own(self, department: Department, rita: User) -> None:
        item = make_lead(department).item
        for _ in range(2):
            trigger = make_trigger(item, "follow_up")
            output = make_output(item, "email", trigger=trigger, verdict=Output.Verdict.APPROVED)
            write(output, rita, Send("email", "follow_up", {"subject": "s", "body": "b"}))
        keys = OutboxMessage.objects.values_list("key", "trigger")
        assert {key for key, _ in keys} == {f"{item.pk}:follow_up:{trigger}" for _, trigger in keys}

    @pytest.mark.parametrize("status", ["withdrawn", "failed", "pending"])
    def test_another_approval_uses_the_same_row_while_nothing_has_left(
        self, department: Department, rita: User, status: str
    ) -> None:
        output = mail_of(department)
        write(output, rita)
        OutboxMessage.objects.update(status=status, error="550", reason="x", waiting_for="y")
        first = OutboxMessage.objects.get()
        write(output, rita, Send("email", "first_mail", {"subject": "Better", "body": "b"}))
        row = OutboxMessage.objects.get()
        assert (row.pk, row.status, row.error, row.reason) == (first.pk, Status.PENDING, "", "")
        assert row.rendered["subject"] == "Better"
        assert row.rendered["headers"]["Message-ID"] == first.rendered["headers"]["Message-ID"]

    @pytest.mark.parametrize("status", ["sending", "sent", "unknown"])
    def test_what_has_left_or_may_have_is_not_written_again(
        self, department: Department, rita: User, status: str
    ) -> None:
        output = mail_of(department)
        write(output, rita)
        lease = {"lease_token": "0" * 32, "lease_expires_at": timezone.now()}
        OutboxMessage.objects.update(status=status, **lease)
        before = OutboxMessage.objects.values().get()
        [entry] = write(output, rita, Send("email", "first_mail", {"subject": "Better", "body": "b"}))
        assert entry.text.startswith("Not sent again: the first mail")
        assert OutboxMessage.objects.values().get() == before

    def test_the_database_refuses_a_second_row_of_a_key(self, department: Department, rita: User) -> None:
        write(mail_of(department), rita)
        row = OutboxMessage.objects.get()
        row.pk = None
        with pytest.raises(IntegrityError), transaction.atomic():
            row.save(force_insert=True)

    def test_an_update_without_a_crm_goes_nowhere_and_says_so(self, department: Department) -> None:
        output = mail_of(department)
        [entry] = write(output, None, Send("crm", "crm_update", {"stage": "won"}))
        assert "has no crm channel" in entry.text
        make_channel(department, "crm")
        write(output, None, Send("crm", "crm_update", {"stage": "won"}))
        assert OutboxMessage.objects.get().rendered["data"] == {"stage": "won"}

    def test_a_channel_that_does_not_exist_breaks_nothing(self, department: Department, rita: User) -> None:
        [entry] = write(mail_of(department), rita, Send("pigeon", "first_mail", {}))
        assert "has no pigeon channel" in entry.text

    def test_the_thread_is_that_of_the_conversation(self, department: Department, rita: User) -> None:
        output = mail_of(department)
        make_message(output.item, "in", message_id="<b@y.example>")
        write(output, rita)
        assert OutboxMessage.objects.get().rendered["headers"]["In-Reply-To"] == "<b@y.example>"


class TestByHand:
    def test_a_mail_by_hand_is_written_with_its_action(self, department: Department, rita: User) -> None:
        item = make_lead(department, automation="taken_over").item
        row = outbox.write_manual(item=item, user=rita, subject="Hello", body="A word")
        assert (row.status, row.output, row.purpose) == (Status.PENDING, None, "manual")
        assert Action.objects.get().verb == "write_mail"

    def test_the_same_words_twice_are_one_mail(self, department: Department, rita: User) -> None:
        item = make_lead(department).item
        rows = in_threads(lambda _: outbox.write_manual(item=item, user=rita, subject="Hello", body="A word"), 3)
        assert len({row.pk for row in rows}) == OutboxMessage.objects.count() == 1
        outbox.write_manual(item=item, user=rita, subject="Hello", body="Another word")
        assert OutboxMessage.objects.count() == 2


class TestTakingBack:
    def test_it_is_taken_back_once(self, department: Department, rita: User) -> None:
        write(mail_of(department), rita)
        row = OutboxMessage.objects.get()
        assert sorted(in_threads(lambda _: outbox.withdraw(message=row, user=rita), 3)) == [False, False, True]
        assert OutboxMessage.objects.get().status == Status.WITHDRAWN
        assert Action.objects.filter(verb="withdraw").count() == 1


def test_a_message_that_failed_and_is_approved_again_begins_anew(department: Department, rita: User) -> None:
    output = mail_of(department)
    write(output, rita)
    OutboxMessage.objects.update(status=Status.FAILED, attempt=10, bounced_at=timezone.now(), error="550")
    write(output, rita)
    row = OutboxMessage.objects.get()
    assert (row.status, row.attempt, row.bounced_at, row.error) == (Status.PENDING, 0, None, "")


class TestProof:
    def fill(self, department: Department, rita: User | None, count: int, configuration: str = "c") -> None:
        for _ in range(count):
            write(mail_of(department), rita)
        OutboxMessage.objects.update(status=Status.SENT, configuration=configuration)

    def test_five_sends_that_a_person_approved_prove_a_configuration(self, department: Department, rita: User) -> None:
        self.fill(department, rita, 4)
        assert not outbox.is_proven(department, "c")
        self.fill(department, rita, 1)
        assert outbox.is_proven(department, "c")
        assert not outbox.is_proven(department, "other")
        assert not outbox.is_proven(make_department(slug="second"), "c")

    def test_what_a_rule_approved_proves_nothing(self, department: Department) -> None:
        self.fill(department, None, 6)
        assert not outbox.is_proven(department, "c")

    def test_a_changed_rule_model_or_soul_is_another_configuration(self, department: Department) -> None:
        output = mail_of(department)
        seen = {outbox.configuration_of(desk_of(output))}
        make_rule(department)
        seen.add(outbox.configuration_of(desk_of(output)))
        department.agents.filter(slug="writer").update(model="claude-opus-5-5")
        seen.add(outbox.configuration_of(desk_of(output)))
        sections = {"identity": "You write.", "responsibilities": "Mails.", "prohibitions": "None."}
        draft = create_draft(agent=department.agents.get(slug="writer"), sections=sections, author=None, note="")
        publish(soul=draft, author=None)
        seen.add(outbox.configuration_of(desk_of(output)))
        assert len(seen) == 4

    def test_a_setting_that_agents_are_told_is_another_configuration_and_any_other_is_not(
        self, department: Department
    ) -> None:
        output = mail_of(department)
        before = outbox.configuration_of(desk_of(output))
        for told in ("icp", "brand_guide"):
            Department.objects.update(settings={told: "Somebody else."})
            assert outbox.configuration_of(desk_of(output)) != before, told
        Department.objects.update(settings={"stop_rules": ["reply"]})
        assert outbox.configuration_of(desk_of(output)) == before

    def test_the_order_of_rules_decides_nothing(self, department: Department) -> None:
        output = mail_of(department)
        before = outbox.configuration_of(desk_of(output))
        department.rules.filter(name="Follow up").update(position=1)
        department.rules.exclude(name="Follow up").update(position=2)
        assert outbox.configuration_of(desk_of(output)) == before

    def test_what_an_older_soul_has_drafted_proves_nothing_for_the_new_one(
        self, department: Department, rita: User
    ) -> None:
        output, writer = mail_of(department), department.agents.get(slug="writer")
        soul = make_soul(writer, number=7, status="retired")
        run = make_agent_run(output.item, "writer", status="done", soul=soul)
        draft = make_output(output.item, "draft", agent_run=run)
        Output.objects.filter(pk=output.pk).update(made_from=[draft.pk])
        output.refresh_from_db()
        assert outbox.configuration_behind(output, desk_of(output)) == ""
        write(output, rita)
        assert OutboxMessage.objects.get().configuration == ""
        run.soul = writer.souls.get(status="published")
        run.save()
        assert outbox.configuration_behind(output, desk_of(output)) == outbox.configuration_of(desk_of(output))
