"""The one form in which addresses are compared, and what of them the suppression list may hold."""

from __future__ import annotations

import unicodedata

from django.conf import settings
from django.utils.crypto import salted_hmac
from email_validator import EmailNotValidError, validate_email

MAX_CHARS = 320
ERASED_SALT = "kontor.erased"


def normalise_email(text: str) -> str:
    """The address in the form in which addresses are compared: lower case, NFC, the domain in ASCII (IDNA).

    ``ValueError`` says what is wrong with it. Whether the domain takes mail is not asked.
    """
    if len(text) > MAX_CHARS:
        raise ValueError("it is too long")
    try:
        found = validate_email(text, check_deliverability=False)
    except EmailNotValidError as error:
        raise ValueError(str(error)) from error
    # Lower case may leave a letter decomposed (İ), hence normalised last.
    return unicodedata.normalize("NFC", f"{found.local_part.lower()}@{found.ascii_domain}")


def normalise_entry(text: str) -> str:
    """The same for an entry of the suppression list, which may also be ``@domain``; ``ValueError`` as above."""
    text = text.strip()
    if text.startswith("@"):
        return normalise_email(f"somebody{text}").removeprefix("somebody")
    return normalise_email(text)


def compared(text: str) -> str:
    """The normal form where there is one; else the text in lower case, so that a faulty address is comparable too."""
    try:
        return normalise_email(text.strip())
    except ValueError:
        return unicodedata.normalize("NFC", text.strip().lower())


def entries_for(address: str) -> list[str]:
    """Under what the suppression list may hold this address: itself, its domain, and what is kept of an erased one.

    Empty without an address.
    """
    address = compared(address)
    return [address, f"@{address.rpartition('@')[2]}", *erased_entries(address)] if address else []


def erased_entry(address: str, key: str | None = None) -> str:
    """What is kept of an erased address: ``#`` and a hash under the installation's ``SECRET_KEY``, or that ``key``.

    Without the key nobody can try addresses until one fits; with another key the address is not known any more.
    """
    return f"#{salted_hmac(ERASED_SALT, compared(address), secret=key, algorithm='sha256').hexdigest()}"


def erased_entries(address: str) -> list[str]:
    """The same under every key of the installation, the former ones that it still takes included."""
    return [erased_entry(address, key) for key in (settings.SECRET_KEY, *settings.SECRET_KEY_FALLBACKS)]
