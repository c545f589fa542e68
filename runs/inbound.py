"""What doors for webhooks share: a body of bounded size, its signature, a refusal with a reason."""

from __future__ import annotations

import binascii
import json
import math
import os
from typing import Any

from django.http import HttpRequest, JsonResponse
from standardwebhooks.webhooks import EmptyWebhookSecretError, Webhook, WebhookVerificationError

MAX_BODY_BYTES = 1_048_576
_SIGNED_HEADERS = ("webhook-id", "webhook-timestamp", "webhook-signature")


class RefusedError(Exception):
    """The request is refused with an HTTP ``status`` and a reason, a sentence that the sender can act on."""

    def __init__(self, status: int, reason: str, **details: Any) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason
        self.details = details

    def response(self) -> JsonResponse:
        """``{"error": reason, ...details}``; where the method is wrong, with the right one."""
        headers = {"Allow": "POST"} if self.status == 405 else None
        return JsonResponse({"error": self.reason, **self.details}, status=self.status, headers=headers)


def read_body(request: HttpRequest, *, limit: int = MAX_BODY_BYTES) -> bytes:
    """The raw JSON body; refused with 415 if it is of another type and 413 if it is longer than ``limit`` bytes."""
    if request.content_type != "application/json":
        raise RefusedError(415, "Send the content type application/json.")
    # Not `request.body`, which would read a body of any announced size first.
    body = request.read(limit + 1)
    if len(body) > limit:
        raise RefusedError(413, f"The body is longer than {limit:,} bytes.")
    return bytes(body)


def check_signature(request: HttpRequest, body: bytes, *, secret_env: str) -> str:
    """The delivery's id, once its Standard Webhooks signature is found good.

    Refused with 503 where the secret is missing, and 401 where a header is, or where the signature is wrong or older
    than five minutes. The secret is read from the environment, never from the database.
    """
    try:
        webhook = Webhook(os.environ.get(secret_env, "").strip())
    except EmptyWebhookSecretError:
        raise RefusedError(503, f"Webhooks are off: the variable {secret_env} holds no secret.") from None
    except binascii.Error:
        raise RefusedError(503, f"Webhooks are off: the secret in {secret_env} is not base64.") from None
    headers = {name: request.headers.get(name, "") for name in _SIGNED_HEADERS}
    try:
        webhook.verify(body, headers, json_parse=False)
    except WebhookVerificationError as error:
        raise RefusedError(401, f"The signature is refused: {error}.") from error
    except ValueError as error:  # a signature without its version, or that is not base64; a body that is not UTF-8
        raise RefusedError(401, "The signature is refused: it is malformed, or the body is not UTF-8.") from error
    return headers["webhook-id"]


def parse_object(body: bytes) -> dict[str, Any]:
    """The JSON object in a body; refused with 400 if it is none, or holds a number that JSON does not know."""
    try:
        value = json.loads(body, parse_constant=_refuse_constant, parse_float=_finite)
    except (ValueError, RecursionError) as error:
        raise RefusedError(400, f"The body is not JSON: {error}.") from error
    if not isinstance(value, dict):
        raise RefusedError(400, "The body must be one JSON object.")
    return value


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is not a JSON number")


def _finite(text: str) -> float:
    if not math.isfinite(number := float(text)):
        raise ValueError(f"{text} is too large")
    return number
