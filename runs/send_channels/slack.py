"""A post in Slack over an incoming webhook. Slack knows no idempotency key, so an unsure one is not repeated."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.error import URLError

from django.conf import settings
from slack_sdk.webhook import WebhookClient

from runs.send_channels.base import Config, Letter, Misconfigured, Refused, Undeliverable, Unsure

MAX_CHARS = 3_000


class SlackPost:
    """The webhook's URL is its secret: it comes from the environment."""

    reaches_person = False
    is_repeatable = False

    def problem(self, config: Config) -> str:
        if not config.secret.startswith(("https://", "http://")):
            return f"The environment variable {config.secret_env or 'of the webhook'} holds no Slack webhook: set it."
        return ""

    def render(self, letter: Letter, config: Config) -> dict[str, Any]:
        text = f"{letter.content.get('subject', '')}\n{letter.content.get('body', '')}".strip()[:MAX_CHARS]
        # Titles come from strangers: nothing in them may become a link or call the whole channel.
        return {"text": text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")}

    def send(self, key: str, rendered: Mapping[str, Any], config: Config) -> str:
        try:
            client = WebhookClient(config.secret, timeout=int(settings.SEND_TIMEOUT_SECONDS), retry_handlers=[])
            answer = client.send(text=str(rendered["text"]))
        except URLError as error:
            if isinstance(error.reason, ConnectionRefusedError):
                raise Refused("Slack cannot be reached.") from error
            raise Unsure(f"Slack did not answer: {type(error.reason).__name__}.") from error
        except (OSError, ValueError) as error:
            raise Unsure(f"Slack did not answer: {type(error).__name__}.") from error
        if answer.status_code in (403, 404, 410):
            raise Misconfigured(f"Slack refuses the webhook: {answer.status_code}.")
        if answer.status_code == 429:
            raise Refused("Slack asks to wait.")
        if answer.status_code >= 500:
            raise Unsure(f"Slack answers {answer.status_code}.")
        if answer.status_code != 200:
            raise Undeliverable(f"Slack answers {answer.status_code} {answer.body[:200]}")
        return ""
