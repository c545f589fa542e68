"""Signed POSTs: a CRM's door, or any webhook. Signed per Standard Webhooks; the id makes a second one harmless."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import httpx2
from django.conf import settings
from standardwebhooks.webhooks import Webhook

from runs.send_channels.base import Config, Letter, Misconfigured, Refused, Undeliverable, Unsure

LATER = (408, 425, 429)
FORBIDDEN = (401, 403)
MAX_ANSWER = 300


class WebhookChannel:
    """``settings["url"]`` gets one JSON object: what happened, for whom, and the fields."""

    reaches_person = False
    is_repeatable = True
    event = "message"

    def problem(self, config: Config) -> str:
        if not config.text("url").startswith(("https://", "http://")):
            return f"The {self.event} channel has no URL: an administrator enters it."
        if not config.secret:
            return f"The environment variable {config.secret_env or 'that signs'} holds no secret: set it."
        try:
            Webhook(config.secret)
        except Exception:
            return f"The secret in {config.secret_env} is not one of Standard Webhooks (whsec_ and base64)."
        return ""

    def render(self, letter: Letter, config: Config) -> dict[str, Any]:
        return {
            "type": f"kontor.{self.event}",
            "id": letter.key,
            "to": letter.address,
            "data": dict(letter.content),
        }

    def send(self, key: str, rendered: Mapping[str, Any], config: Config) -> str:
        body = json.dumps(rendered, ensure_ascii=False)
        at = datetime.now(UTC)
        headers = {
            "content-type": "application/json",
            "webhook-id": key,
            "webhook-timestamp": str(int(at.timestamp())),
            "webhook-signature": Webhook(config.secret).sign(key, at, body),
            "idempotency-key": key,
        }
        return post(config.text("url"), body, headers)


class CrmChannel(WebhookChannel):
    """An update of the CRM, over whatever takes its webhooks."""

    event = "crm_update"


def post(url: str, body: str, headers: Mapping[str, str]) -> str:
    """One POST that follows no redirect; an id from the answer if it has one. Says how it ended by what it raises."""
    try:
        with httpx2.Client(timeout=settings.SEND_TIMEOUT_SECONDS, follow_redirects=False) as client:
            answer = client.post(url, content=body.encode(), headers=dict(headers))
    except (httpx2.ConnectError, httpx2.ConnectTimeout) as error:
        raise Refused(f"It cannot be reached: {type(error).__name__}.") from error
    except httpx2.InvalidURL as error:
        raise Misconfigured("The URL is not one.") from error
    except httpx2.HTTPError as error:
        raise Unsure(f"It broke off without an answer: {type(error).__name__}.") from error
    told = f"It answers {answer.status_code} {answer.text[:MAX_ANSWER]}".strip()
    if answer.is_success:
        return answer.headers.get("x-request-id", "")[:255]
    if answer.status_code in FORBIDDEN:
        raise Misconfigured(told)
    if answer.status_code in LATER:
        raise Refused(told)
    if answer.status_code >= 500:
        raise Unsure(told)
    raise Undeliverable(told)
