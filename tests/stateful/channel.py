"""A way out of the house that remembers what left, and fails when it is told to."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from runs.send_channels.base import Bounced, Config, Letter, Refused, Unsure

OUTCOMES = ("sent", "refused", "bounced", "unsure_left", "unsure_lost", "died")


class Died(BaseException):
    """The sender was killed after it had sent: nobody writes down what became of the message."""


class RememberingChannel:
    """Stands for e-mail. ``next`` is how the next sending ends; ``left`` counts what really left, by key."""

    reaches_person = True
    is_repeatable = False

    def __init__(self, left: Counter[str]) -> None:
        self.next = "sent"
        self.left = Counter(left)

    def problem(self, config: Config) -> str:
        return ""

    def render(self, letter: Letter, config: Config) -> dict[str, Any]:
        subject, body = letter.content.get("subject"), letter.content.get("body")
        return {"subject": subject, "body": body, "to": letter.address, "from": "mara@example.com", "headers": {}}

    def send(self, key: str, rendered: Mapping[str, Any], config: Config) -> str:
        if self.next == "refused":
            raise Refused("Come back later.")
        if self.next == "bounced":
            raise Bounced("No such person.")
        if self.next == "unsure_lost":
            raise Unsure("The line broke.")
        self.left[key] += 1
        if self.next == "unsure_left":
            raise Unsure("The line broke after the last byte.")
        if self.next == "died":
            raise Died
        return f"id-{key}"
