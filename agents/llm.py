"""The model API. The only file that imports ``anthropic``.

``ModelClient.call`` never raises for what a server or a network can do: it returns a ``ModelReply`` that holds
whatever usage was reported before things went wrong, because a failed call costs too. Retries are not made here.
"""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import cache
from typing import Any
from uuid import UUID

import aiohttp
import anthropic
import httpx2
from pydantic import BaseModel

from agents.causes import Cause
from agents.pricing import Usage
from agents.reading import storable

MAX_CONNECTIONS = 1_000
CONNECT_SECONDS = 5
_ACCOUNT_STATUSES = (401, 402, 403)
_SHOWN = ("text", "tool_use")
"""The blocks that are shown as they are written."""
MOST_TOKENS = 100_000_000
"""More than any model reads or writes in one call: a server that reports more, or less than none, is not believed."""
_STREAM_CAUSES = {"rate_limit_error": Cause.RATE_LIMITED, "overloaded_error": Cause.OVERLOADED}
_SPEND_LIMITS = (anthropic.EnforcedSpendLimitReachedError, anthropic.ContractSpendLimitReachedError)


@dataclass(frozen=True, slots=True)
class ModelRequest:
    """One request. ``params`` are the Messages API's own: model, max_tokens, system, messages, tools, output_config."""

    call_id: UUID
    agent: str
    api_key_env: str
    params: dict[str, Any]
    timeout_seconds: float


@dataclass(slots=True)
class ModelReply:
    """What came back. ``cause`` is empty for a complete answer; ``content`` are the API's blocks as dicts."""

    model: str = ""
    content: list[dict[str, Any]] = field(default_factory=list)
    stop_reason: str = ""
    usage: Usage = field(default_factory=Usage)
    is_usage_final: bool = False
    cause: Cause = Cause.NONE
    error: str = ""
    error_type: str = ""
    http_status: int | None = None
    retry_after_seconds: float | None = None
    request_id: str = ""
    message_id: str = ""
    was_sent: bool = True
    """False where the request cannot have reached the server, so that it costs nothing."""
    has_unpriced_fees: bool = False
    """The server used tools of its own, which cost a fee beside the tokens."""
    latency_ms: int = 0
    first_token_ms: int | None = None
    parts: dict[int, list[str]] = field(default_factory=dict)
    """Text and tool inputs of each block as they came, which ``content`` has at the block's end."""

    @property
    def seen_usage(self) -> Usage | None:
        """What a call whose end was not seen has used at most: the prompt as reported, the output by what was shown.

        A token of each byte of text and tool calls, since none is shorter; at least what was reported. None where the
        output cannot be told from what was shown: nothing was shown yet, or the model has thought, of which at most a
        summary is shown and all is billed. Still cheaper than the invoice may be what the server wrote after the cut
        and charges for, and thinking of which a server sends no block at all.
        """
        if not self.usage.total_tokens or not self.content or any(b["type"] not in _SHOWN for b in self.content):
            return None
        shown = ["".join(parts) for parts in self.parts.values()]
        shown += [str(block.get(name, "")) for block in self.content for name in ("type", "id", "name")]
        count = sum(len(text.encode(errors="replace")) for text in shown)
        return replace(self.usage, output_tokens=max(self.usage.output_tokens, count))

    @property
    def text(self) -> str:
        """All text blocks joined: the JSON of a structured answer."""
        return "".join(block["text"] for block in self.content if block["type"] == "text")

    @property
    def tool_uses(self) -> list[dict[str, Any]]:
        """The tools the model asks for; empty unless it stopped for them."""
        if self.stop_reason != "tool_use":
            return []
        return [block for block in self.content if block["type"] == "tool_use"]

    def as_json(self) -> dict[str, Any]:
        """The response as it is stored."""
        return {
            "id": self.message_id,
            "model": self.model,
            "content": self.content,
            "stop_reason": self.stop_reason or None,
            "error": {"type": self.error_type, "message": self.error} if self.error else None,
        }


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
                reply.request_id = _name(response.headers.get("request-id", ""), 120)
                await _gather(read_events(response.iter_bytes()), reply, started, heard)
        except Exception as error:  # everything a server, a network or the SDK can do ends here, classified
            _classify(error, reply)
            if limit.expired() and time.monotonic() - started < request.timeout_seconds:
                reply.error = f"Nothing was heard for {self._silence_seconds:g} seconds."
        else:
            _judge_stop(reply)
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


class StreamError(Exception):
    """The server gave up in the middle of a stream that began with 200."""

    def __init__(self, error: dict[str, Any]) -> None:
        super().__init__(error.get("message", "The server broke off the answer."))
        self.type = str(error.get("type", ""))


class UnpricedFees(Exception):
    """The server has searched the web or the like, which no agent asks for and no price knows the fee of."""


async def read_events(chunks: AsyncIterator[bytes]) -> AsyncIterator[dict[str, Any]]:
    """The events of a Messages API stream as plain dicts. Raises ValueError for data that is no JSON object.

    The SDK's own iteration builds a typed object for every event, which takes twice the processor time of all the
    rest of a call. The API writes the data of an event on one line and repeats the event's name in it.
    """
    rest = b""
    async for chunk in chunks:
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            if line.startswith(b"data:"):
                event = _read_json(line[5:].decode())
                if not isinstance(event, dict):
                    raise ValueError("An event of the stream is no JSON object.")
                yield event


