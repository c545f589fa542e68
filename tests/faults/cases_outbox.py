"""The sender dies at a named point, or its mail server misbehaves; a real SMTP server counts what it was given.

Whatever happens: no mail twice, none lost without a word. What may have left is unsure until a person has decided,
who here always tells the truth; afterwards every mail has left exactly once.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

from django.conf import settings
from django.contrib.auth.models import User
from django.db import connections
from django.utils import timezone

from agents.models import Department
from runs import departures, outbox, sending
from runs.models import Channel, Message, OutboxMessage, Output, Review
from runs.send_channels import mail
from tests.factories import make_lead, make_output
from tests.faults.case import SUITE, Bench
from tests.faults.table import Row
from tests.mail_server import OK, MailServer, mail_server

Status = OutboxMessage.Status
LEASE_SECONDS = 0.4
STEADY_SECONDS, IMPATIENT_SECONDS = 5.0, 0.2
CHILD_SECONDS = 60.0
WORKER = "faults:1"
BEFORE, AFTER = "before", "after"
IN_SENDER: dict[str, tuple[Any, str, str]] = {
    "before claim": (sending, "_claim_one", BEFORE),
    "after claim": (sending, "_claim_one", AFTER),
    "before connect": (mail._Backend, "open", BEFORE),
    "after RCPT": (mail._Smtp, "rcpt", AFTER),
    "in DATA": (mail._Smtp, "send", AFTER),
    "after DATA, before the mark": (departures, "record_sent", BEFORE),
    "inside the marking transaction": (departures, "_follow", AFTER),
    "after the mark": (departures, "record_sent", AFTER),
}
"""Points in the sender's own code: what is wrapped, and whether it dies before or after it."""
AT_SERVER = "after DATA, before the answer"
"""The server has the whole mail, counts it, and its answer finds nobody."""
POINTS = (*IN_SENDER, AT_SERVER)
FAULTS: dict[str, dict[str, str]] = {
    "refuses the address": {"rcpt": "550 5.1.1 No such user"},
    "refuses the mail": {"data": "554 5.7.1 No"},
    "greylists": {"rcpt": "451 4.7.1 Later"},
    "hangs up before the mail": {"drop_at": "rcpt"},
    "hangs up with the mail": {"drop_at": "data"},
    "stalls before the mail": {"stall_at": "rcpt"},
    "stalls with the mail": {"stall_at": "data"},
}


@SUITE.add()
def sender_killed(bench: Bench) -> list[Row]:
    """SIGKILL of the sender at every point between finding a message and having written down that it left."""
    with bench.databases.fresh():
        return kill_senders(bench.form.tries)


@SUITE.add()
def mail_server_misbehaves(bench: Bench) -> list[Row]:
    """A mail server that refuses, greylists, stalls or hangs up, and is well again afterwards."""
    with bench.databases.fresh():
        return misbehave(bench.form.tries)


def kill_senders(tries: int) -> list[Row]:
    """One row a point, on the database to which this process's connections point."""
    rows = []
    with _sending(STEADY_SECONDS) as server:
        for point in POINTS:
            row = Row(f"SIGKILL the sender {point}")
            for _ in range(tries):
                message = _approve()
                if not _strike(message, point, server):
                    row.broken = "the sender was not struck"
                _wait_for_lease()
                _finish(row, message, server)
            rows.append(row)
    return rows


def misbehave(tries: int) -> list[Row]:
    """One row a fault of the server."""
    rows = []
    with _sending(IMPATIENT_SECONDS) as server:
        for fault, changes in FAULTS.items():
            row = Row(f"SMTP {fault}")
            for _ in range(tries):
                message = _approve()
                for name, value in changes.items():
                    setattr(server, name, value)
                sending.send_due(worker=WORKER)
                _check(row, message, server, "while the server misbehaves")
                server.rcpt = server.data = OK
                server.drop_at = server.stall_at = ""
                _finish(row, message, server, may_fail="refuses" in fault)
            rows.append(row)
    return rows


@contextmanager
def _sending(timeout_seconds: float) -> Iterator[MailServer]:
    """A mail server, and settings that make this process send over it with a short lease."""
    changes = {"EMAIL_BACKEND": "django.core.mail.backends.smtp.EmailBackend", "EMAIL_HOST": "127.0.0.1"}
    more = {"EMAIL_IS_CONFIGURED": True, "SEND_LEASE_SECONDS": LEASE_SECONDS, "SEND_TIMEOUT_SECONDS": timeout_seconds}
    limits = {"SEND_MAX_BOUNCED_PERCENT": 100, "SEND_HOURLY_FLOOR": 10**6}
    with mail_server() as server:
        wanted: dict[str, Any] = {**changes, **more, **limits, "EMAIL_PORT": server.port}
        before = {name: getattr(settings, name) for name in wanted}
        try:
            for name, value in wanted.items():
                setattr(settings, name, value)
            yield server
        finally:
            for name, value in before.items():
                setattr(settings, name, value)


