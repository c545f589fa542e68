"""Server-sent events from the log: one poller a process for all browsers, whatever their number.

A browser gets ``hello`` with who is signed in and the token of their forms, then ``log`` events whose id is the
LogEntry's, a ``beat`` every 15 s, or ``away`` if the log could not be read, and ``refetch`` when it has to look at
everything again because it was too slow, or because too much has happened. Pages fetch their own parts on an event, so
events carry only what is needed to know which parts are touched.
"""

from __future__ import annotations

import asyncio
import json
import logging
import random
import time
from collections.abc import AsyncIterator, Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import timedelta
from functools import lru_cache
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

from django.core.handlers.asgi import ASGIRequest
from django.db import Error as DatabaseTrouble
from django.db import close_old_connections, connection
from django.db.models import Max, Q
from django.http import HttpRequest, HttpResponse, HttpResponseBase, StreamingHttpResponse
from django.middleware.csrf import get_token
from django.utils import timezone

from runs.access import departments_for
from runs.models import LogEntry

POLL_SECONDS = 0.2
BEAT_SECONDS = 15.0
AWAY_SECONDS = 10.0
"""A log that was not read for so long, because the database is silent, is away as if it had refused."""
LIFETIME_SECONDS = 600.0
"""After this a stream ends and the browser opens another: what a person may see is looked up again."""
BATCH = 500
"""More new lines than this in one poll, or missed by one browser, and everything is fetched again instead."""
QUEUE_EVENTS = 200
GAP_SECONDS = 60.0
MAX_GAPS = 1_000
OVERLAP = 300
"""So many ids below the last one are looked at again when a reader starts or a browser comes back: a transaction that
was numbered before may have ended since. What a browser has seen twice it fetches twice, which changes nothing."""

SPREAD = 20
"""So many milliseconds for each browser: within that time they look again when all are told to at one moment."""
MOST_SPREAD = 10_000
HEADERS = {
    "Content-Type": "text/event-stream",
    "Cache-Control": "no-store",
    "X-Accel-Buffering": "no",
    "Content-Encoding": "identity",  # compressed, an event would wait for the next ones
}

SWITCH = "switch"
REFETCH = None
"""In a queue: look at everything again."""
T = TypeVar("T")
logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Event:
    """One line of the log as browsers are told of it."""

    id: int
    department: int | None
    item: int | None
    run: int | None
    step: int | None
    kind: str
    level: str

    def encode(self) -> str:
        """The event in the format of server-sent events."""
        return _encode(self)


@lru_cache(maxsize=1_000)
def _encode(event: Event) -> str:
    # Once for all browsers.
    names = ("department", "item", "run", "step", "kind", "level")
    data = json.dumps({name: getattr(event, name) for name in names}, separators=(",", ":"))
    return f"id: {event.id}\nevent: log\ndata: {data}\n\n"


@dataclass(slots=True)
class LogTail:
    """Reads what is new in the log, each line once.

    Two transactions can commit in another order than their lines were numbered. So ids that were jumped over are
    remembered as gaps and asked for again, for a minute; a gap that stays empty was rolled back.
    """

    last_id: int = 0
    gaps: dict[int, float] = field(default_factory=dict)
    """Missing id to the time it was first missed."""

    def start(self) -> None:
        """Begin at the end of the log, with what is missing just before it as gaps."""
        self.last_id = LogEntry.objects.aggregate(last=Max("pk"))["last"] or 0
        lowest = max(self.last_id - OVERLAP, 0)
        there = LogEntry.objects.filter(pk__gt=lowest, pk__lte=self.last_id).values_list("pk", flat=True)
        now = time.monotonic()
        self.gaps = dict.fromkeys(sorted({*range(lowest + 1, self.last_id)} - {*there}), now)

    def read(self) -> list[Event] | None:
        """The new lines in the order of their ids; None if they are too many, and then they are passed over."""
        late = read_events(pk__in=list(self.gaps)) if self.gaps else []
        new = read_events(pk__gt=self.last_id)
        if len(new) > BATCH:
            self.start()
            return None
        for event in late:
            self.gaps.pop(event.id, None)
        self._note_gaps([event.id for event in new])
        return late + new

    def _note_gaps(self, ids: Iterable[int]) -> None:
        now = time.monotonic()
        for number in ids:
            # A jump as wide as a restored backup's is not a hundred thousand open transactions.
            for missed in range(max(self.last_id + 1, number - MAX_GAPS), number):
                self.gaps[missed] = now
            self.last_id = number
        kept = [(number, since) for number, since in self.gaps.items() if now - since < GAP_SECONDS]
        self.gaps = dict(kept[-MAX_GAPS:])


