"""When a request asks for the prompt cache: where its stable beginning is long enough, and will be read again.

SOUL, output contract and department settings come first in every request and change rarely; a breakpoint after
them lets the API keep that beginning for five minutes. Writing it costs a quarter more than plain input, reading it
a tenth or less, so it pays from the second request within that time on.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

TTL_SECONDS = 300.0
SAFE_SECONDS = 270.0
"""A request that comes so long after another is taken to come in time."""
READABLE_AFTER_SECONDS = 3.0
"""The cache is there once the answer that wrote it has begun: first tokens come within about this."""
DEFAULT_MINIMUM = 1_024
MINIMUM_TOKENS = {"claude-haiku-5-5": 512, "claude-opus-4-6": 4_096, "claude-haiku-4-5": 4_096}
"""Shortest beginning that the API keeps, where it is not the usual one. Anthropic's model pages, November 2026;
for the models of the 5.5 and 5.2 generation without a published figure the usual one is assumed."""
OLD_TOKENIZER = frozenset({"claude-opus-4-6", "claude-sonnet-4-6", "claude-haiku-4-5"})
Prefix = tuple[int, int | None, str]
"""Agent, SOUL and model: what makes two beginnings the same, until somebody changes the department's settings."""


def minimum_tokens(model: str) -> int:
    """The shortest beginning of a prompt that the API keeps for this model, in tokens."""
    return MINIMUM_TOKENS.get(model, DEFAULT_MINIMUM)


def prefix_tokens(params: dict[str, Any]) -> int:
    """About how many tokens tools and system part of a request have: four bytes each, three for newer tokenizers."""
    texts = [block["text"] for block in params["system"]]
    size = sum(len(text.encode()) for text in texts)
    size += len(json.dumps(params["tools"], ensure_ascii=False).encode()) if params.get("tools") else 0
    return size // _bytes_a_token(params["model"])


def text_tokens(text: str, model: str) -> int:
    """About how many tokens a text has, by the same rule."""
    return len(text.encode()) // _bytes_a_token(model)


def _bytes_a_token(model: str) -> int:
    return 4 if model in OLD_TOKENIZER else 3


def with_breakpoint(params: dict[str, Any]) -> dict[str, Any]:
    """The same request, asking the API to keep everything up to the end of its system part."""
    *first, last = params["system"]
    return {**params, "system": [*first, {**last, "cache_control": {"type": "ephemeral"}}]}


@dataclass(slots=True)
class _Use:
    """When a beginning last went out at all, was last written to the cache, and last went out with a breakpoint."""

    sent_at: float
    written_at: float = -math.inf
    kept_at: float = -math.inf


class CacheWatch:
    """Remembers, for one process, which beginnings went out lately."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._uses: dict[Prefix, _Use] = {}

    def draft(self) -> CacheWatch:
        """A copy that may be asked about requests of which it is not known yet whether they go out."""
        copy = CacheWatch(self._clock)
        copy._uses = {prefix: replace(use) for prefix, use in self._uses.items()}
        return copy

    def apply(self, params: dict[str, Any], prefix: Prefix) -> dict[str, Any]:
        """The request as it goes out: with a breakpoint if the same beginning went out within five minutes.

        One request writes the cache. Those that go out before it can be there would all write it, too: they go
        without, and whoever comes later reads it.
        """
        found = with_breakpoint(params) if self._pays(params, prefix) else params
        self.note(found, prefix)
        return found

    def note(self, params: dict[str, Any], prefix: Prefix) -> None:
        """Say that a request goes out as it is."""
        now, use = self._clock(), self._uses.get(prefix)
        if use is None or now - use.sent_at > SAFE_SECONDS:
            use = self._uses[prefix] = _Use(now)
        use.sent_at = now
        if "cache_control" in params["system"][-1]:
            if now - use.kept_at > SAFE_SECONDS:
                use.written_at = now
            use.kept_at = now

    def _pays(self, params: dict[str, Any], prefix: Prefix) -> bool:
        now, use = self._clock(), self._uses.get(prefix)
        if use is None or now - use.sent_at > SAFE_SECONDS:
            return False
        if prefix_tokens(params) < minimum_tokens(params["model"]):
            return False
        return now - use.kept_at > SAFE_SECONDS or now - use.written_at >= READABLE_AFTER_SECONDS
