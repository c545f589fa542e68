"""The models the simulator serves: limits, what each refuses, how it tokenises and how long it takes.

Figures are those of the public model overviews of November 2026. Latencies are published only as words
(Haiku fastest, Opus moderate); the seconds here are experience, and meant for demonstrations.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from agents.caching import minimum_tokens

EFFORTS = ("low", "medium", "high", "xhigh", "max")
_EFFORTS_4_6 = ("low", "medium", "high", "max")
_ALL_5_5 = ("low", "medium", "high", "xhigh", "max")


@dataclass(frozen=True, slots=True)
class Model:
    """One model. ``thinking_types`` are the values of ``thinking.type`` it accepts; ``quiet_efforts`` the
    efforts at which thinking may be turned off. ``token_factor`` scales the token estimate: the tokenizers
    since Opus 4.7 make about 30 % more of the same text. Latency in seconds."""

    id: str
    display_name: str
    line: str
    created_at: str
    thinking_types: tuple[str, ...]
    efforts: tuple[str, ...] = _ALL_5_5
    quiet_efforts: tuple[str, ...] = ()
    thinks_by_default: bool = True
    forced_tool_choice: bool = False
    prefill: bool = False
    max_tokens: int = 128_000
    max_input_tokens: int = 1_000_000
    token_factor: float = 1.3
    latency_seconds: float = 2.0
    effort_default: str = "high"

    @property
    def cache_minimum(self) -> int:
        """The shortest beginning of a prompt that is kept, in tokens."""
        return minimum_tokens(self.id)

    def as_json(self) -> dict[str, Any]:
        """The body of ``GET /v1/models/{id}``."""
        return {
            "type": "model",
            "id": self.id,
            "display_name": self.display_name,
            "line": self.line,
            "created_at": self.created_at,
            "lifecycle": "active",
            "deprecated_at": None,
            "retires_at": None,
            "max_input_tokens": self.max_input_tokens,
            "max_tokens": self.max_tokens,
            "capabilities": self._capabilities(),
        }

    def _capabilities(self) -> dict[str, Any]:
        yes, no = {"supported": True}, {"supported": False}
        effort: dict[str, Any] = {name: yes if name in self.efforts else no for name in EFFORTS}
        types = {
            name: yes if name in self.thinking_types else no
            for name in ("adaptive", "between_tools", "disabled", "enabled")
        }
        return {
            "batch": no,
            "citations": no,
            "code_execution": no,
            "context_management": {"supported": False},
            "effort": {"supported": bool(self.efforts), **effort},
            "image_input": no,
            "pdf_input": no,
            "server_tools": {"supported": False, "code_execution": no, "web_search": no},
            "structured_outputs": yes,
            "thinking": {"supported": True, "types": types},
        }


_CATALOGUE = (
    Model(
        "claude-fable-5-2", "Claude Fable 5.2", "fable", "2026-11-09T00:00:00Z",
        thinking_types=("adaptive",), latency_seconds=12.0,
    ),
    Model(
        "claude-fable-5-1", "Claude Fable 5.1", "fable", "2026-09-01T00:00:00Z",
        thinking_types=("adaptive",), latency_seconds=12.0,
    ),
    Model(
        "claude-haiku-5-5", "Claude Haiku 5.5", "haiku", "2026-10-07T00:00:00Z",
        thinking_types=("adaptive", "disabled"), quiet_efforts=("low", "medium", "high"),
        forced_tool_choice=True, latency_seconds=0.3, effort_default="medium",
    ),
    Model(
        "claude-sonnet-5-5", "Claude Sonnet 5.5", "sonnet", "2026-09-28T00:00:00Z",
        thinking_types=("adaptive", "between_tools"), quiet_efforts=("low", "medium", "high"),
        latency_seconds=2.0,
    ),
    Model(
        "claude-opus-5-5", "Claude Opus 5.5", "opus", "2026-09-22T00:00:00Z",
        thinking_types=("adaptive",), latency_seconds=8.0, effort_default="medium",
    ),
    Model(
        "claude-opus-4-6", "Claude Opus 4.6", "opus", "2026-02-05T00:00:00Z",
        thinking_types=("adaptive", "enabled", "disabled"), efforts=_EFFORTS_4_6, quiet_efforts=_EFFORTS_4_6,
        thinks_by_default=False, forced_tool_choice=True, token_factor=1.0,
        latency_seconds=8.0,
    ),
    Model(
        "claude-sonnet-4-6", "Claude Sonnet 4.6", "sonnet", "2026-02-17T00:00:00Z",
        thinking_types=("adaptive", "enabled", "disabled"), efforts=_EFFORTS_4_6, quiet_efforts=_EFFORTS_4_6,
        thinks_by_default=False, forced_tool_choice=True, token_factor=1.0, latency_seconds=2.0,
    ),
    Model(
        "claude-haiku-4-5", "Claude Haiku 4.5", "haiku", "2025-10-15T00:00:00Z",
        thinking_types=("enabled", "disabled"), efforts=(), thinks_by_default=False, forced_tool_choice=True,
        prefill=True,
        max_tokens=64_000, max_input_tokens=200_000, token_factor=1.0,
        latency_seconds=0.3,
    ),
)  # fmt: skip

MODELS = {model.id: model for model in _CATALOGUE}
ALIASES = {"claude-haiku-4-5-20251001": "claude-haiku-4-5"}


def find_model(name: str) -> Model | None:
    """The model of an id or of a dated alias, None if the simulator does not serve it."""
    return MODELS.get(ALIASES.get(name, name))
