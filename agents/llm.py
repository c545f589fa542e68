"""The model API. The only file that imports ``anthropic``.

``ModelClient.call`` never raises for what a server or a network can do: it returns a ``ModelReply`` that holds
whatever usage was reported before things went wrong, because a failed call costs too. Retries are not made here.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import cache
from typing import Any

import aiohttp
import anthropic
import httpx2
from pydantic import BaseModel

from agents.causes import Cause
from agents.reading import storable
from agents.replies import ModelReply, ModelRequest
from agents.stream import StreamError, UnpricedFees, gather, judge_stop, read_events, read_name

MAX_CONNECTIONS = 1_000
CONNECT_SECONDS = 5
_ACCOUNT_STATUSES = (401, 402, 403)
_STREAM_CAUSES = {"rate_limit_error": Cause.RATE_LIMITED, "overloaded_error": Cause.OVERLOADED}
_SPEND_LIMITS = (anthropic.EnforcedSpendLimitReachedError, anthropic.ContractSpendLimitReachedError)


@cache
def api_schema(model: type[BaseModel]) -> dict[str, Any]:
    """The JSON schema of an output as the API accepts it; constraints it does not know become descriptions."""
    return anthropic.transform_schema(model)


class ModelClient:
    """Talks to the Messages API for one event loop. Close it there.

    A call of which nothing is heard for ``silence_seconds`` is given up before its time-out.
    """

    def __init__(self, base_url: str, *, silence_seconds: float | None = None) -> None:
        self._silence_seconds = silence_seconds
        limits = httpx2.Limits(max_connections=MAX_CONNECTIONS, max_keepalive_connections=MAX_CONNECTIONS)
        # The SDK's default transport collapses above 250 requests in flight; aiohttp does not.
        self._http = anthropic.DefaultAioHttpClient(limits=limits)
        self._base_url = base_url
        self._clients: dict[str, anthropic.AsyncAnthropic] = {}

    async def call(
        self, request: ModelRequest, on_event: Callable[[], None] | None = None, *, into: ModelReply | None = None
    ) -> ModelReply:
        """Send one streamed request and gather the answer. ``on_event`` is called for every event that arrives.

        Whoever may cancel the call gives the reply to fill: what had been seen by then, usage above all, is in it.
        """
        reply, started = ModelReply() if into is None else into, time.monotonic()
        limit = asyncio.timeout(min(request.timeout_seconds, self._silence_seconds or request.timeout_seconds))
        heard = self._listening(limit, request.timeout_seconds, on_event)
        try:
            async with (
                limit,
                self._client(request.api_key_env).messages.with_streaming_response.create(
                    **request.params,
                    stream=True,
                    timeout=httpx2.Timeout(request.timeout_seconds, connect=CONNECT_SECONDS),
                    extra_headers={"x-kontor-call": str(request.call_id), "x-kontor-agent": request.agent},
                ) as response,
            ):
                reply.request_id = read_name(response.headers.get("request-id", ""), 120)
                await gather(read_events(response.iter_bytes()), reply, started, heard)
        except Exception as error:  # everything a server, a network or the SDK can do ends here, classified
            _classify(error, reply)
            if limit.expired() and time.monotonic() - started < request.timeout_seconds:
                reply.error = f"Nothing was heard for {self._silence_seconds:g} seconds."
        else:
            judge_stop(reply)
        reply.error = storable(reply.error)
        reply.latency_ms = round((time.monotonic() - started) * 1000)
        return reply

    def _listening(
        self, limit: asyncio.Timeout, timeout_seconds: float, on_event: Callable[[], None] | None
    ) -> Callable[[], None] | None:
        """What is to be called for every event, so that a call that falls silent is given up early."""
        silence, loop = self._silence_seconds, asyncio.get_running_loop()
        if silence is None or silence >= timeout_seconds:
            return on_event
        end = loop.time() + timeout_seconds

        def heard() -> None:
            limit.reschedule(min(end, loop.time() + silence))
            if on_event is not None:
                on_event()

        return heard

    async def count_tokens(self, request: ModelRequest) -> int:
        """The API's own estimate of a request's input tokens. Raises ``anthropic`` errors."""
        wanted = ("model", "messages", "system", "tools", "output_config", "thinking")
        params = {key: value for key, value in request.params.items() if key in wanted}
        return (await self._client(request.api_key_env).messages.count_tokens(**params)).input_tokens

    async def reach(self) -> str | None:
        """None if anything answers at the base URL; else a sentence that says what is wrong."""
        try:
            await self._http.get(f"{self._base_url}/v1/models", timeout=CONNECT_SECONDS)
        except httpx2.HTTPError as error:
            return (
                f"{self._base_url} does not answer ({type(error).__name__}). Check ANTHROPIC_BASE_URL and the network."
            )
        return None

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    def _client(self, api_key_env: str) -> anthropic.AsyncAnthropic:
        if api_key_env not in self._clients:
            key = os.environ.get(api_key_env, "")
            if not key:
                raise MissingKey(f"The environment variable {api_key_env} is not set, so there is no key to call with.")
            self._clients[api_key_env] = anthropic.AsyncAnthropic(
                api_key=key, base_url=self._base_url, max_retries=0, http_client=self._http
            )
        return self._clients[api_key_env]


class MissingKey(Exception):
    """No API key in the environment."""


def _classify(error: Exception, reply: ModelReply) -> None:
    """Write down what went wrong, in words and as a cause."""
    reply.error, reply.error_type = f"{type(error).__name__}: {error}"[:2_000], type(error).__name__
    if isinstance(error, anthropic.APIStatusError):
        _classify_status(error, reply)
    elif isinstance(error, StreamError):
        reply.error, reply.error_type, reply.http_status = str(error)[:2_000], error.type, 200
        reply.cause = _STREAM_CAUSES.get(error.type, Cause.TRANSIENT)
    elif _has_no_connection(error.__cause__ or error):
        reply.cause, reply.was_sent = Cause.TRANSIENT, False
        reply.error = "The model API cannot be reached."
    elif isinstance(error, (TimeoutError, anthropic.APITimeoutError, httpx2.TimeoutException)):
        reply.cause = Cause.TIMEOUT
        reply.error = "No complete answer within the agent's time-out."
    elif isinstance(error, UnpricedFees):
        reply.cause, reply.error = Cause.REQUEST, str(error)
    elif isinstance(error, MissingKey):
        reply.cause, reply.error, reply.was_sent = Cause.ACCOUNT, str(error), False
    elif isinstance(error, (anthropic.APIError, httpx2.HTTPError, OSError, ValueError, AttributeError, LookupError)):
        # ValueError and its like: a body that is no stream of the Messages API. The next answer may be one.
        reply.cause = Cause.TRANSIENT
    else:
        reply.cause = Cause.INTERNAL


def _has_no_connection(error: BaseException) -> bool:
    """Whether the request cannot have left. A server that hung up may have read it, and may charge for it."""
    if isinstance(error, httpx2.ConnectError):
        return isinstance(error.__cause__, aiohttp.ClientConnectorError)
    return isinstance(error, (httpx2.ConnectTimeout, httpx2.PoolTimeout))


def _classify_status(error: anthropic.APIStatusError, reply: ModelReply) -> None:
    status = error.status_code
    kind = error.type or ""
    reply.http_status, reply.error_type = status, kind or type(error).__name__
    reply.error = (error.api_message or error.message or str(error))[:2_000]
    reply.request_id = read_name(error.request_id or reply.request_id, 120)
    reply.was_sent = False  # refused before it cost anything
    reply.retry_after_seconds = _retry_after(error.response.headers)
    if status in _ACCOUNT_STATUSES or isinstance(error, _SPEND_LIMITS):
        reply.cause = Cause.ACCOUNT
    elif status == 429 or kind == "rate_limit_error":
        reply.cause = Cause.RATE_LIMITED
    elif status == 529 or kind == "overloaded_error":
        reply.cause = Cause.OVERLOADED
    elif status in (408, 409) or status >= 500:
        reply.cause = Cause.TRANSIENT
    else:
        reply.cause = Cause.REQUEST


def _retry_after(headers: httpx2.Headers) -> float | None:
    """Seconds until the server wants to hear from us again; not capped here."""
    try:
        if ms := headers.get("retry-after-ms"):
            return max(0.0, float(ms) / 1000)
        value = headers.get("retry-after", "")
        if not value:
            return None
        if value.replace(".", "", 1).isdigit():
            return float(value)
        return max(0.0, (parsedate_to_datetime(value) - datetime.now(UTC)).total_seconds())
    except (ValueError, TypeError):  # no date, or one without a time zone
        return None
