"""What a way out of the house is: one small class, one line in ``runs.send_channels.CHANNELS``.

A plug-in knows no models. It renders what will be sent while the approval is written down, and sends exactly that
later, with no transaction open. How a sending ended it says by returning or by what it raises.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol


class Refused(Exception):
    """It has certainly not been sent, and may be tried again later. The text says why and holds no secret."""


class Undeliverable(Refused):
    """It has certainly not been sent, and trying again will not help."""


class Bounced(Undeliverable):
    """This address does not take mail: nobody is to write to it again."""


class Misconfigured(Refused):
    """It has certainly not been sent: the settings or the credentials are wrong. Counts as no try."""


class Unsure(Exception):
    """It may have been sent. Only a channel that is safe to repeat may try again."""


@dataclass(frozen=True, slots=True)
class Letter:
    """What is to be rendered. ``thread`` are the Message-IDs of the conversation so far, oldest first."""

    key: str
    address: str
    content: Mapping[str, Any]
    thread: tuple[str, ...] = ()
    unsubscribe_url: str = ""


@dataclass(frozen=True, slots=True)
class Config:
    """How a department uses the channel. ``secret`` comes from the environment; it is never stored or shown."""

    settings: Mapping[str, Any] = field(default_factory=dict)
    secret: str = field(default="", repr=False)
    secret_env: str = ""

    def text(self, name: str) -> str:
        """A setting as text, empty if it is missing."""
        return str(self.settings.get(name) or "").strip()


class SendChannel(Protocol):
    """``reaches_person``: suppressions, quiet hours and first sends to a person apply.

    ``is_repeatable``: the other side drops a second delivery of the same key, so an unsure one may be repeated.
    """

    reaches_person: bool
    is_repeatable: bool

    def problem(self, config: Config) -> str:
        """Why nothing can be sent as it is set up; one sentence, empty if it can."""

    def render(self, letter: Letter, config: Config) -> dict[str, Any]:
        """Exactly what will be sent, as JSON."""

    def send(self, key: str, rendered: Mapping[str, Any], config: Config) -> str:
        """Send it; the other side's id for it, if it gives one. Raises ``Refused`` or ``Unsure``."""