def _approve() -> OutboxMessage:
    """A mail that is due, of a lead of its own."""
    department = Department.objects.get(slug="sales")
    limits = {"undo_seconds": 0, "per_minute": 0, "daily_cap": 0}
    values = {"settings": {"sender": "mara@tallyport.example"}, "is_enabled": True, **limits}
    channel, _ = Channel.objects.update_or_create(department=department, kind="email", defaults=values)
    user, _ = User.objects.get_or_create(username="approver")
    item = make_lead(department).item
    output = make_output(item, "email", verdict=Output.Verdict.APPROVED)
    at = timezone.now() - timedelta(seconds=1)
    row = OutboxMessage(item=item, department=department, output=output, key=f"{item.pk}:first_mail")
    row.purpose, row.approved_by, row.approved_at, row.release_at = "first_mail", user, at, at
    row.address = f"lead{item.pk}@example.com"
    row.rendered = outbox.render(row, {"subject": "Hello", "body": "Dear you"}, channel)
    row.save()
    return row


def _strike(message: OutboxMessage, point: str, server: MailServer) -> bool:
    """Have a process send, which is killed at the point; whether it was."""
    connections.close_all()  # or parent and child would share a connection
    waits, goes = os.pipe()
    pid = os.fork()
    if not pid:
        try:
            os.read(waits, 1)
            if point in IN_SENDER:
                _lay(*IN_SENDER[point], row=message)
            sending.send_due(worker="faults:child")
        finally:
            os._exit(0)
    if point == AT_SERVER:
        server.on["data"] = lambda: os.kill(pid, signal.SIGKILL)
    os.write(goes, b".")
    status = _end_of(pid)
    for end in (waits, goes):
        os.close(end)
    server.on.clear()
    return os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL


def _end_of(pid: int) -> int:
    """The status of a child that has ended. One that hangs is ended and shows where: it has not been struck."""
    until = time.monotonic() + CHILD_SECONDS
    while True:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return status
        if time.monotonic() > until:
            os.kill(pid, signal.SIGABRT)  # pytest's faulthandler prints its stack
            return os.waitpid(pid, 0)[1]
        time.sleep(0.005)


def _lay(where: Any, name: str, when: str, *, row: OutboxMessage) -> None:
    """Wrap a function of this process, so that it kills the process."""
    original: Callable[..., Any] = getattr(where, name)

    def wrapped(*args: Any, **kwargs: Any) -> Any:
        is_body = name != "send" or getattr(args[0], "is_handed_over", False)
        if when == BEFORE:
            os.kill(os.getpid(), signal.SIGKILL)
        answer = original(*args, **kwargs)
        if is_body:
            os.kill(os.getpid(), signal.SIGKILL)
        return answer

    setattr(where, name, wrapped)


def _wait_for_lease() -> None:
    """The lease of a process that is gone runs out by the clock and by nothing else."""
    until = time.monotonic() + 10 * LEASE_SECONDS
    live = OutboxMessage.objects.filter(status=Status.SENDING, lease_expires_at__gt=timezone.now())
    while live.all().filter(lease_expires_at__gt=timezone.now()).exists() and time.monotonic() < until:
        time.sleep(0.02)


def _finish(row: Row, message: OutboxMessage, server: MailServer, *, may_fail: bool = False) -> None:
    """Another sender comes by, then a person who knows the truth, then the sender again."""
    sending.send_due(worker=WORKER)
    _check(row, message, server, "after another sender came by")
    stored = OutboxMessage.objects.get(pk=message.pk)
    if stored.status == Status.UNKNOWN:
        user = User.objects.get(username="approver")
        departures.settle_unknown(message=stored, user=user, was_sent=_copies(message, server) == 1)
    OutboxMessage.objects.filter(pk=message.pk, status=Status.PENDING).update(release_at=timezone.now())
    sending.send_due(worker=WORKER)
    stored.refresh_from_db()
    wanted = Status.FAILED if may_fail else Status.SENT
    if stored.status != wanted:
        row.findings.lost.append(f"message {message.pk} is {stored.status}: {stored.error} {stored.reason}")
    if _copies(message, server) != (not may_fail):
        row.findings.duplicated.append(f"message {message.pk} was taken {_copies(message, server)} times")
    spoken = Message.objects.filter(item=message.item_id, direction=Message.Direction.OUT).count()
    if spoken != (not may_fail):
        row.findings.untrue.append(f"the conversation of item {message.item_id} has {spoken} mails")
    row.tried += 1


def _check(row: Row, message: OutboxMessage, server: MailServer, when: str) -> None:
    """What must hold at any time: at most one copy, and a status that says what is so."""
    stored, copies = OutboxMessage.objects.get(pk=message.pk), _copies(message, server)
    asked = Review.objects.filter(outbox=message, kind="unsure_send", status="open").count()
    if copies > 1:
        row.findings.duplicated.append(f"message {message.pk} was taken {copies} times {when}")
    if stored.status == Status.SENT and copies != 1:
        row.findings.untrue.append(f"message {message.pk} is sent, but was taken {copies} times {when}")
    if stored.status in (Status.PENDING, Status.FAILED) and copies:
        row.findings.untrue.append(f"message {message.pk} is {stored.status}, but was taken {when}")
    if stored.status == Status.SENDING:
        row.findings.lost.append(f"message {message.pk} is still being sent {when}")
    if (stored.status == Status.UNKNOWN) != bool(asked):
        row.findings.untrue.append(f"message {message.pk} is {stored.status} and asked about {asked} times {when}")


def _copies(message: OutboxMessage, server: MailServer) -> int:
    return server.ids().count(str(message.rendered["headers"]["Message-ID"]))
