"""Two who meet at one item: whoever comes second waits, looks again, and does what is right by then.

Each pair is tried in both orders with the first one's transaction held open until the second has begun, and then
several times side by side. Afterwards everything that holds in random walks must hold here too.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from functools import partial
from typing import Any
from unittest.mock import patch

import pytest
from django.contrib.auth.models import User
from django.db import connection, transaction
from django.utils import timezone

from agents.models import Department
from runs import by_hand, commits, control, leases, reviews, send_channels, sending
from runs.models import AgentRun, Channel, Item, ModelCall, OutboxMessage, Output, PipelineRun, Review
from runs.staff import load_staff
from runs.triggers import record_reply
from runs.work import Work
from tests.engine import LIMIT_SECONDS, answered, begin, in_threads, make_office, outcome_of
from tests.factories import PAYLOADS, make_agent_run, make_lead, make_user
from tests.runs.desk import item_of, mail_of, make_drafted
from tests.stateful.channel import RememberingChannel
from tests.stateful.invariants import violations

pytestmark = pytest.mark.django_db(transaction=True)

HELD_SECONDS = 0.3
"""So long the first one keeps its transaction open: the second can only have begun, not finished."""
SIDE_BY_SIDE = 4
ORDERS = pytest.mark.parametrize("order", ["first", "second", "together"])
Job = Callable[[], Any]


@pytest.fixture
def channel() -> Iterator[RememberingChannel]:
    remembering = RememberingChannel(Counter())
    with patch.dict(send_channels.CHANNELS, {"email": remembering}):
        yield remembering


@pytest.fixture(autouse=True)
def office() -> Department:
    department = make_office()
    Channel.objects.create(department=department, kind="email", undo_seconds=0, settings={"sender": "m@example.com"})
    return department


@pytest.fixture
def olga() -> User:
    return make_user("olga")


def meet(one: Job, other: Job, order: str) -> tuple[Any, Any]:
    """What both return: ``first`` and ``second`` say which of them comes first, ``together`` leaves it open."""
    if order == "together":
        found = in_threads(partial(_do, (one, other)), 2)
        return found[0], found[1]
    has_written, jobs = threading.Event(), (one, other) if order == "first" else (other, one)

    def hold() -> Any:
        try:
            with transaction.atomic():
                found = jobs[0]()
                has_written.set()
                threading.Event().wait(HELD_SECONDS)
            return found
        finally:
            has_written.set()

    def follow() -> Any:
        has_written.wait(LIMIT_SECONDS)
        return jobs[1]()

    results = [outcome_of(started) for started in (begin(hold), begin(follow))]
    return (results[0], results[1]) if order == "first" else (results[1], results[0])


def _do(jobs: Sequence[Job], number: int) -> Any:
    return jobs[number]()


def times(order: str) -> range:
    """A forced order needs to be seen once."""
    return range(SIDE_BY_SIDE if order == "together" else 1)


def edit(output: Output, user: User) -> bool:
    """A person writes the output anew."""
    allowed, _ = by_hand.write_output(
        item=Item.objects.get(pk=output.item_id),
        user=user,
        key=output.key,
        trigger=None,
        payload={**PAYLOADS[output.key], "reasoning_summary": "I know better."},
        seen=output.pk,
    )
    return bool(allowed)


def drafted() -> Review:
    """The question about a first mail on which all work has ended."""
    review = make_drafted()
    PipelineRun.objects.filter(item=review.item_id).update(ended_at=timezone.now())
    return review


def approve(review: Review, user: User) -> bool:
    return bool(reviews.approve(review=review, user=user))


def reject(review: Review, user: User) -> bool:
    return bool(reviews.reject(review=review, user=user, reason="No."))


def undo(review: Review, user: User) -> bool:
    return bool(reviews.undo(review=review, user=user))


def answer_mail(item: Item, number: int) -> None:
    """The item's person writes."""
    record_reply(item=item, body="Wait.", source="race", delivery_id=f"{item.pk}-{number}")


def claim(worker: str = "host:1") -> list[Work]:
    return leases.claim(10, staff=load_staff(), worker=worker, is_alone=False)


def commit(*works: Work) -> None:
    commits.commit([answered(work) for work in works], load_staff())


def pause(item: Item, user: User) -> bool:
    return bool(control.pause_item(item=item, user=user))


def close(item: Item, user: User) -> bool:
    return bool(control.close_item(item=item, user=user))


def cancel(run: AgentRun, user: User) -> bool:
    return bool(control.cancel_agent_run(run=run, user=user))


def send_claim(worker: str = "host:1") -> OutboxMessage | None:
    return sending.claim(worker=worker)


def pending(review: Review) -> list[int | None]:
    """The outputs whose messages wait to leave."""
    rows = OutboxMessage.objects.filter(item=review.item_id, status=OutboxMessage.Status.PENDING)
    return list(rows.values_list("output_id", flat=True))


def assert_all_is_well() -> None:
    wrong = violations()
    assert not wrong, "\n".join(wrong)


@ORDERS
def test_an_approval_and_an_edit_of_the_same_mail(order: str, olga: User, channel: RememberingChannel) -> None:
    for _ in times(order):
        review = drafted()
        approved, edited = meet(partial(approve, review, olga), partial(edit, mail_of(review), olga), order)
        assert edited, "an edit may always replace what has not left"
        assert not mail_of(review).is_current
        assert pending(review) == [], "what was approved is not what is there now"
        review.refresh_from_db()
        assert review.status == (Review.Status.ANSWERED if approved else Review.Status.WITHDRAWN)
        assert_all_is_well()
    if order != "together":
        assert approved is (order == "first")


