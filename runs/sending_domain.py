"""Whether others will believe the sender: SPF, DKIM and DMARC of its domain, where DNS can be reached."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from email.utils import parseaddr

import dns.exception
import dns.resolver

SECONDS = 3.0
SELECTORS = ("default", "google", "selector1", "selector2", "s1", "s2", "k1", "mail", "dkim")
"""Under which DKIM keys are usually published; a channel may name its own as ``dkim_selector``."""


class CannotAsk(Exception):
    """DNS did not answer: nothing is known either way."""


@dataclass(frozen=True, slots=True)
class Record:
    """What was found. ``is_good`` None: it could not be checked."""

    name: str
    is_good: bool | None
    text: str


Look = Callable[[str], Sequence[str]]
"""The TXT records of a name; empty if there are none, ``CannotAsk`` if nobody answers."""


def check_domain(sender: str, *, selector: str = "", look: Look | None = None) -> list[Record]:
    """SPF, DKIM and DMARC of a sender's domain, each in one sentence."""
    domain = parseaddr(sender)[1].rpartition("@")[2]
    ask = look or look_up
    return [_spf(domain, ask), _dkim(domain, selector, ask), _dmarc(domain, ask)]


def look_up(name: str) -> Sequence[str]:
    """The TXT records of a name, asked of this machine's resolvers."""
    try:
        answer = dns.resolver.resolve(name, "TXT", lifetime=SECONDS)
    except (dns.resolver.NXDOMAIN, dns.resolver.NoAnswer):
        return ()
    except (dns.exception.DNSException, OSError) as error:
        raise CannotAsk(type(error).__name__) from error
    return [b"".join(record.strings).decode(errors="replace") for record in answer]


def _spf(domain: str, look: Look) -> Record:
    return _record("SPF", domain, domain, "v=spf1", look, "Receivers cannot tell which servers may send for it.")


def _dmarc(domain: str, look: Look) -> Record:
    return _record(
        "DMARC", domain, f"_dmarc.{domain}", "v=DMARC1", look, "Large providers refuse bulk mail without it."
    )


def _dkim(domain: str, selector: str, look: Look) -> Record:
    for each in [selector] if selector else SELECTORS:
        found = _record("DKIM", domain, f"{each}._domainkey.{domain}", "p=", look, "")
        if found.is_good or found.is_good is None:
            return found
    if selector:
        return Record("DKIM", False, f"{domain} publishes no key under the selector {selector}.")
    return Record("DKIM", None, "No key under the usual selectors: name yours in the channel's settings.")


def _record(name: str, domain: str, where: str, mark: str, look: Look, why: str) -> Record:
    try:
        found = [text for text in look(where) if mark.lower() in text.lower()]
    except CannotAsk as error:
        return Record(name, None, f"It could not be checked: DNS does not answer ({error}).")
    if len(found) > 1 and name == "SPF":
        return Record(name, False, f"{domain} has {len(found)} SPF records, and only one may be: none counts.")
    if found:
        return Record(name, True, found[0][:200])
    return Record(name, False, f"{domain} has no {name} record. {why}".strip())
