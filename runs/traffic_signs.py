"""Reads what ``runs.verdict`` judges of what goes to the outside world: model calls and mail, as plain values.

Each page that shows the verdict asks this, so that the queries are compiled once and add up in the database.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import cache, reduce
from operator import or_
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
from runs.models import Channel, LogEntry, ModelCall, OutboxMessage
from runs.verdict import FAILING_CALLS, FRESH, CallSigns, MailSigns

RECENT_CALLS = 400
"""So many of the newest calls of each department that have ended are looked at."""
_EVER = datetime(2000, 1, 1, tzinfo=UTC)
OVERDUE = timedelta(minutes=2)


# --- Calls ----------------------------------------------------------------------------------------------------


def read_calls(ids: Sequence[int], *, now: datetime) -> CallSigns:
    """The newest calls that have ended of the department whose calls fail most; of all of them where none fail.

    Two queries, two more where calls fail. Each department is looked at alone: the many calls of one would hide that
    all of a small one fail.
    """
    # Not in one query: PostgreSQL would not know how few they are, and read all calls.
    begins = _BEGINS.rows(departments=ids)
    counted = _count_ended(begins, now - FRESH)
    failing = [signs for signs in counted.values() if signs.is_failing]
    if not failing:
        whole = _summed(list(counted.values()))
        if whole.last_at is None:
            return replace(whole, last_at=_last_call(ids))
        return replace(whole, failing_since=_failing_since(whole, ids)) if whole.is_failing else whole
    worst = max(failing, key=lambda signs: (signs.failed / signs.ended, signs.failed))
    pk, name = next((pk, name) for pk, name, _ in begins if counted.get(pk) is worst)
    return replace(
        worst,
        department=name if len(ids) > 1 else "",
        others=len(failing) - 1,
        failing_since=_failing_since(worst, [pk]),
    )


def _count_ended(begins: Sequence[tuple[Any, ...]], fresh: datetime) -> dict[int, CallSigns]:
    """By department what its newest calls come to. ``begins``: as ``_begins`` reads them."""
    if not begins:
        return {}
    given: dict[str, Any] = {"fresh": fresh}
    for number, (pk, _, begin) in enumerate(begins):
        given |= {f"department_{number}": pk, f"begin_{number}": begin or _EVER}
    groups: dict[int, list[CallSigns]] = {}
    for pk, cause, has_error, recent, at, first_at in _ended(len(begins)).rows(**given):
        if cause or has_error:
            # The API has answered, so the call names no cause; what is wrong with the answer stands beside it.
            why = Counter({Cause(cause or Cause.INVALID).label: recent})
            signs = CallSigns(last_at=at, ended=recent, failed=recent, causes=why, failing_since=first_at)
        else:
            signs = CallSigns(last_at=at, last_good_at=at, ended=recent)
        groups.setdefault(pk, []).append(signs)
    return {pk: _summed(each) for pk, each in groups.items()}


def _summed(each: Sequence[CallSigns]) -> CallSigns:
    return CallSigns(
        last_at=max((signs.last_at for signs in each if signs.last_at), default=None),
        last_good_at=max((signs.last_good_at for signs in each if signs.last_good_at), default=None),
        ended=sum(signs.ended for signs in each),
        failed=sum(signs.failed for signs in each),
        causes=sum((Counter(signs.causes) for signs in each), Counter[str]()),
        failing_since=min((signs.failing_since for signs in each if signs.failing_since), default=None),
    )


def _failing_since(signs: CallSigns, ids: Sequence[int]) -> datetime | None:
    """When nothing is answered any more that may have begun long before the newest calls, and what counts as fresh."""
    answered = max((at for (at,) in _ANSWERED.rows(departments=ids) if at is not None), default=_EVER)
    in_a_row = _FAILED.rows(limit=FAILING_CALLS, departments=ids, after=answered)
    return in_a_row[0][0] if len(in_a_row) == FAILING_CALLS else signs.failing_since


def _begins() -> QuerySet[Department, Any]:
    """When each department began the first of its newest calls that have ended; None if it has not made so many.

    Counted calls, not ids: those are of all departments, and some belong to no call.
    """
    nth = _newest(_CALLS)[RECENT_CALLS - 1 : RECENT_CALLS]
    return Department.objects.filter(Among("pk", "departments")).order_by("pk").values_list("pk", "name", Subquery(nth))


def _newest(calls: QuerySet[ModelCall]) -> QuerySet[ModelCall, Any]:
    """When those of a department began, by the index that has them in this order."""
    return calls.filter(department=OuterRef("pk")).order_by("-started_at").values("started_at")


@cache
def _ended(number: int) -> Statement[ModelCall]:
    """The groups of the newest calls of so many departments, each from a moment of its own."""
    # Each beside its moment: so PostgreSQL knows how few calls those are.
    newest = [
        Q(
            department_id=Given(f"department_{one}", BigIntegerField()),
            started_at__gte=Given(f"begin_{one}", DateTimeField()),
        )
        for one in range(number)
    ]
    is_fresh = Q(ended_at__gt=Given("fresh", DateTimeField()))
    return Statement(
        lambda: (
            _CALLS.filter(reduce(or_, newest), ended_at__isnull=False)
            .order_by()
            .annotate(has_error=ExpressionWrapper(~Q(error=""), BooleanField()))
            .values_list("department_id", "cause", "has_error")
            .annotate(
                recent=Count("pk", filter=is_fresh), at=Max("ended_at"), first_at=Min("ended_at", filter=is_fresh)
            )
        )
    )


_CALLS = ModelCall.objects.filter(status=ModelCall.Status.FINISHED)
_BEGINS = Statement(_begins)
_ANSWERED = Statement(
    lambda: (
        Department.objects.filter(Among("pk", "departments"))
        .order_by()
        .values_list(Subquery(_newest(_CALLS.filter(cause="", error="", ended_at__isnull=False))[:1]))
    )
)
_FAILED = Statement(
    lambda: (
        _CALLS.filter(Among("department_id", "departments"), started_at__gt=Given("after", DateTimeField()))
        .filter(~Q(cause="") | ~Q(error=""), ended_at__isnull=False)
        .order_by("started_at")
        .values_list("ended_at")
    )
)


def _last_call(ids: Sequence[int]) -> datetime | None:
    """When the newest call of these departments began: others may have made thousands since."""
    rows = Department.objects.filter(pk__in=ids).values_list(Subquery(_newest(ModelCall.objects.all())[:1]), flat=True)
    return max((at for at in rows if at is not None), default=None)


# --- The mail -------------------------------------------------------------------------------------------------


def read_mail(ids: Sequence[int], *, now: datetime) -> MailSigns:
    """What has left these departments last, and what waits to leave; two queries, three more if some was refused."""
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
    message = _refused(ids).order_by("pk").only("item_id").first()
    if message is None:
        return None
    told = LogEntry.objects.filter(item=message.item_id, kind="outbox", data__refused=message.pk)
    return told.order_by("pk").values_list("at", flat=True).first()


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
