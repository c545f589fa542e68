"""The live stream: every line of the log once, in whatever order transactions end, to whom it concerns."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.db import OperationalError, connection, connections, transaction
from django.test import AsyncClient, Client
from django.urls import reverse
from django.utils import timezone

from runs import live
from runs.live import BATCH, QUEUE_EVENTS, Event, Feed, LogTail, Subscriber
from runs.models import LogEntry
from tests import factories

LIMIT_SECONDS = 10


@pytest.fixture(autouse=True)
def nothing_stays_connected() -> Iterator[None]:
    """The thread of asynchronous views keeps its connection, and PostgreSQL drops no database that has one."""
    yield
    asyncio.run(sync_to_async(connections.close_all)())


def _event(number: int, department: int = 1) -> Event:
    return Event(number, department, 2, 3, 4, "decision", "info")


# --- What is read --------------------------------------------------------------------------------------------


@pytest.mark.django_db
def test_a_line_is_read_once() -> None:
    item = factories.make_item()
    tail = LogTail()
    factories.make_log_entry(item, text="Before.")
    tail.start()
    entry = factories.make_log_entry(item)
    events = tail.read()
    assert events is not None
    assert [(event.id, event.item, event.department) for event in events] == [(entry.pk, item.pk, item.department_id)]
    assert tail.read() == []


@pytest.mark.django_db
def test_a_line_that_commits_late_is_still_read() -> None:
    item = factories.make_item()
    first = factories.make_log_entry(item)
    tail = LogTail()
    tail.start()
    late, early = first.pk + 1, first.pk + 3
    factories.make_log_entry(item, pk=early)
    assert [event.id for event in tail.read() or []] == [early]
    factories.make_log_entry(item, pk=late)
    assert [event.id for event in tail.read() or []] == [late]
    assert tail.read() == []
    assert {number for number in tail.gaps if number > first.pk} == {first.pk + 2}


@pytest.mark.django_db
def test_a_gap_that_stays_empty_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    item = factories.make_item()
    tail = LogTail()
    tail.start()
    factories.make_log_entry(item, pk=tail.last_id + 5)
    tail.read()
    assert len(tail.gaps) == 4
    monkeypatch.setattr(live, "GAP_SECONDS", 0.0)
    factories.make_log_entry(item, pk=tail.last_id + 1)
    tail.read()
    assert tail.gaps == {}


@pytest.mark.django_db
def test_a_wide_jump_of_ids_does_not_become_as_many_gaps() -> None:
    item = factories.make_item()
    tail = LogTail()
    tail.start()
    factories.make_log_entry(item, pk=10_000_000)
    assert [event.id for event in tail.read() or []] == [10_000_000]
    assert len(tail.gaps) <= live.MAX_GAPS


@pytest.mark.django_db
def test_too_many_lines_are_passed_over() -> None:
    item = factories.make_item()
    tail = LogTail()
    tail.start()
    line = factories.make_log_entry(item)
    LogEntry.objects.bulk_create(
        LogEntry(item=item, department=item.department, kind="decision", text="x", at=line.at) for _ in range(BATCH + 1)
    )
    assert tail.read() is None
    assert tail.read() == []


@pytest.mark.django_db
def test_a_line_that_was_under_way_when_the_reader_started_is_read() -> None:
    item = factories.make_item()
    first = factories.make_log_entry(item)
    late = first.pk + 1
    factories.make_log_entry(item, pk=first.pk + 2)
    tail = LogTail()
    tail.start()
    factories.make_log_entry(item, pk=late)
    assert [event.id for event in tail.read() or []] == [late]
    assert tail.read() == []


@pytest.mark.django_db
def test_who_comes_back_gets_what_was_committed_late_before_the_last_line_they_saw() -> None:
    item = factories.make_item()
    start = factories.make_log_entry(item).pk
    late, seen, new = start + 400, start + 401, start + 402
    for pk in (seen, late, new):
        factories.make_log_entry(item, pk=pk, at=timezone.now())
    factories.make_log_entry(item, pk=start + 399, at=timezone.now() - timedelta(hours=1))
    assert [event.id for event in live.read_missed(seen, [item.department_id])] == [late, new]
    assert live.read_missed(new, [item.department_id + 1]) == []


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("is_watched", [True, False], ids=["while a browser listens", "before a browser comes back"])
def test_two_transactions_that_commit_out_of_order_are_both_told(is_watched: bool) -> None:
    """The earlier number is committed last: real transactions on two connections of PostgreSQL. SQLite has one writer
    at a time, so its numbers are those of the commits; there the line's number is written into the gap.
    """
    item = factories.make_item()
    start = factories.make_log_entry(item).pk
    tail = LogTail()
    tail.start()
    written, told = threading.Event(), threading.Event()
    ids: list[int] = []

    def write_early_commit_late() -> None:
        try:
            if connection.vendor == "sqlite":
                written.set()
                told.wait(LIMIT_SECONDS)
                ids.append(factories.make_log_entry(item, pk=start + 1, at=timezone.now()).pk)
                return
            with transaction.atomic():
                ids.append(factories.make_log_entry(item, at=timezone.now()).pk)
                written.set()
                told.wait(LIMIT_SECONDS)
        finally:
            connection.close()

    slow = threading.Thread(target=write_early_commit_late, daemon=True)
    slow.start()
    assert written.wait(LIMIT_SECONDS)
    quick = factories.make_log_entry(
        item, at=timezone.now(), **({"pk": start + 2} if connection.vendor == "sqlite" else {})
    )
    assert [event.id for event in tail.read() or []] == [quick.pk]
    told.set()
    slow.join(LIMIT_SECONDS)
    assert ids[0] < quick.pk
    if is_watched:
        assert [event.id for event in tail.read() or []] == ids
    else:
        assert ids[0] in [event.id for event in live.read_missed(quick.pk, [item.department_id])]


# --- Who is told ---------------------------------------------------------------------------------------------


def test_a_browser_hears_of_its_departments_only() -> None:
    subscriber = Subscriber(frozenset({1}))
    for department in (1, 2, 1):
        subscriber.put(_event(department, department))
    subscriber.put(replace(_event(3), department=None))
    assert [subscriber.queue.get_nowait().department for _ in range(2)] == [1, 1]  # type: ignore[union-attr]
    assert subscriber.queue.empty()


def test_every_browser_hears_that_the_installation_was_switched() -> None:
    subscriber = Subscriber(frozenset({1}))
    subscriber.put(replace(_event(3), department=None, kind="switch"))
    subscriber.put(replace(_event(4, 2), kind="switch"))
    assert [subscriber.queue.get_nowait().id for _ in range(subscriber.queue.qsize())] == [3]  # type: ignore[union-attr]


def test_a_slow_browser_is_told_to_fetch_everything_and_costs_no_more_memory() -> None:
    subscriber = Subscriber(frozenset({1}))
    for number in range(QUEUE_EVENTS * 3 + 1):
        subscriber.put(_event(number))
    assert subscriber.queue.qsize() <= QUEUE_EVENTS
    assert subscriber.queue.get_nowait() is live.REFETCH


def test_an_event_is_written_as_the_standard_has_it() -> None:
    text = _event(7).encode()
    assert text.startswith("id: 7\nevent: log\ndata: {")
    assert text.endswith("}\n\n")
    assert '"item":2,"run":3,"step":4' in text


# --- The stream ----------------------------------------------------------------------------------------------


async def _next(stream: Any, wanted: str) -> str:
    """The next piece of the stream that contains ``wanted``."""
    async with asyncio.timeout(LIMIT_SECONDS):
        async for piece in stream:
            text = piece if isinstance(piece, str) else piece.decode()
            if wanted in text:
                return text
    raise AssertionError("The stream ended.")


async def _gone(feed: Feed) -> None:
    """Wait until the poller has ended and closed its connection."""
    async with asyncio.timeout(LIMIT_SECONDS):
        while feed._task is not None:
            await asyncio.sleep(0.01)
        await feed.in_thread(lambda: None)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "POLL_SECONDS", 0.02)


@pytest.fixture
def people(transactional_db: None) -> tuple[Any, Any]:
    """A member of a department, and an item of it."""
    department = factories.make_department()
    return factories.make_user(department=department), factories.make_item(department)


@pytest.mark.usefixtures("quick")
def test_a_line_that_is_written_reaches_the_browser_and_others_do_not(people: tuple[Any, Any]) -> None:
    user, item = people
    foreign = factories.make_item(factories.make_department(slug="other"))

    async def watch() -> str:
        client = AsyncClient()
        await client.aforce_login(user)
        response: Any = await client.get(reverse("runs:events"))
        assert response["Content-Type"] == "text/event-stream"
        stream = response.streaming_content
        await _next(stream, "event: refetch")
        await sync_to_async(factories.make_log_entry)(foreign, text="Not for you.")
        await sync_to_async(factories.make_log_entry)(item)
        text = await _next(stream, "event: log")
        # The browser leaves: the server cancels whatever waits for the next piece.
        reading = asyncio.create_task(_next(stream, "never"))
        await asyncio.sleep(0)
        reading.cancel()
        await _gone(live.feed())
        return text

    assert f'"item":{item.pk}' in asyncio.run(watch())


@pytest.mark.usefixtures("quick")
def test_a_browser_that_comes_back_gets_what_it_missed(people: tuple[Any, Any]) -> None:
    user, item = people
    seen = factories.make_log_entry(item)
    missed = factories.make_log_entry(item)
    switched = LogEntry.objects.create(kind="switch", text="All stopped.", at=timezone.now())
    private = LogEntry.objects.create(kind="sign_in", text="Somebody was refused.", at=timezone.now())

    async def watch() -> str:
        feed = live.feed()
        stream = live.stream(feed, [item.department_id], seen.pk)
        text = await _next(stream, "event: log")
        await stream.aclose()  # type: ignore[attr-defined]
        await _gone(feed)
        return text

    text = asyncio.run(watch())
    assert f"id: {missed.pk}\n" in text
    assert f"id: {switched.pk}\n" in text
    assert f"id: {private.pk}\n" not in text
    assert f"id: {seen.pk}\n" not in text


@pytest.mark.usefixtures("quick")
def test_a_quiet_stream_beats(people: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "BEAT_SECONDS", 0.05)

    async def watch() -> str:
        feed = live.feed()
        stream = live.stream(feed, [people[1].department_id], None)
        await _next(stream, "event: refetch")
        text = await _next(stream, ": still here")
        await stream.aclose()  # type: ignore[attr-defined]
        await _gone(feed)
        return text

    assert "event: beat" in asyncio.run(watch())


@pytest.mark.parametrize("turns", range(5))
def test_a_browser_that_leaves_together_with_an_event_is_gone(monkeypatch: pytest.MonkeyPatch, turns: int) -> None:
    async def read_nothing(self: Feed) -> None:
        return None

    monkeypatch.setattr(Feed, "_poll", read_nothing)

    async def leave() -> bool:
        feed = Feed()

        async def read() -> None:
            async for _ in live.stream(feed, [1], None):
                pass

        reading = asyncio.create_task(read())
        while not any(each.queue._getters for each in feed.subscribers):  # type: ignore[attr-defined] # until it waits
            await asyncio.sleep(0)
        for each in feed.subscribers:
            each.put(_event(1))
        for _ in range(turns):
            await asyncio.sleep(0)
        reading.cancel()
        await asyncio.wait([reading], timeout=2)
        is_gone = reading.done() and not feed.subscribers
        reading.cancel()  # should it have swallowed the first one, it ends nevertheless
        return is_gone

    assert asyncio.run(leave())


@pytest.mark.usefixtures("quick")
def test_many_browsers_share_one_poller_which_ends_with_the_last(people: tuple[Any, Any]) -> None:
    async def watch() -> tuple[int, int]:
        feed = live.feed()
        streams = [live.stream(feed, [people[1].department_id], None) for _ in range(20)]
        for stream in streams:
            await _next(stream, "event: beat")
        tasks = [task for task in asyncio.all_tasks() if "Feed._poll" in repr(task.get_coro())]
        for stream in streams:
            await stream.aclose()  # type: ignore[attr-defined]
        await _gone(feed)
        return len(tasks), len(feed.subscribers)

    assert asyncio.run(watch()) == (1, 0)


@pytest.mark.usefixtures("quick")
def test_the_stream_goes_on_after_the_database_was_away(
    people: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    is_away = threading.Event()

    def fail_if_away() -> None:
        if is_away.is_set():
            raise OperationalError("The server closed the connection.")

    monkeypatch.setattr(live, "close_old_connections", fail_if_away)
    monkeypatch.setattr(live, "BEAT_SECONDS", 0.05)

    async def watch() -> str:
        feed = live.feed()
        stream = live.stream(feed, [people[1].department_id], None)
        await _next(stream, "event: refetch")
        is_away.set()
        async with asyncio.timeout(LIMIT_SECONDS):
            while feed.is_reading:
                await asyncio.sleep(0.01)
        text = await _next(stream, ": still here")
        is_away.clear()
        await _next(stream, "event: refetch")
        await _next(stream, "event: beat")
        await stream.aclose()  # type: ignore[attr-defined]
        await _gone(feed)
        return text

    text = asyncio.run(watch())
    assert "event: away" in text
    assert "event: beat" not in text


@pytest.mark.usefixtures("quick")
def test_a_database_that_does_not_answer_is_away_too(people: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    answers = threading.Event()
    answers.set()
    monkeypatch.setattr(live, "close_old_connections", lambda: answers.wait(LIMIT_SECONDS))
    monkeypatch.setattr(live, "BEAT_SECONDS", 0.05)
    monkeypatch.setattr(live, "AWAY_SECONDS", 0.5)

    async def watch() -> None:
        feed = live.feed()
        stream = live.stream(feed, [people[1].department_id], None)
        await _next(stream, "event: refetch")
        answers.clear()
        await _next(stream, "event: away")
        answers.set()
        await _next(stream, "event: beat")
        await stream.aclose()  # type: ignore[attr-defined]
        await _gone(feed)

    asyncio.run(watch())


@pytest.mark.usefixtures("quick")
def test_a_transaction_that_is_rolled_back_is_not_told(people: tuple[Any, Any]) -> None:
    item = people[1]

    def write() -> int:
        with transaction.atomic():
            factories.make_log_entry(item)
            transaction.set_rollback(True)
        return factories.make_log_entry(item).pk

    async def watch() -> tuple[str, int]:
        feed = live.feed()
        stream = live.stream(feed, [item.department_id], None)
        await _next(stream, "event: refetch")
        pk = await sync_to_async(write)()
        text = await _next(stream, "event: log")
        await stream.aclose()  # type: ignore[attr-defined]
        await _gone(feed)
        return text, pk

    text, pk = asyncio.run(watch())
    assert text.startswith(f"id: {pk}\n")


@pytest.mark.usefixtures("quick")
def test_a_stream_begins_with_who_is_signed_in_and_a_token_that_holds(people: tuple[Any, Any]) -> None:
    user, item = people

    async def watch() -> tuple[dict[str, str], int]:
        client = AsyncClient(enforce_csrf_checks=True)
        await client.aforce_login(user)
        response: Any = await client.get(reverse("runs:events"))
        stream = response.streaming_content
        text = await _next(stream, "event: hello")
        said = json.loads(text.partition("event: hello\ndata: ")[2].partition("\n")[0])
        note = {"csrfmiddlewaretoken": said["token"], "body": "A note."}
        noted = await client.post(reverse("runs:item_note", args=[item.pk]), note)
        reading = asyncio.create_task(_next(stream, "never"))
        await asyncio.sleep(0)
        reading.cancel()
        await _gone(live.feed())
        return said, noted.status_code

    said, status = asyncio.run(watch())
    assert said["person"] == str(user.pk)
    assert status == 302


@pytest.mark.django_db(transaction=True)
def test_a_stranger_is_told_so_and_comes_back_later() -> None:
    async def ask() -> str:
        response = await AsyncClient().get(reverse("runs:events"))
        await live.feed().in_thread(live._disconnect)
        return response.content.decode()

    text = asyncio.run(ask())
    assert text.endswith('event: hello\ndata: {"person": "", "token": ""}\n\n')
    assert int(text.removeprefix("retry: ").partition("\n")[0]) >= 5_000


@pytest.mark.usefixtures("quick")
def test_browsers_come_back_and_look_again_one_after_the_other(people: tuple[Any, Any]) -> None:
    async def watch() -> list[int]:
        feed = live.feed()
        streams = [live.stream(feed, [people[1].department_id], None) for _ in range(40)]
        starts = [await _next(stream, "event: beat") for stream in streams]
        for subscriber in feed.subscribers:
            subscriber.put(live.REFETCH)
        await _next(streams[0], f"event: refetch\ndata: {40 * live.SPREAD}")
        for stream in streams:
            await stream.aclose()  # type: ignore[attr-defined]
        await _gone(feed)
        return [int(start.removeprefix("retry: ").partition("\n")[0]) for start in starts]

    waits = asyncio.run(watch())
    assert len(set(waits)) > 20
    assert min(waits) >= 1_000
    assert max(waits) <= 3_000


@pytest.mark.django_db
def test_a_server_that_cannot_stream_says_so() -> None:
    response = Client().get(reverse("runs:events"))
    assert response.status_code == 501
