"""Mails that were written to files instead of being sent, as the demo does it; for reading."""

from __future__ import annotations

import email
from dataclasses import dataclass
from email import policy
from email.message import EmailMessage
from pathlib import Path

from django.conf import settings
from django.core.mail.backends.filebased import EmailBackend as FileBackend
from django.utils.module_loading import import_string

MAX_MAILS = 50
MAX_BYTES = 200_000
_LINE = b"-" * 79 + b"\n"


@dataclass(frozen=True, slots=True)
class StoredMail:
    """One mail, as text."""

    subject: str
    sender: str
    to: str
    date: str
    body: str
    headers: str


def is_in_files() -> bool:
    """Whether mails are written to files here, so that there is a mailbox to look into."""
    return issubclass(import_string(settings.EMAIL_BACKEND), FileBackend)


def read_mailbox(folder: Path) -> list[StoredMail]:
    """The newest mails, at most ``MAX_MAILS``."""
    files = sorted(folder.glob("*.log"), key=lambda path: path.stat().st_mtime, reverse=True)[:MAX_MAILS]
    mails = []
    for path in files:
        with path.open("rb") as handle:
            content = handle.read(MAX_BYTES)
        mails += [_read(part) for part in reversed(content.split(_LINE)) if part.strip()]
    return mails[:MAX_MAILS]


def _read(content: bytes) -> StoredMail:
    mail = email.message_from_bytes(content, _class=EmailMessage, policy=policy.default)
    body = mail.get_body(("plain",))
    return StoredMail(
        subject=str(mail["Subject"] or ""),
        sender=str(mail["From"] or ""),
        to=str(mail["To"] or ""),
        date=str(mail["Date"] or ""),
        body=str(body.get_content()).strip() if body is not None else "",
        headers="\n".join(f"{name}: {value}" for name, value in mail.items()),
    )
