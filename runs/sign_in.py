"""Whoever guesses passwords has to wait: tries that failed are counted in the database, by name and address.

A try is written down before the password is looked at, so that many at once are not more than one after the other.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from django.contrib.auth.models import User
from django.utils.crypto import salted_hmac

from runs import log
from runs.database import now as database_now
from runs.models import LogEntry, SignInAttempt

LIMIT = 10
"""So many failures of one name from one address, then a wait."""
LIMIT_ANYWHERE = 50
"""The same from all addresses together: many machines may guess, and one of them must not shut a person out."""
WITHIN = timedelta(minutes=15)
_KEPT = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Attempt:
    """A try that was let in, or with ``wait_until`` one that was not."""

    name: str
    address: str
    count: int = 0
    wait_until: datetime | None = None


def begin_attempt(*, name: str, address: str) -> Attempt:
    """Count a try; the password may be looked at unless it says until when to wait. It counts as failed."""
    now, name = database_now(), _stored(name)
    SignInAttempt.objects.filter(at__lt=now - _KEPT).delete()
    row = SignInAttempt.objects.create(name=name, address=address[:45], at=now)
    # Counted after it was written: of many at the same moment nobody sees fewer than came before.
    lately = SignInAttempt.objects.filter(name=name, at__gt=now - WITHIN)
    here = list(lately.filter(address=row.address).order_by("-at", "-pk").values_list("at", flat=True)[: LIMIT + 1])
    anywhere = list(lately.order_by("-at", "-pk").values_list("at", flat=True)[: LIMIT_ANYWHERE + 1])
    for tries, limit in ((here, LIMIT), (anywhere, LIMIT_ANYWHERE)):
        if len(tries) > limit:
            row.delete()  # or who keeps trying would wait for ever
            return Attempt(name, row.address, wait_until=tries[limit] + WITHIN)
    return Attempt(name, row.address, count=len(here))


def note_failure(attempt: Attempt) -> None:
    """The try failed. The last one before the wait is a line in the log."""
    if attempt.count == LIMIT:
        minutes = int(WITHIN.total_seconds() // 60)
        text = f"{LIMIT} wrong passwords for {attempt.name} from {attempt.address} within {minutes} minutes: they wait."
        level = LogEntry.Level.WARNING
        log.write([LogEntry(kind="sign_in", level=level, text=text, at=database_now())])


def forget_attempts(*, name: str, address: str | None = None) -> None:
    """Whoever has signed in, or was given a new password, begins anew: from this address, or from all."""
    rows = SignInAttempt.objects.filter(name=_stored(name))
    (rows if address is None else rows.filter(address=address[:45])).delete()


def describe_wait(until: datetime, now: datetime) -> str:
    """The sentence for whoever has to wait."""
    minutes = max(int((until - now).total_seconds() // 60) + 1, 1)
    return f"Too many tries. Wait {minutes} minute{'s' if minutes > 1 else ''}, then try again."


def _stored(name: str) -> str:
    """Names of people as they are; of anything else a hash, because it may be a password in the wrong field."""
    name = name.strip()[:150]
    known = User.objects.filter(username__iexact=name).values_list("username", flat=True).first()
    return known or f"#{salted_hmac('kontor.sign-in', name.casefold(), algorithm='sha256').hexdigest()[:20]}"