def read_events(*conditions: Q, **lookup: Any) -> list[Event]:
    """Up to ``BATCH + 1`` lines of the log in the order of their ids."""
    columns = ("pk", "department_id", "item_id", "pipeline_run_id", "agent_run_id", "kind", "level")
    rows = LogEntry.objects.filter(*conditions, **lookup).order_by("pk").values_list(*columns)[: BATCH + 1]
    return [Event(*row) for row in rows]


def read_missed(last_id: int, departments: Iterable[int]) -> list[Event]:
    """What was written after a line, and what was numbered shortly before it and may have been committed since."""
    since = timezone.now() - timedelta(seconds=2 * GAP_SECONDS)
    new = Q(pk__gt=last_id) | Q(pk__lt=last_id, at__gt=since)
    concerned = Q(department__in=departments) | Q(department=None, kind=SWITCH)
    return read_events(new, concerned, pk__gt=last_id - OVERLAP)


def is_for_all(event: Event) -> bool:
    """Whether it is about every department: the installation was switched. Other lines without one are not for all."""
    return event.department is None and event.kind == SWITCH


@dataclass(eq=False, slots=True)
class Subscriber:
    """One browser. Its queue is bounded: a slow one loses the events and is told to fetch everything again."""

    departments: frozenset[int]
    queue: asyncio.Queue[Event | None] = field(default_factory=lambda: asyncio.Queue(QUEUE_EVENTS))

    def put(self, event: Event | None) -> None:
        """Hand over an event of a department this browser may see, or of all."""
        if event is not None and event.department not in self.departments and not is_for_all(event):
            return
        if event is REFETCH or self.queue.full():
            while not self.queue.empty():
                self.queue.get_nowait()
            event = REFETCH
        self.queue.put_nowait(event)


class Feed:
    """The browsers of one event loop and the task that reads the log for them while there are any."""

    def __init__(self) -> None:
        self.subscribers: set[Subscriber] = set()
        self.is_reading = False
        self.read_at = 0.0
        self._task: asyncio.Task[None] | None = None
        # One thread, so one database connection, for all the reading.
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="live")

    async def in_thread(self, work: Callable[[], T]) -> T:
        """Run something that uses the database, beside the event loop."""
        return await asyncio.get_running_loop().run_in_executor(self._executor, _with_connection, work)

    def subscribe(self, departments: Iterable[int]) -> Subscriber:
        """Add a browser; the first one starts the poller."""
        subscriber = Subscriber(frozenset(departments))
        self.subscribers.add(subscriber)
        if self._task is None:
            self._task = asyncio.create_task(self._poll())
        return subscriber

    def unsubscribe(self, subscriber: Subscriber) -> None:
        """Remove a browser; the poller ends with the last one."""
        self.subscribers.discard(subscriber)

    @property
    def is_away(self) -> bool:
        """Whether something may have happened that no browser could be told of."""
        return not self.is_reading or time.monotonic() - self.read_at > AWAY_SECONDS

    async def _poll(self) -> None:
        tail, failures = LogTail(), 0
        try:
            while self.subscribers:
                try:
                    self._publish(await self._read(tail))
                    self.read_at, failures = time.monotonic(), 0
                except DatabaseTrouble:
                    # The database is away: browsers keep what they show, and look again afterwards.
                    self.is_reading = False
                    failures += 1
                    if failures == 1:
                        logger.exception("The live log cannot be read.")
                await asyncio.sleep(POLL_SECONDS)
        finally:
            # Before the next await: whoever subscribes meanwhile starts another poller.
            self.is_reading, self._task = False, None
        await self.in_thread(_disconnect)

    async def _read(self, tail: LogTail) -> list[Event] | None:
        if self.is_reading:
            return await self.in_thread(tail.read)
        await self.in_thread(tail.start)
        self.is_reading = True
        # What was written between a page's query and this start is on no event.
        return None

    def _publish(self, events: list[Event] | None) -> None:
        for event in [REFETCH] if events is None else events:
            for subscriber in self.subscribers:
                subscriber.put(event)