async def _gather(
    events: AsyncIterator[dict[str, Any]], reply: ModelReply, started: float, on_event: Callable[[], None] | None
) -> None:
    """Fill the reply from the stream's events; usage counts as soon as it is reported."""
    async for event in events:
        if on_event is not None:
            on_event()
        match event.get("type"):
            case "content_block_delta":
                if reply.first_token_ms is None:
                    reply.first_token_ms = round((time.monotonic() - started) * 1000)
                index = event["index"]
                _add_delta(reply.content[index], event["delta"], reply.parts.setdefault(index, []))
            case "content_block_start":
                reply.content.append({k: v for k, v in event["content_block"].items() if v is not None})
            case "content_block_stop":
                _finish_block(reply.content[event["index"]], reply.parts.get(event["index"], []))
            case "message_start":
                message = event["message"]
                reply.model, reply.message_id = _name(message["model"], 64), message["id"]
                reply.usage = _usage(message.get("usage"), reply.usage)
                _refuse_fees(message.get("usage"), reply)
            case "message_delta":
                _refuse_fees(event.get("usage"), reply)
                reply.stop_reason = _name(event["delta"].get("stop_reason") or "", 40)
                reply.usage = _usage(event.get("usage"), reply.usage)
                # Before it stops a server may report how far it is.
                reply.is_usage_final = event.get("usage") is not None and bool(reply.stop_reason)
            case "error":
                raise StreamError(event.get("error") or {})


def _refuse_fees(reported: dict[str, Any] | None, reply: ModelReply) -> None:
    """Never price a fee at zero unnoticed: such a call fails, without a price, and a person hears of it."""
    used = {name: count for name, count in ((reported or {}).get("server_tool_use") or {}).items() if count}
    if used:
        reply.usage, reply.has_unpriced_fees = _usage(reported, reply.usage), True
        what = ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in used.items())
        raise UnpricedFees(f"The server used tools of its own ({what}), for which Kontor knows no fee.")


def _add_delta(block: dict[str, Any], delta: dict[str, Any], parts: list[str]) -> None:
    match delta["type"]:
        case "text_delta":
            parts.append(delta["text"])
        case "input_json_delta":
            parts.append(delta["partial_json"])
        case "thinking_delta":
            block["thinking"] = block.get("thinking", "") + delta["thinking"]
        case "signature_delta":
            block["signature"] = delta["signature"]


def _finish_block(block: dict[str, Any], parts: list[str]) -> None:
    if block["type"] == "text":
        block["text"] = block.get("text", "") + "".join(parts)
    elif block["type"] == "tool_use":
        block["input"] = _read_json("".join(parts) or "{}")


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is no JSON, and a database refuses it.")


_read_json = json.JSONDecoder(parse_constant=_refuse).decode


def _name(value: Any, longest: int) -> str:
    """What a server calls something, within what a column holds. Raises ValueError for what is no text."""
    if not isinstance(value, str):
        raise ValueError(f"A name in the stream is no text but {type(value).__name__}.")
    return storable(value)[:longest]


def _usage(reported: dict[str, Any] | None, before: Usage) -> Usage:
    """The totals after this report: later figures overwrite earlier ones, what is not reported stays.

    The end of a stream says again how much went into the cache, but not for how long: that was said at its beginning.
    """
    if not reported:
        return before
    created = reported.get("cache_creation") or {}
    details = reported.get("output_tokens_details") or {}

    def pick(value: Any, old: int) -> int:
        count = old if value is None else int(value)
        if not 0 <= count <= MOST_TOKENS:
            raise ValueError(f"The server reports {count} tokens.")
        return count

    written, short = reported.get("cache_creation_input_tokens"), created.get("ephemeral_5m_input_tokens")
    long = pick(created.get("ephemeral_1h_input_tokens"), before.cache_write_1h_tokens)
    if short is None and written is not None:
        short = max(pick(written, 0) - long, 0)
    return Usage(
        input_tokens=pick(reported.get("input_tokens"), before.input_tokens),
        cache_write_5m_tokens=pick(short, before.cache_write_5m_tokens),
        cache_write_1h_tokens=long,
        cache_read_tokens=pick(reported.get("cache_read_input_tokens"), before.cache_read_tokens),
        output_tokens=pick(reported.get("output_tokens"), before.output_tokens),
        thinking_tokens=pick(details.get("thinking_tokens"), before.thinking_tokens),
    )


def _judge_stop(reply: ModelReply) -> None:
    """A stream that ended without an exception may still be no answer."""
    match reply.stop_reason:
        case "end_turn" | "tool_use" | "stop_sequence":
            return
        case "refusal":
            reply.cause, reply.error = Cause.REFUSAL, reply.text or "The model refused to answer."
        case "max_tokens":
            reply.cause, reply.error = Cause.TRUNCATED, "The answer reached max_tokens before it ended."
        case "":
            reply.cause, reply.error = Cause.TRANSIENT, "The answer broke off before it ended."
        case other:
            reply.cause, reply.error = Cause.REQUEST, f"The model stopped for {other}."


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
    reply.request_id = _name(error.request_id or reply.request_id, 120)
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
