"""The size of a prompt, and what of it the prompt cache holds."""

from __future__ import annotations

import hashlib
import marshal
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from agents.simulator.catalogue import Model
from agents.simulator.errors import invalid
from agents.simulator.tokens import MESSAGE_OVERHEAD, TOOLS_OVERHEAD, compact, raw_tokens
from agents.simulator.turns import MAX_BREAKPOINTS, blocks

CACHE_ENTRIES = 10_000
_TTL_SECONDS = {"5m": 300.0, "1h": 3600.0}


@dataclass(frozen=True, slots=True)
class PromptUsage:
    """Tokens of a prompt by how they are billed; the three kinds add up to the prompt."""

    input_tokens: int
    created_5m: int = 0
    created_1h: int = 0
    read: int = 0

    @property
    def created(self) -> int:
        return self.created_5m + self.created_1h


class PromptCache:
    """The prefixes seen so far, oldest out first. Times are seconds of any clock that does not go back."""

    def __init__(self, entries: int = CACHE_ENTRIES) -> None:
        self._entries = entries
        self._expiry: OrderedDict[bytes, float] = OrderedDict()

    def usage(self, body: Mapping[str, Any], model: Model, now: float) -> PromptUsage:
        """How the prompt is billed. The first call with a prefix creates it, the next ones read it, each use
        prolongs it; a prefix below the model's minimum is not cached and that is no error."""
        total = prompt_tokens(body, model)
        if not _has_cache_control(body):
            return PromptUsage(total)
        points = self._breakpoints(body, model)
        points = [point for point in points if point[1] >= model.cache_minimum]
        if not points:
            return PromptUsage(total)
        hits = [tokens for key, tokens, _ in points if self._expiry.get(key, -1.0) > now]
        read = max(hits, default=0)
        created = {"5m": 0, "1h": 0}
        covered = read
        for key, tokens, ttl in points:
            created[ttl] += max(tokens - covered, 0)
            covered = max(tokens, covered)
            self._remember(key, now + _TTL_SECONDS[ttl])
        return PromptUsage(max(total - covered, 0), created["5m"], created["1h"], read)

    def clear(self) -> None:
        """Forget every prefix."""
        self._expiry.clear()

    def _remember(self, key: bytes, until: float) -> None:
        self._expiry[key] = until
        self._expiry.move_to_end(key)
        while len(self._expiry) > self._entries:
            self._expiry.popitem(last=False)

    @staticmethod
    def _breakpoints(body: Mapping[str, Any], model: Model) -> list[tuple[bytes, int, str]]:
        """``(key, tokens up to here, ttl)`` of every place marked with ``cache_control``."""
        digest, tokens, points = hashlib.blake2b(model.id.encode(), digest_size=16), 0.0, []
        for text, control in _marked(body):
            digest.update(text.encode())
            tokens += raw_tokens(text)
            if control:
                points.append((digest.digest(), round(tokens * model.token_factor), _ttl(control)))
        if len(points) > MAX_BREAKPOINTS:
            raise invalid(
                f"A maximum of {MAX_BREAKPOINTS} blocks with cache_control may be provided. Found {len(points)}."
            )
        return points


def prompt_tokens(body: Mapping[str, Any], model: Model) -> int:
    """Estimated tokens of tools, output schema, system prompt and messages together."""
    raw = sum(raw_tokens(text) for text in _texts(body))
    form = (body.get("output_config") or {}).get("format")
    if form:
        raw += _json_tokens(marshal.dumps(form))
    if body.get("tools"):
        raw += TOOLS_OVERHEAD
    return round((raw + MESSAGE_OVERHEAD * len(body["messages"])) * model.token_factor)


@lru_cache(maxsize=500)
def _json_tokens(packed: bytes) -> float:
    return raw_tokens(compact(marshal.loads(packed)))


def _texts(body: Mapping[str, Any]) -> Iterator[str]:
    return (text for text, _ in _segments(body))


def _segments(body: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """The parts of a prompt, tools, system, messages in cache order: ``(text, cache_control or None)``."""
    for tool in body.get("tools") or ():
        yield compact({k: v for k, v in tool.items() if k != "cache_control"}), tool.get("cache_control")
    for block in blocks(body.get("system") or []):
        yield block["text"], block.get("cache_control")
    for message in body["messages"]:
        for block in blocks(message["content"]):
            yield _block_text(block), block.get("cache_control")


def _marked(body: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """The segments; a top-level ``cache_control`` marks the last one."""
    segments = list(_segments(body))
    if body.get("cache_control") and segments:
        segments[-1] = (segments[-1][0], body["cache_control"])
    return iter(segments)


def _has_cache_control(body: Mapping[str, Any]) -> bool:
    return bool(body.get("cache_control")) or any(control for _, control in _segments(body))


def _ttl(control: Any) -> str:
    ttl = control.get("ttl", "5m") if isinstance(control, dict) else "5m"
    if ttl not in _TTL_SECONDS:
        raise invalid("cache_control.ephemeral.ttl: Input should be '5m' or '1h'")
    return str(ttl)


def _block_text(block: Mapping[str, Any]) -> str:
    kind = block["type"]
    if kind == "text":
        return str(block["text"])
    if kind == "thinking":
        return str(block.get("thinking", ""))
    if kind == "tool_use":
        return f"{block['name']} {compact(block['input'])}"
    if kind == "tool_result":
        return compact(block.get("content") or "")
    return compact({k: v for k, v in block.items() if k != "cache_control"})
