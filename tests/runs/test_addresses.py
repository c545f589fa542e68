"""Addresses in the form in which they are compared."""

from __future__ import annotations

from typing import Any

import pytest

from runs.addresses import compared, entries_for, erased_entry, normalise_email, normalise_entry


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("A.B@Example.COM", "a.b@example.com"),
        ("jörg@bücher.example", "jörg@xn--bcher-kva.example"),
        ("jo\u0308rg@x.example", "jörg@x.example"),
    ],
)
def test_addresses_are_compared_in_one_form(text: str, address: str) -> None:
    assert normalise_email(text) == address


@pytest.mark.parametrize("text", ["", "a", "a@", "@x.example", "a@localhost", "a b@x.example", "a@" + "x" * 400])
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        normalise_email(text)


def test_an_entry_of_the_list_may_be_a_domain() -> None:
    assert normalise_entry(" @Bücher.example ") == "@xn--bcher-kva.example"
    assert normalise_entry("Ann@Example.COM") == "ann@example.com"


@pytest.mark.parametrize("text", ["example.com", "@", "@localhost", "@a b.example"])
def test_an_entry_that_is_neither_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        normalise_entry(text)


def test_a_faulty_address_is_compared_in_lower_case() -> None:
    assert compared(" Ann@LOCALHOST ") == "ann@localhost"


def test_an_address_is_looked_up_by_itself_and_by_its_domain() -> None:
    entries = entries_for("Jörg@Bücher.example")
    assert entries == ["jörg@xn--bcher-kva.example", "@xn--bcher-kva.example", erased_entry("jörg@bücher.example")]
    assert entries_for("") == []


def test_of_an_erased_address_a_hash_is_kept_that_only_the_installations_key_leads_to(settings: Any) -> None:
    entry = erased_entry("Lena@Example.com")
    assert entry == erased_entry("lena@example.com")
    assert len(entry) == 65
    assert "lena" not in entry
    former, settings.SECRET_KEY = settings.SECRET_KEY, "another key"
    assert entry not in entries_for("lena@example.com")
    settings.SECRET_KEY_FALLBACKS = [former]
    assert entry in entries_for("lena@example.com")
