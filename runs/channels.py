"""How news leaves Kontor for its own people: one small class a channel, one line in ``CHANNELS``.

Nothing here touches the database: sending may take long, and no transaction waits for it.
"""

from __future__ import annotations

import logging
import os
import smtplib
from dataclasses import dataclass
from typing import Protocol
from urllib.error import URLError

from django.conf import settings
from django.core.exceptions import ValidationError
from django.core.mail import EmailMessage, get_connection
from django.core.validators import validate_email
from slack_sdk.webhook import WebhookClient

TIMEOUT_SECONDS = 10
SLACK_URL = "KONTOR_SLACK_WEBHOOK_URL"
SLACK_CHARS = 3_000
SUBJECT_CHARS = 150


class NotDelivered(Exception):
    """It did not work now. The text says why and holds no secret."""


class Undeliverable(Exception):
    """It cannot work until somebody changes the settings. The text says which."""


@dataclass(frozen=True, slots=True)
class Notice:
    """One message. ``text`` is plain and of several lines; ``department`` is a slug, empty for all."""

    subject: str
    text: str
    department: str = ""


class Channel(Protocol):
    """``repeat_seconds``: the same alert again at the earliest. ``gap_seconds``: between two messages to a target."""

    repeat_seconds: int
    gap_seconds: int

    def send(self, address: str, notice: Notice) -> None:
        """Deliver, or raise NotDelivered or Undeliverable. ``address`` is what follows the colon in the target."""


class LogChannel:
    """The process log, which needs no settings."""

    repeat_seconds = 60
    gap_seconds = 0

    def send(self, address: str, notice: Notice) -> None:
        logging.getLogger("kontor.alerts").error("%s\n%s", notice.subject, notice.text)


class EmailChannel:
    """Mail over Django's mail settings."""

    repeat_seconds = 1_800
    gap_seconds = 60

    def send(self, address: str, notice: Notice) -> None:
        if not settings.EMAIL_IS_CONFIGURED:
            raise Undeliverable("No mail server is configured: set EMAIL_URL.")
        try:
            validate_email(address)
        except ValidationError as error:
            raise Undeliverable(f"{address!r} is not an e-mail address.") from error
        message = EmailMessage(
            subject=f"[Kontor] {' '.join(notice.subject.split())[:SUBJECT_CHARS]}",
            body=notice.text,
            to=[address],
            connection=get_connection(timeout=TIMEOUT_SECONDS),
        )
        try:
            message.send()
        except smtplib.SMTPRecipientsRefused as error:
            raise Undeliverable(f"The mail server refuses {address}.") from error
        except (smtplib.SMTPException, OSError) as error:
            raise NotDelivered(f"The mail server: {type(error).__name__}: {error}"[:500]) from error


class SlackChannel:
    """An incoming webhook. Its URL is a secret, so targets and messages only ever name its variable."""

    repeat_seconds = 900
    gap_seconds = 5

    def send(self, address: str, notice: Notice) -> None:
        names = [address] if address else [f"{SLACK_URL}_{_shouted(notice.department)}", SLACK_URL]
        found = [os.environ.get(name, "") for name in names]
        url = next(filter(None, found), "" if address else settings.SLACK_WEBHOOK_URL)
        if not url.startswith(("https://", "http://")):
            raise Undeliverable(f"No Slack webhook: set the environment variable {' or '.join(names)} to its URL.")
        try:
            answer = WebhookClient(url, timeout=TIMEOUT_SECONDS, retry_handlers=[]).send(text=_slack_text(notice))
        except URLError as error:
            raise NotDelivered(f"Slack cannot be reached: {error.reason}"[:500]) from error
        except (OSError, ValueError) as error:
            raise NotDelivered(f"Slack cannot be reached: {type(error).__name__}.") from error
        if answer.status_code in (400, 403, 404, 410):
            raise Undeliverable(f"Slack refuses the webhook of {names[0]}: {answer.status_code} {answer.body[:200]}")
        if answer.status_code != 200:
            raise NotDelivered(f"Slack answers {answer.status_code} {answer.body[:200]}")


CHANNELS: dict[str, Channel] = {
    "log": LogChannel(),
    "email": EmailChannel(),
    "slack": SlackChannel(),
}


def split_target(target: str) -> tuple[Channel, str]:
    """The channel of a target and the address in it; Undeliverable for a channel that does not exist."""
    name, _, address = target.partition(":")
    if name not in CHANNELS:
        raise Undeliverable(f"There is no channel {name!r}. There are {', '.join(sorted(CHANNELS))}.")
    return CHANNELS[name], address.strip()


def _shouted(slug: str) -> str:
    return slug.upper().replace("-", "_")


def _slack_text(notice: Notice) -> str:
    """Titles come from strangers: nothing in them may become a link or call the whole channel."""
    text = f"{notice.subject}\n{notice.text}"[:SLACK_CHARS]
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