def _with_connection(work: Callable[[], T]) -> T:
    # This thread has no request that would do it: a connection that died is replaced.
    close_old_connections()
    return work()


def _disconnect() -> None:
    # Looked up here: every thread has a connection of its own.
    connection.close()


_feeds: WeakKeyDictionary[asyncio.AbstractEventLoop, Feed] = WeakKeyDictionary()


def feed() -> Feed:
    """The feed of the running event loop; a web process has one."""
    return _feeds.setdefault(asyncio.get_running_loop(), Feed())


async def events(request: HttpRequest) -> HttpResponseBase:
    """The stream. ``Last-Event-ID`` resumes: what was missed is sent first, or ``refetch`` if that is too much."""
    if not isinstance(request, ASGIRequest):
        return HttpResponse("Live events need an ASGI server. Pages look again every 10 s instead.", status=501)
    line = feed()
    # In the feed's thread: this request lasts minutes, and must not hold a database connection of its own.
    departments = await line.in_thread(lambda: _departments(request))
    if departments is None:
        # The page says so, asks again, and goes on by itself when somebody has signed in in another tab.
        return HttpResponse(f"retry: {_soon(10_000)}\n{_hello('', '')}", headers=HEADERS)
    last = request.headers.get("Last-Event-ID", "")
    resume = int(last) if last.isascii() and last.isdigit() and len(last) < 19 else None
    hello = _hello(str(request.user.pk), get_token(request))
    return StreamingHttpResponse(stream(line, departments, resume, hello), headers=HEADERS)


def _hello(person: str, token: str) -> str:
    return f"event: hello\ndata: {json.dumps({'person': person, 'token': token})}\n\n"


def _soon(milliseconds: int) -> int:
    """Half of it to one and a half: all browsers lose their server at one moment, and must not come back at one."""
    return random.randint(milliseconds // 2, milliseconds * 3 // 2)


def _departments(request: HttpRequest) -> list[int] | None:
    """What the person may see; None for a stranger."""
    if not request.user.is_authenticated:
        return None
    return list(departments_for(request.user).values_list("pk", flat=True))


async def stream(line: Feed, departments: list[int], resume: int | None, hello: str = "") -> AsyncIterator[str]:
    """The events of some departments as text, until the browser leaves or ``LIFETIME_SECONDS`` are over.

    ``refetch`` comes with the milliseconds within which the browser is to look again.
    """
    subscriber = line.subscribe(departments)
    ends = time.monotonic() + LIFETIME_SECONDS
    try:
        yield f"retry: {_soon(2_000)}\n{hello}event: beat\ndata: 1\n\n"
        sent: set[int] = set()
        if resume is None and line.is_reading:
            # The page was made before this subscription; a poller that is yet to start says so itself.
            yield "event: refetch\ndata: 0\n\n"
        elif resume is not None:
            missed = await line.in_thread(lambda: read_missed(resume, departments))
            if len(missed) > BATCH:
                yield "event: refetch\ndata: 0\n\n"
            else:
                sent = {event.id for event in missed}
                yield "".join(event.encode() for event in missed)
        while time.monotonic() < ends:
            try:
                # Not wait_for: on Python 3.11 it swallows a cancellation that comes together with an event.
                async with asyncio.timeout(BEAT_SECONDS):
                    events = [await subscriber.queue.get()]
            except TimeoutError:
                yield f": still here\nevent: {'away' if line.is_away else 'beat'}\ndata: 1\n\n"
                continue
            while not subscriber.queue.empty():
                events.append(subscriber.queue.get_nowait())
            if REFETCH in events:
                yield f"event: refetch\ndata: {min(len(line.subscribers) * SPREAD, MOST_SPREAD)}\n\n"
            elif text := "".join(event.encode() for event in events if event and event.id not in sent):
                yield text
    finally:
        line.unsubscribe(subscriber)
