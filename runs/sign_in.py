"""Whoever guesses passwords has to wait: tries that failed are counted in the database, by name and address.

A try is written down before the password is looked at, so that many at once are not more than one after the other.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from ipaddress import IPv6Address, IPv6Network, ip_address

from django.contrib.auth.models import User
from django.utils.crypto import salted_hmac

from runs import log
from runs.database import now as database_now
from runs.models import LogEntry, SignInAttempt

LIMIT = 10
"""So many failures of one name from one address, then a wait."""
LIMIT_ANYWHERE = 50
"""The same from all addresses together: many machines may guess, and one of them must not shut a person out."""
LIMIT_OF_ADDRESS = 100
"""The same of all names together from one address: whoever tries one password on many names. Offices share one."""
WITHIN = timedelta(minutes=15)
_KEPT = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Attempt:
    """A try that was let in, or with ``wait_until`` one that was not. It is the ``count``-th."""

    name: str
    address: str
    count: int = 0
    count_of_address: int = 0
    wait_until: datetime | None = None


def begin_attempt(*, name: str, address: str) -> Attempt:
    """Count a try; the password may be looked at unless it says until when to wait. It counts as failed."""
    now, name = database_now(), _stored(name)
    SignInAttempt.objects.filter(at__lt=now - _KEPT).delete()
    row = SignInAttempt.objects.create(name=name, address=network_of(address), at=now)
    # Counted after it was written: of many at the same moment nobody sees fewer than came before.
    lately = SignInAttempt.objects.filter(at__gt=now - WITHIN).order_by("-at", "-pk")
    of_name, of_address = lately.filter(name=name), lately.filter(address=row.address)
    counted = [(of_name.filter(address=row.address), LIMIT), (of_name, LIMIT_ANYWHERE)]
    if _is_of_internet(address):
        counted.append((of_address, LIMIT_OF_ADDRESS))
    tries = [(list(rows.values_list("at", flat=True)[: limit + 1]), limit) for rows, limit in counted]
    for times, limit in tries:
        if len(times) > limit:
            row.delete()  # or who keeps trying would wait for ever
            return Attempt(name, row.address, wait_until=times[limit] + WITHIN)
    return Attempt(name, row.address, count=len(tries[0][0]), count_of_address=len(tries[2][0]) if tries[2:] else 0)


def note_failure(attempt: Attempt) -> None:
    """The try failed. The last one before the wait is a line in the log."""
    minutes = int(WITHIN.total_seconds() // 60)
    said = []
    if attempt.count == LIMIT:
        said.append(f"{LIMIT} wrong passwords for {attempt.name} from {attempt.address}")
    if attempt.count_of_address == LIMIT_OF_ADDRESS:
        said.append(f"{LIMIT_OF_ADDRESS} wrong passwords from {attempt.address}")
    level, now = LogEntry.Level.WARNING, database_now()
    texts = [f"{text} within {minutes} minutes: they wait." for text in said]
    log.write([LogEntry(kind="sign_in", level=level, text=text, at=now) for text in texts])


def forget_attempts(*, name: str, address: str | None = None) -> None:
    """Whoever has signed in, or was given a new password, begins anew: from this address, or from all."""
    rows = SignInAttempt.objects.filter(name=_stored(name))
    (rows if address is None else rows.filter(address=network_of(address))).delete()


def network_of(address: str) -> str:
    """What counts as one address: of IPv6 the /64, because one machine has all of it."""
    try:
        found = ip_address(address)
    except ValueError:
        return address[:45]
    if not isinstance(found, IPv6Address):
        return str(found)
    return str(found.ipv4_mapped or IPv6Network((int(found), 64), strict=False))


def describe_wait(until: datetime, now: datetime) -> str:
    """The sentence for whoever has to wait."""
    minutes = max(int((until - now).total_seconds() // 60) + 1, 1)
    return f"Too many tries. Wait {minutes} minute{'s' if minutes > 1 else ''}, then try again."


def _is_of_internet(address: str) -> bool:
    """Any other may be that of a proxy, behind which everybody is, or of nobody: no limit of all names together."""
    try:
        return ip_address(network_of(address).partition("/")[0]).is_global
    except ValueError:
        return False


def _stored(name: str) -> str:
    """Names of people as they are; of anything else a hash, because it may be a password in the wrong field."""
    name = name.strip()[:150]
    known = User.objects.filter(username__iexact=name).values_list("username", flat=True).first()
    return known or f"#{salted_hmac('kontor.sign-in', name.casefold(), algorithm='sha256').hexdigest()[:20]}"
