"""Reads what ``runs.verdict`` judges of what goes to the outside world: model calls and mail, as plain values.

Each page that shows the verdict asks this, so that the queries are compiled once and add up in the database.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from django.db.models import (
    BooleanField,
    Count,
    DateTimeField,
    ExpressionWrapper,
    Max,
    Min,
    OuterRef,
    Q,
    QuerySet,
    Subquery,
)

from agents.causes import Cause
from agents.models import Department
from agents.statements import Among, Given, Statement
from runs.models import Channel, LogEntry, ModelCall, OutboxMessage
from runs.verdict import FAILING_CALLS, FRESH, CallSigns, MailSigns

RECENT_CALLS = 400
"""The calls are looked at since the department that makes the most of them has ended so many."""
_EVER = datetime(2000, 1, 1, tzinfo=UTC)
OVERDUE = timedelta(minutes=2)


# --- Calls ----------------------------------------------------------------------------------------------------


def read_calls(ids: Sequence[int], *, now: datetime) -> CallSigns:
    """The newest calls of these departments that have ended; two queries, one more if some of them have failed."""
    ended = failed = 0
    last_at, last_good_at, failing_since = None, None, None
    causes: Counter[str] = Counter()
    # Not in one query: PostgreSQL would not know how few they are, and read all calls.
    begins = [at for (at,) in _BEGINS.rows(departments=ids) if at is not None]
    whose: dict[str, Any] = {"departments": ids, "begin": max(begins, default=_EVER)}
    for cause, has_error, recent, at, first_at in _ENDED.rows(**whose, fresh=now - FRESH):
        ended, last_at = ended + recent, _later(last_at, at)
        if cause or has_error:
            # The API has answered, so the call names no cause; what is wrong with the answer stands beside it.
            failed, causes = failed + recent, causes + Counter({Cause(cause or Cause.INVALID).label: recent})
            failing_since = min(filter(None, (failing_since, first_at)), default=None)
        else:
            last_good_at = at
    if failed:
        in_a_row = _FAILED.rows(limit=FAILING_CALLS, **whose, after=last_good_at or _EVER)
        if len(in_a_row) == FAILING_CALLS:
            # Nothing is answered any more; that may have begun long before what counts as fresh.
            failing_since = in_a_row[0][0]
    return CallSigns(
        last_at=last_at or _last_call(ids),
        last_good_at=last_good_at,
        ended=ended,
        failed=failed,
        cause=causes.most_common(1)[0][0] if causes else "",
        failing_since=failing_since,
    )


def _later(one: datetime | None, other: datetime) -> datetime:
    return other if one is None else max(one, other)


def _newest_calls() -> QuerySet[ModelCall]:
    """Those of these departments begun at a moment or later that have ended."""
    return (
        ModelCall.objects.filter(Among("department_id", "departments"), started_at__gte=Given("begin", DateTimeField()))
        .filter(status=ModelCall.Status.FINISHED, ended_at__isnull=False)
        .order_by()
    )


def _begins() -> QuerySet[Department, Any]:
    """When each department began the first of its newest calls that have ended; None if it has not made so many.

    Counted calls, not ids: those are of all departments, and some belong to no call.
    """
    calls = ModelCall.objects.filter(department=OuterRef("pk"), status=ModelCall.Status.FINISHED)
    nth = calls.order_by("-started_at").values("started_at")[RECENT_CALLS - 1 : RECENT_CALLS]
    return Department.objects.filter(Among("pk", "departments")).order_by().values_list(Subquery(nth))


_BEGINS = Statement(_begins)
_HAS_FAILED = ~Q(cause="") | ~Q(error="")
_FRESH = Q(ended_at__gt=Given("fresh", DateTimeField()))
_ENDED = Statement(
    lambda: (
        _newest_calls()
        .annotate(has_error=ExpressionWrapper(~Q(error=""), BooleanField()))
        .values_list("cause", "has_error")
        .annotate(
            recent=Count("pk", filter=_FRESH),
            at=Max("ended_at"),
            first_at=Min("ended_at", filter=_FRESH),
        )
    )
)
_FAILED = Statement(
    lambda: (
        _newest_calls()
        .filter(_HAS_FAILED, ended_at__gt=Given("after", DateTimeField()))
        .values_list("ended_at")
        .order_by("ended_at")
    )
)


def _last_call(ids: Sequence[int]) -> datetime | None:
    """When the newest call of these departments began: others may have made thousands since."""
    calls = ModelCall.objects.filter(department=OuterRef("pk")).order_by("-started_at")
    rows = Department.objects.filter(pk__in=ids).values_list(Subquery(calls.values("started_at")[:1]), flat=True)
    return max((at for at in rows if at is not None), default=None)


# --- The mail -------------------------------------------------------------------------------------------------


def read_mail(ids: Sequence[int], *, now: datetime) -> MailSigns:
    """What has left these departments last, and what waits to leave; two queries, two more if some was refused."""
    sent = [at for (at,) in _SENT.rows(departments=ids)]
    refused = unsure = overdue = 0
    since: list[datetime] = []
    for counted in _UNSENT.rows(departments=ids, late=now - OVERDUE):
        refused, unsure, overdue = refused + counted[0], unsure + counted[1], overdue + counted[2]
        since += [at for at in counted[3:] if at is not None]
    first = _refused_first(ids) if refused else None
    refused_since = _refused_since(ids) if refused else None
    return MailSigns(
        channels=len(sent),
        last_sent_at=max((at for at in sent if at is not None), default=None),
        refused=refused,
        unsure=unsure,
        overdue=overdue,
        overdue_since=min(since, default=None),
        refusal=first[0] if first else "",
        refused_since=refused_since,
        refused_next_at=first[1] if first else None,
    )


def _refused_first(ids: Sequence[int]) -> tuple[str, datetime] | None:
    """Of what waits after a refusal that which is tried next: what was said, and when it is tried."""
    return _refused(ids).order_by("release_at").values_list("error", "release_at").first()


def _refused_since(ids: Sequence[int]) -> datetime | None:
    """When the oldest message that waits after a refusal was refused first, as the log has it."""
    told = LogEntry.objects.filter(
        item=OuterRef("item"), kind="outbox", level=LogEntry.Level.WARNING, at__gte=OuterRef("created_at")
    )
    since = Subquery(told.order_by("pk").values("at")[:1])
    return _refused(ids).order_by("pk").annotate(since=since).values_list("since", flat=True).first()


def _refused(ids: Sequence[int]) -> QuerySet[OutboxMessage]:
    return OutboxMessage.objects.filter(department__in=ids, status=OutboxMessage.Status.PENDING).exclude(error="")


def _unsent() -> QuerySet[OutboxMessage, Any]:
    """A row for each department: what waits after a refusal, is unsure, is overdue, and since when."""
    status = OutboxMessage.Status
    waiting = Q(status=status.PENDING)
    overdue = waiting & Q(release_at__lt=Given("late", DateTimeField()), waiting_for="", error="")
    rows = OutboxMessage.objects.filter(
        Among("department_id", "departments"), status__in=[status.PENDING, status.UNKNOWN]
    )
    return (
        rows.order_by()
        .values("department_id")
        .annotate(
            refused=Count("pk", filter=waiting & ~Q(error="")),
            unsure=Count("pk", filter=Q(status=status.UNKNOWN)),
            overdue=Count("pk", filter=overdue),
            since=Min("release_at", filter=overdue),
        )
        .values_list("refused", "unsure", "overdue", "since")
    )


def _sent() -> QuerySet[Channel, Any]:
    """When something left last over each channel that is switched on."""
    latest = OutboxMessage.objects.filter(
        department=OuterRef("department"), channel=OuterRef("kind"), sent_at__isnull=False
    ).order_by("-sent_at")
    channels = Channel.objects.filter(Among("department_id", "departments"), is_enabled=True)
    return channels.values_list(Subquery(latest.values("sent_at")[:1]))


_UNSENT, _SENT = Statement(_unsent), Statement(_sent)