@ORDERS
def test_an_approval_and_a_reply(order: str, olga: User, channel: RememberingChannel) -> None:
    for number in times(order):
        review = drafted()
        approved, _ = meet(partial(approve, review, olga), partial(answer_mail, item_of(review), number), order)
        sending.send_due(worker="host:1")
        assert not channel.left, "nobody is written to who has written meanwhile"
        assert pending(review) == []
        is_asked_again = Review.objects.filter(output=review.output_id, status=Review.Status.OPEN).exists()
        assert is_asked_again is approved, "what was approved too late is asked about again"
        assert_all_is_well()
    if order != "together":
        assert approved is (order == "first")


@ORDERS
def test_an_approval_and_a_rejection(order: str, olga: User, channel: RememberingChannel) -> None:
    for _ in times(order):
        review = drafted()
        approved, rejected = meet(partial(approve, review, olga), partial(reject, review, olga), order)
        assert (approved, rejected) in ((True, False), (False, True))
        assert mail_of(review).verdict == ("approved" if approved else "rejected")
        assert len(pending(review)) == approved
        assert_all_is_well()


@ORDERS
def test_an_undo_and_the_sender(order: str, olga: User, channel: RememberingChannel) -> None:
    for _ in times(order):
        review = drafted()
        assert reviews.approve(review=review, user=olga)
        OutboxMessage.objects.update(release_at=timezone.now() - timedelta(seconds=1))
        channel.left.clear()
        undone, row = meet(partial(undo, review, olga), send_claim, order)
        sent = sending.send(row) if row is not None else False
        assert sent is not undone, "either it is taken back or it leaves"
        assert sum(channel.left.values()) == sent
        review.refresh_from_db()
        assert review.status == (Review.Status.OPEN if undone else Review.Status.ANSWERED)
        assert_all_is_well()


@ORDERS
def test_two_senders_and_one_message(order: str, olga: User, channel: RememberingChannel) -> None:
    for _ in times(order):
        review = drafted()
        assert reviews.approve(review=review, user=olga)
        OutboxMessage.objects.update(release_at=timezone.now() - timedelta(seconds=1))
        channel.left.clear()
        rows = meet(send_claim, partial(send_claim, "host:2"), order)
        assert sum(sending.send(row) for row in rows if row is not None) == 1
        assert sum(channel.left.values()) == 1
        assert_all_is_well()


@ORDERS
def test_a_pause_and_a_claim(order: str, olga: User) -> None:
    for _ in times(order):
        run = make_agent_run(make_lead().item, "intake")
        paused, works = meet(partial(pause, run.item, olga), claim, order)
        assert paused
        mine = [work for work in works if work.run_id == run.pk]
        commit(*works)
        run.refresh_from_db()
        # What was claimed first finishes its step; nothing further starts either way.
        assert run.status == (AgentRun.Status.DONE if mine else AgentRun.Status.QUEUED)
        assert AgentRun.objects.filter(item=run.item).count() == 1
        assert not claim("host:2")
        assert_all_is_well()
    if order == "first":
        # On PostgreSQL the claim does not wait for the item: it saw it before the pause was there.
        assert connection.vendor == "postgresql" or not mine


@ORDERS
def test_a_cancel_and_a_commit(order: str, olga: User) -> None:
    for _ in times(order):
        run = make_agent_run(make_lead().item, "intake")
        (work,) = claim()
        cancelled, _ = meet(partial(cancel, run, olga), partial(commit, work), order)
        run.refresh_from_db()
        assert run.status == (AgentRun.Status.CANCELLED if cancelled else AgentRun.Status.DONE)
        assert run.item.outputs.count() == (not cancelled)
        call = ModelCall.objects.get(agent_run=run)
        assert call.status != ModelCall.Status.STARTED
        assert run.cost_usd == call.cost_usd > 0, "what it has cost is known in either case"
        pause(run.item, olga)  # so that the next round claims nothing of it
        assert_all_is_well()


@ORDERS
def test_two_people_pause_and_close_one_item(order: str, olga: User) -> None:
    for _ in times(order):
        item = make_lead().item
        paused, closed = meet(partial(pause, item, olga), partial(close, item, olga), order)
        item.refresh_from_db()
        assert closed
        assert item.automation == Item.Automation.CLOSED, "what is closed is not paused after it"
        if order != "together":
            assert paused is (order == "first")
        assert_all_is_well()


def test_two_group_commits_in_opposite_order_and_an_edit(olga: User) -> None:
    for _ in range(SIDE_BY_SIDE):
        reviews_ = drafted(), drafted()
        items = [item_of(review) for review in reviews_]
        for item in items:
            make_agent_run(item, "crm_scribe")
        by_item = {work.item_id: work for work in claim()}
        both = [by_item[item.pk] for item in items]
        strategy = items[0].outputs.get(key="strategy", is_current=True)
        jobs: list[Job] = [partial(commit, *both), partial(commit, *both[::-1]), partial(edit, strategy, olga)]
        results = in_threads(partial(_do, jobs), 3)
        assert results[2] is True
        for item in items:
            assert item.outputs.filter(key="crm_update", is_current=True).count() == 1, "one of two commits counts"
        current = dict(items[0].outputs.filter(is_current=True).values_list("key", "origin"))
        assert current["strategy"] == Output.Origin.EDITED
        assert "email" not in current, "what was made from the strategy is made again"
        for item in items:
            pause(item, olga)  # so that the next round claims nothing of them
        assert_all_is_well()
