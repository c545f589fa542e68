"""What is asked of a model, and what came back."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any
from uuid import UUID

from agents.causes import Cause
from agents.pricing import Usage

_SHOWN = ("text", "tool_use")
"""The blocks that are shown as they are written."""


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
