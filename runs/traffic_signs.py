"""Reads what ``runs.verdict`` judges of what goes to the outside world: model calls and mail, as plain values.

Each page that shows the verdict asks this, so that the queries are compiled once and add up in the database.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from django.db.models import (
    BigIntegerField,
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
from runs.models import Channel, ModelCall, OutboxMessage
from runs.verdict import FRESH, CallSigns, MailSigns

RECENT_CALLS = 400
"""So many of the newest calls of the installation are looked at."""
OVERDUE = timedelta(minutes=2)


# --- Calls ----------------------------------------------------------------------------------------------------


def read_calls(ids: Sequence[int], *, now: datetime) -> CallSigns:
    """The calls of these departments among the newest there are; two queries, two more if some have failed."""
    ended = failed = 0
    last_at, last_good_at = None, None
    causes: Counter[str] = Counter()
    # Not in one query: PostgreSQL would not know how few they are, and read all calls.
    newest = next((pk for (pk,) in _NEWEST.rows(limit=1)), 0)
    whose: dict[str, Any] = {"departments": ids, "behind": newest - RECENT_CALLS}
    for cause, has_error, recent, at in _ENDED.rows(**whose, fresh=now - FRESH):
        ended, last_at = ended + recent, _later(last_at, at)
        if cause or has_error:
            # The API has answered, so the call names no cause; what is wrong with the answer stands beside it.
            failed, causes = failed + recent, causes + Counter({Cause(cause or Cause.INVALID).label: recent})
        else:
            last_good_at = at
    since = _FAILED.rows(**whose, after=_later(last_good_at, now - FRESH)) if failed else []
    since = since or (_FAILED.rows(**whose, after=now - FRESH) if failed else [])
    return CallSigns(
        last_at=last_at or _last_call(ids),
        last_good_at=last_good_at,
        ended=ended,
        failed=failed,
        cause=causes.most_common(1)[0][0] if causes else "",
        failing_since=min((at for (at,) in since), default=None),
    )


def _later(one: datetime | None, other: datetime) -> datetime:
    return other if one is None else max(one, other)


def _newest_calls() -> QuerySet[ModelCall]:
    """Those behind an id that are of these departments and have ended."""
    return (
        ModelCall.objects.filter(Among("department_id", "departments"), pk__gt=Given("behind", BigIntegerField()))
        .filter(status=ModelCall.Status.FINISHED, ended_at__isnull=False)
        .order_by()
    )


_NEWEST = Statement(lambda: ModelCall.objects.order_by("-pk").values_list("pk"))
_ENDED = Statement(
    lambda: (
        _newest_calls()
        .annotate(has_error=ExpressionWrapper(~Q(error=""), BooleanField()))
        .values_list("cause", "has_error")
        .annotate(
            recent=Count("pk", filter=Q(ended_at__gt=Given("fresh", DateTimeField()))),
            at=Max("ended_at"),
        )
    )
)
_FAILED = Statement(
    lambda: (
        _newest_calls()
        .filter(~Q(cause="") | ~Q(error=""), ended_at__gt=Given("after", DateTimeField()))
        .values_list("ended_at")
    )
)


def _last_call(ids: Sequence[int]) -> datetime | None:
    """When the newest call of these departments began: others may have made thousands since."""
    calls = ModelCall.objects.filter(department=OuterRef("pk")).order_by("-started_at")
    rows = Department.objects.filter(pk__in=ids).values_list(Subquery(calls.values("started_at")[:1]), flat=True)
    return max((at for at in rows if at is not None), default=None)


# --- The mail -------------------------------------------------------------------------------------------------


def read_mail(ids: Sequence[int], *, now: datetime) -> MailSigns:
    """What has left these departments last, and what waits to leave; two queries, one more if some was refused."""
    sent = [at for (at,) in _SENT.rows(departments=ids)]
    refused = unsure = overdue = 0
    since: list[datetime] = []
    for counted in _UNSENT.rows(departments=ids, late=now - OVERDUE):
        refused, unsure, overdue = refused + counted[0], unsure + counted[1], overdue + counted[2]
        since += [at for at in counted[3:] if at is not None]
    first = _refused_first(ids) if refused else None
    return MailSigns(
        channels=len(sent),
        last_sent_at=max((at for at in sent if at is not None), default=None),
        refused=refused,
        unsure=unsure,
        overdue=overdue,
        overdue_since=min(since, default=None),
        refusal=first[0] if first else "",
        refused_next_at=first[1] if first else None,
    )


def _refused_first(ids: Sequence[int]) -> tuple[str, datetime] | None:
    """Of what waits after a refusal that which is tried next: what was said, and when it is tried."""
    refused = OutboxMessage.objects.filter(department__in=ids, status=OutboxMessage.Status.PENDING).exclude(error="")
    return refused.order_by("release_at").values_list("error", "release_at").first()


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
