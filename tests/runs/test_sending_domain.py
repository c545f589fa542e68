"""SPF, DKIM and DMARC of a sender's domain: there, missing, or honestly unknown."""

from __future__ import annotations

from collections.abc import Sequence

from runs.sending_domain import CannotAsk, check_domain

RECORDS = {
    "x.example": ["google-site-verification=1", "v=spf1 include:_spf.x.example -all"],
    "_dmarc.x.example": ["v=DMARC1; p=none"],
    "s1._domainkey.x.example": ["v=DKIM1; k=rsa; p=MIGf"],
}


def look(name: str) -> Sequence[str]:
    return RECORDS.get(name, ())


def test_what_is_published_is_found() -> None:
    found = check_domain("Mara <mara@x.example>", look=look)
    assert [(record.name, record.is_good) for record in found] == [("SPF", True), ("DKIM", True), ("DMARC", True)]


def test_what_is_missing_is_said() -> None:
    spf, dkim, dmarc = check_domain("mara@y.example", look=look)
    assert (spf.is_good, dmarc.is_good) == (False, False)
    assert dkim.is_good is None  # a key may lie under another name
    assert check_domain("mara@y.example", selector="own", look=look)[1].is_good is False


def test_two_spf_records_are_none() -> None:
    spf = check_domain("mara@x.example", look=lambda name: ["v=spf1 -all", "v=spf1 a -all"])[0]
    assert spf.is_good is False


def test_dns_that_does_not_answer_is_no_finding() -> None:
    def silent(name: str) -> Sequence[str]:
        raise CannotAsk("LifetimeTimeout")

    found = check_domain("mara@x.example", look=silent)
    assert [record.is_good for record in found] == [None, None, None]
    assert all("could not be checked" in record.text for record in found)
