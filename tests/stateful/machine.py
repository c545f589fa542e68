"""A random walk through everything that can happen to a department, with the real services on a real database.

A step is what one worker, one person or the outside world does. After each, all invariants are checked and every
status is compared with what it was before. Time passes when a rule says so: what lies ahead is brought forward.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar
from unittest.mock import patch

from django.contrib.auth.models import User
from django.db import transaction
from django.db.models import Model, QuerySet
from django.utils import timezone
from hypothesis import note
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from pydantic import ValidationError

from agents.causes import Cause
from agents.models import Department, ModelState
from runs import (
    by_hand,
    commits,
    control,
    departures,
    dispatch,
    incidents,
    leases,
    outbox,
    reruns,
    review_deadlines,
    reviews,
    rewrites,
    send_channels,
    sending,
    suppressions,
    switches,
)
from runs.models import AgentRun, AutoApproval, Channel, Item, Message, OutboxMessage, Output, Review, Trigger
from runs.payloads import Unfit
from runs.staff import load_staff
from runs.triggers import record_reply, request_run
from runs.work import Finished, Work
from tests.engine import answered, assert_accounts_agree, broken_off, make_office
from tests.factories import make_lead, make_trigger, make_user
from tests.stateful.channel import OUTCOMES, Died, RememberingChannel
from tests.stateful.invariants import read_statuses, violations, wrong_transitions
from tests.stateful.payloads import payload_for

RowT = TypeVar("RowT", bound=Model)
REACHED: Counter[str] = Counter()
"""How often something was done rather than refused, over all walks: one that is refused everything proves nothing."""
MAX_ITEMS = 4
MAX_ROUNDS = 40
NUMBER = st.integers(min_value=0, max_value=11)
REPLIES = ("interested", "not_now", "unsubscribe", "question")
CAUSES = st.sampled_from(
    [Cause.TIMEOUT, Cause.TRANSIENT, Cause.INVALID, Cause.REFUSAL, Cause.RATE_LIMITED, Cause.REQUEST, Cause.INTERNAL]
)


@dataclass(frozen=True, slots=True)
class World:
    """Where every walk begins; ``left`` is what has left the house already."""

    department: Department
    person: User
    left: Counter[str]


def make_world() -> World:
    """Three leads: one new, one whose first mail somebody is asked about, one that has answered its first mail."""
    department = make_office()
    settings = {"sender": "mara@example.com"}
    Channel.objects.create(department=department, kind="email", per_minute=0, daily_cap=0, settings=settings)
    person = make_user("olga", department=department, role="administrator")
    channel = RememberingChannel(Counter())
    with patch.dict(send_channels.CHANNELS, {"email": channel}):
        answered_one, asked_one = (make_new(department) for _ in range(2))
        work_off()
        assert reviews.approve(review=Review.objects.get(item=answered_one), user=person)
        OutboxMessage.objects.update(release_at=_past())
        row = sending.claim(worker="host:1")
        assert row is not None
        assert sending.send(row)
        record_reply(item=answered_one, body="Yes.", source="walk", delivery_id="walk-0")
        work_off()
    assert set(Review.objects.filter(status="open").values_list("item", flat=True)) == {answered_one.pk, asked_one.pk}
    make_new(department)
    return World(department, person, channel.left)


def make_new(department: Department) -> Item:
    """A lead that came in just now."""
    item = make_lead(department, route_due_at=timezone.now()).item
    make_trigger(item, "created")
    return item


def work_off(choice: int = 0, look: Callable[[], None] = lambda: None) -> None:
    """A good while without people: route, claim and answer until nothing is due."""
    for _ in range(MAX_ROUNDS):
        staff = load_staff()
        routed = dispatch.route_due(20, staff=staff)
        works = leases.claim(20, staff=staff, worker="host:2", is_alone=True)
        look()
        commits.commit([_answer(work, choice) for work in works], staff)
        if not routed and not works:
            return
        look()
    raise AssertionError("there is no end to what the router wants")


class OfficeWalk(RuleBasedStateMachine):
    """One department at work. Everything happens in one transaction, which is rolled back at the end."""

    world: World

    def __init__(self) -> None:
        super().__init__()
        self.transaction = transaction.atomic()
        self.transaction.__enter__()
        self.department, self.person = self.world.department, self.world.person
        self.channel = RememberingChannel(self.world.left)
        self.patches = ExitStack()
        self.patches.enter_context(patch.dict(send_channels.CHANNELS, {"email": self.channel}))
        # One mail has left before the walk begins: from then on rules may approve.
        self.patches.enter_context(patch.object(outbox, "PROVEN_SENDS", 1))
        self.works: list[Work] = []
        """Attempts that have not ended: also of runs that somebody has taken away meanwhile."""
        self.deliveries = 0
        # Pauses between tries are random: a walk must go the same way whenever it is taken.
        commits._spread.seed(0)
        self.seen = read_statuses()

    def teardown(self) -> None:
        """Let everything come to an end, and see that the accounts agree."""
        try:
            for work in self.works:
                commits.commit([_answer(work, 0)], load_staff())
            AgentRun.objects.filter(status=AgentRun.Status.RUNNING).update(lease_expires_at=_past())
            leases.reap()
            self._look()
            assert_accounts_agree()
        finally:
            self.patches.close()
            transaction.set_rollback(True)
            self.transaction.__exit__(None, None, None)

    @initialize(undo_seconds=st.sampled_from([0, 60]), is_automatic=st.booleans())
    def begin(self, undo_seconds: int, is_automatic: bool) -> None:
        """In half of the walks a rule approves most mails in a person's place."""
        Channel.objects.update(undo_seconds=undo_seconds)
        if is_automatic:
            AutoApproval.objects.create(
                department=self.department,
                agent=self.department.agents.get(slug="formatter"),
                name="Whatever comes",
                max_risk=3,
                sample_percent=20,
                is_enabled=True,
            )

    # --- The outside world ------------------------------------------------------------------------------------

    @rule()
    def new_lead(self) -> None:
        if Item.objects.count() < MAX_ITEMS:
            make_new(self.department)

    @rule(number=NUMBER, is_again=st.booleans())
    def reply(self, number: int, is_again: bool) -> None:
        """The person writes; some deliveries come twice."""
        self.deliveries += not (is_again and self.deliveries)
        item = self._pick(Item.objects.all(), number)
        if item is not None:
            record_reply(item=item, body="Yes.", source="walk", delivery_id=f"walk-{self.deliveries}")

    @rule(what=st.sampled_from(["runs", "outbox", "items", "everything"]))
    def time_passes(self, what: str) -> None:
        """What lies ahead is due now: retries, releases, follow-ups, pauses with an end."""
        now, late = timezone.now(), _past()
        if what in ("runs", "everything"):
            AgentRun.objects.filter(status=AgentRun.Status.QUEUED, due_at__gt=now).update(due_at=late)
            ModelState.objects.update(breaker=ModelState.Breaker.CLOSED, closed_until=None)
        if what in ("outbox", "everything"):
            OutboxMessage.objects.filter(status=OutboxMessage.Status.PENDING, release_at__gt=now).update(
                release_at=late
            )
        if what in ("items", "everything"):
            Trigger.objects.filter(status=Trigger.Status.OPEN, due_at__gt=now).update(due_at=late)
            Item.objects.filter(route_due_at__gt=now).update(route_due_at=late)
            Item.objects.filter(automation_until__gt=now).update(automation_until=late)
            control.resume_due()

    @rule(number=NUMBER, at_deadline=st.sampled_from(Review.AtDeadline.values))
    def deadline_passes(self, number: int, at_deadline: str) -> None:
        """Nobody has answered in time; and days later nothing has moved."""
        if review := self._pick(Review.objects.filter(status=Review.Status.OPEN), number):
            Review.objects.filter(pk=review.pk).update(deadline=_past(), at_deadline=at_deadline, reminded_at=None)
            _done(f"deadline:{at_deadline}", review_deadlines.act_on_deadlines())
        _done("fell_through", review_deadlines.ask_about_fallen(now=timezone.now() + timedelta(days=30)))

    # --- Workers ----------------------------------------------------------------------------------------------

    @rule()
    def route(self) -> None:
        _done("route", dispatch.route_due(10, staff=load_staff()))

    @rule(limit=st.integers(min_value=1, max_value=4))
    def claim(self, limit: int) -> None:
        self.works += leases.claim(limit, staff=load_staff(), worker="host:1", is_alone=True)

    @rule(number=NUMBER, choice=NUMBER)
    def answer(self, number: int, choice: int) -> None:
        """One attempt ends well; also one whose run was taken away."""
        work = self._work(number)
        if work is None:
            return
        self.works.remove(work)
        commits.commit([_answer(work, choice)], load_staff())

    @rule(choice=NUMBER, cause=CAUSES)
    def answer_together(self, choice: int, cause: Cause) -> None:
        """Several attempts end in one group, one of them badly."""
        if self._work(0) is None:
            return
        *good, bad = self.works
        self.works = []
        commits.commit([*(_answer(work, choice) for work in good), broken_off(bad, cause)], load_staff())

    @rule(number=NUMBER, cause=CAUSES, is_final=st.booleans())
    def fail(self, number: int, cause: Cause, is_final: bool) -> None:
        """One attempt ends badly, perhaps the last that is made."""
        work = self._work(number)
        if work is None:
            return
        self.works.remove(work)
        if is_final:
            AgentRun.objects.filter(pk=work.run_id).update(failures=3)
        commits.commit([broken_off(work, cause)], load_staff())

    @rule(number=NUMBER, is_late=st.booleans())
    def lose_lease(self, number: int, is_late: bool) -> None:
        """A worker dies, or only sleeps, and wakes up after its run was given to another."""
        work = self._work(number)
        if work is None:
            return
        AgentRun.objects.filter(pk=work.run_id, lease_token=work.token).update(lease_expires_at=_past())
        leases.reap()
        if not is_late:
            self.works.remove(work)

    @rule()
    def stop_worker(self) -> None:
        """The worker is told to stop and gives everything back."""
        leases.release(self.works)
        self.works = []

    @rule(choice=NUMBER)
    def work_off(self, choice: int) -> None:
        work_off(choice, self._compare)

    # --- The sender -------------------------------------------------------------------------------------------

    @rule(outcome=st.sampled_from(OUTCOMES), is_lost_before=st.booleans())
    def send(self, outcome: str, is_lost_before: bool) -> None:
        """One message is claimed. Its sender may be lost before or while it sends."""
        row = sending.claim(worker="host:3")
        if row is None:
            return
        self._compare()
        self._assert_may_leave(row)
        _done(f"send:{outcome}", not is_lost_before)
        _done("send:lost", is_lost_before)
        if is_lost_before:
            OutboxMessage.objects.filter(pk=row.pk).update(lease_expires_at=_past())
            sending.reap()
            self._compare()
        self.channel.next = outcome
        # Whoever was lost may wake up and go on: it must not send then.
        left = self.channel.left[row.key]
        with suppress(Died):
            sending.send(row)
        if is_lost_before:
            assert self.channel.left[row.key] == left, f"{row.key} was sent by a sender that had lost it"
        if outcome == "died":
            OutboxMessage.objects.filter(pk=row.pk, status=OutboxMessage.Status.SENDING).update(
                lease_expires_at=_past()
            )
            sending.reap()

    @rule(number=NUMBER)
    def settle_unknown(self, number: int) -> None:
        """A person has looked whether it arrived, and says how it is."""
        row = self._pick(OutboxMessage.objects.filter(status=OutboxMessage.Status.UNKNOWN), number)
        if row is not None:
            was_sent = self.channel.left[row.key] > 0
            _done("settle_unknown", departures.settle_unknown(message=row, user=self.person, was_sent=was_sent))

    @rule(number=NUMBER)
    def send_well(self, number: int) -> None:
        """Somebody approves what is asked, time passes, and it leaves."""
        if review := self._ask(number):
            reviews.approve(review=review, user=self.person)
            self._compare()
        self.time_passes("outbox")
        self.send("sent", is_lost_before=False)

    @rule(number=NUMBER, how=st.sampled_from(["withdraw", "send_another", "mark_sent"]))
    def handle_message(self, number: int, how: str) -> None:
        """A person takes a message back, wants another, or has sent it from their own mail client."""
        row = self._pick(OutboxMessage.objects.all(), number)
        if row is None:
            return
        if how == "withdraw":
            _done(how, outbox.withdraw(message=row, user=self.person))
        elif how == "send_another":
            _done(how, departures.send_another(message=row, user=self.person))
        elif row.output is not None:
            waiting = set(OutboxMessage.objects.exclude(status=OutboxMessage.Status.SENT).values_list("key", flat=True))
            _done(how, reviews.mark_sent(output=row.output, user=self.person))
            sent = OutboxMessage.objects.filter(key__in=waiting, status=OutboxMessage.Status.SENT)
            self.channel.left.update(sent.values_list("key", flat=True))

    @rule(number=NUMBER, is_mail=st.booleans())
    def write_mail_or_suppress(self, number: int, is_mail: bool) -> None:
        """A person writes by hand, the same words each time, or puts an address on the list."""
        item = self._pick(Item.objects.all(), number)
        if item is None:
            return
        if is_mail:
            _done("write_mail", by_hand.write_mail(item=item, user=self.person, subject="Hello", body="By hand."))
        else:
            _done("suppress", suppressions.suppress(address=item.lead.email, reason="manual", user=self.person))

    @rule(state=st.sampled_from([*["running"] * 16, *Department.State.values]))
    def switch_department(self, state: str) -> None:
        _done(f"switch:{state}", switches.switch_department(department=self.department, user=self.person, state=state))

    # --- People and items -------------------------------------------------------------------------------------

    @rule(number=NUMBER)
    def run_pipeline(self, number: int) -> None:
        item = self._pick(Item.objects.all(), number)
        if item is not None:
            request_run(items=[item.pk], user=self.person)

    @rule(
        number=NUMBER,
        verb=st.sampled_from(["pause", "resume", "take_over", "hand_back", "close", "reopen"]),
        is_sensible=st.booleans(),
        is_for_a_while=st.booleans(),
    )
    def switch_item(self, number: int, verb: str, is_sensible: bool, is_for_a_while: bool) -> None:
        """Half of the time what may be done; otherwise whatever comes, which is refused if it may not be."""
        item = self._pick(Item.objects.all(), number)
        if item is None:
            return
        back = {"paused": "resume", "taken_over": "hand_back", "closed": "reopen"}
        verb = back.get(item.automation, verb) if is_sensible else verb
        until = timezone.now() + timedelta(hours=1) if is_for_a_while else None
        more = {"until": until} if verb in ("pause", "take_over", "close") else {}
        _done(verb, getattr(control, f"{verb}_item")(item=item, user=self.person, **more))

    @rule(number=NUMBER, is_retry=st.booleans())
    def stop_or_retry(self, number: int, is_retry: bool) -> None:
        """A step is cancelled, or one that has failed is tried again."""
        statuses = [AgentRun.Status.FAILED] if is_retry else list(AgentRun.ACTIVE)
        if run := self._pick(AgentRun.objects.filter(status__in=statuses), number):
            act = control.retry_agent_run if is_retry else control.cancel_agent_run
            _done(act.__name__, act(run=run, user=self.person))

    @rule(number=NUMBER, choice=NUMBER, how=st.sampled_from(["edit", "edit", "correct", "rerun"]))
    def intervene(self, number: int, choice: int, how: str) -> None:
        """A person replaces an output by their own, sorts it otherwise, or has it made anew."""
        if how == "rerun":
            if run := self._pick(AgentRun.objects.exclude(status__in=AgentRun.ACTIVE), number):
                _done(how, reruns.rerun(run=run, user=self.person)[0])
        elif how == "correct":
            by = Output.objects.filter(is_current=True, agent_run__agent__slug__in=["qualifier", "reply_handler"])
            if output := self._pick(by, number):
                changes = {"tier": "Warm"} if output.key == "qualification" else {"intent": REPLIES[choice % 4]}
                with suppress(Unfit):
                    _done(how, rewrites.correct(output=output, user=self.person, changes=changes))
        elif output := self._pick(self._editable(is_asked=bool(number % 3)), number):
            self._write(output.item, output.key, output.trigger, choice, output)

    @rule(number=NUMBER, choice=NUMBER, key=st.sampled_from(["intake", "qualification", "research", "draft", "email"]))
    def inject(self, number: int, choice: int, key: str) -> None:
        """A person writes what is not there yet, for the item or for the newest thing that happened to it."""
        item = self._pick(Item.objects.all(), number)
        if item is None:
            return
        trigger = item.triggers.filter(kind__in=["reply", "follow_up"]).order_by("-pk").first() if number % 2 else None
        self._write(item, key, trigger, choice, None)

    # --- People and questions ---------------------------------------------------------------------------------

    @rule(number=NUMBER)
    def undo(self, number: int) -> None:
        if review := self._pick(Review.objects.filter(status=Review.Status.ANSWERED), number):
            _done("undo", reviews.undo(review=review, user=self.person))

    @rule(number=NUMBER, is_dismissed=st.booleans())
    def put_aside(self, number: int, is_dismissed: bool) -> None:
        if review := self._pick(Review.objects.all(), number):
            act = reviews.dismiss if is_dismissed else reviews.take_over
            _done(f"review_{act.__name__}", act(review=review, user=self.person))

    @rule(number=NUMBER, is_edited=st.booleans(), is_changed=st.booleans())
    def approve(self, number: int, is_edited: bool, is_changed: bool) -> None:
        review = self._ask(number)
        if review is None:
            return
        if not is_edited:
            _done("approve", reviews.approve(review=review, user=self.person))
            return
        changes = {"body": "Dear Ms Weber,\n\nI have written this myself."} if is_changed else {}
        with suppress(Unfit):
            _done("approve_edited", reviews.approve_edited(review=review, user=self.person, changes=changes))

    @rule(number=NUMBER, is_for_good=st.booleans())
    def refuse(self, number: int, is_for_good: bool) -> None:
        if review := self._ask(number):
            if is_for_good:
                _done("reject", reviews.reject(review=review, user=self.person, reason="No."))
            else:
                _done("send_back", rewrites.send_back(review=review, user=self.person, note="Shorter."))

    @rule(number=NUMBER, how=st.sampled_from(["accept", "retry_all", "accept_all"]))
    def answer_failure(self, number: int, how: str) -> None:
        """One failure is accepted, or all of an incident are answered."""
        kinds = incidents.ACCEPTABLE if how == "accept" else (Review.Kind.INCIDENT,)
        if review := self._pick(Review.objects.filter(kind__in=kinds), number):
            _done(how, getattr(incidents, how)(review=review, user=self.person, reason="Go on."))

    # --- What must hold ---------------------------------------------------------------------------------------

    @invariant()
    def holds(self) -> None:
        """Everything that must be true after each step."""
        self._look()

    def _compare(self) -> None:
        """Every status change since the last look is one of those that are said to exist."""
        statuses = read_statuses()
        wrong = wrong_transitions(self.seen, statuses)
        self.seen = statuses
        assert not wrong, "\n".join(wrong)

    def _look(self) -> None:
        self._compare()
        wrong = violations()
        wrong += [f"{key} left {count} times" for key, count in self.channel.left.items() if count > 1]
        assert not wrong, "\n".join(wrong)

    def _assert_may_leave(self, row: OutboxMessage) -> None:
        item = Item.objects.get(pk=row.item_id)
        may = (Item.Automation.ACTIVE,) if row.output_id is not None else tuple(Item.Automation)[:3]
        assert item.automation in may, f"{row.key} leaves although its item is {item.automation}"
        assert not suppressions.is_suppressed(row.address), f"{row.key} leaves to {row.address}, who is on the list"
        state = Department.objects.get(pk=self.department.pk).state
        assert state == Department.State.RUNNING, f"{row.key} leaves although the department is {state}"
        if row.output is not None:
            assert row.output.is_current, f"{row.key} leaves although its output was replaced"
            assert row.output.verdict == Output.Verdict.APPROVED, f"{row.key} leaves unapproved"
            inbound = Message.objects.filter(item=item, direction=Message.Direction.IN, at__gt=row.approved_at)
            assert not inbound.exists(), f"{row.key} leaves although a reply came in after the approval"

    # --- How ------------------------------------------------------------------------------------------------

    def _pick(self, rows: QuerySet[RowT], number: int) -> RowT | None:
        """One of the rows, the newest first, so that small numbers find what is going on."""
        found: Sequence[RowT] = list(rows.order_by("-pk")[:12])
        chosen = found[number % len(found)] if found else None
        note(f"  -> {type(chosen).__name__} {chosen.pk}: {chosen}" if chosen else "  -> nothing")
        return chosen

    def _work(self, number: int) -> Work | None:
        """An attempt that is under way; if there is none, what is due is claimed. None if nothing is."""
        if not self.works:
            dispatch.route_due(10, staff=load_staff())
            self._compare()
            self.claim(3)
            self._compare()
        return self.works[number % len(self.works)] if self.works else None

    def _ask(self, number: int) -> Review | None:
        """A question about an output, mostly an open one; else any, because somebody has the old page open."""
        asked = Review.objects.filter(output__isnull=False)
        still = asked.filter(status=Review.Status.OPEN)
        return self._pick(still if number % 4 and still.exists() else asked, number)

    def _editable(self, *, is_asked: bool) -> QuerySet[Output]:
        """Current outputs; mostly those that a question is open about, or from which they were made."""
        current = Output.objects.filter(is_current=True)
        asked = [made for output in current.filter(reviews__status="open") for made in (output.pk, *output.made_from)]
        return current.filter(pk__in=asked) if is_asked and asked else current

    def _write(self, item: Item, key: str, trigger: Trigger | None, choice: int, seen: Output | None) -> None:
        agent = item.department.spec.writer(key, trigger.kind if trigger else "item")
        payload = {**payload_for(agent.slug if agent else "", key, choice), "reasoning_summary": f"By hand, {choice}."}
        with suppress(ValidationError):
            allowed, _ = by_hand.write_output(
                item=item, user=self.person, key=key, trigger=trigger, payload=payload, seen=seen.pk if seen else None
            )
            _done("edit" if seen else "inject", allowed)


def _answer(work: Work, choice: int) -> Finished:
    return answered(work, payload_for(work.agent.slug, work.agent.writes, choice))


def _done(what: str, answer: object) -> None:
    REACHED[what] += bool(answer)


def _past() -> Any:
    return timezone.now() - timedelta(seconds=1)
