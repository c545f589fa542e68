"""The turns of a conversation: what the API refuses in them, and the signatures of thinking blocks."""

from __future__ import annotations

import base64
import binascii
import zlib
from collections.abc import Mapping
from typing import Any

from agents.simulator.catalogue import Model
from agents.simulator.errors import invalid

_MARK = "kontor-simulator"
_BYTES_PER_TOKEN = 3
_USER_BLOCKS = frozenset({"text", "image", "document", "tool_result", "search_result"})
_ASSISTANT_BLOCKS = frozenset({"text", "thinking", "redacted_thinking", "tool_use"})
MAX_BREAKPOINTS = 4


def check_messages(body: Mapping[str, Any], model: Model) -> None:
    """Refuse (ApiError 400) empty, ill-formed or inconsistent conversations."""
    messages = body.get("messages")
    if messages is None:
        raise invalid("messages: Field required")
    if not isinstance(messages, list):
        raise invalid("messages: Input should be a valid list")
    if not messages:
        raise invalid("messages: at least one message is required")
    for number, message in enumerate(messages):
        _check_message(number, message, is_last=number == len(messages) - 1, model=model)
    if messages[0]["role"] == "assistant":
        raise invalid('messages: first message must use the "user" role')
    if messages[-1]["role"] == "assistant" and not model.prefill:
        raise invalid(
            "This model does not support assistant message prefill. The conversation must end with a user message."
        )
    _check_tool_turns(messages)


def signature(model_id: str, nonce: int, thinking: str, tokens: int = 0) -> str:
    """The signature of a thinking block, bound to the model and the text, checked by ``check_messages``.

    Like the API's it carries the thinking itself, encrypted: so it is as long as its ``tokens`` make it.
    """
    checksum, hidden = zlib.crc32(f"{model_id}/{nonce}/{thinking}".encode()), "-" * (_BYTES_PER_TOKEN * tokens)
    return base64.b64encode(f"{_MARK}/{model_id}/{nonce}/{checksum:08x}/{hidden}".encode()).decode()


def blocks(content: Any) -> list[dict[str, Any]]:
    """The content of a message as a list of blocks; a string is one text block."""
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


def tool_names_used(messages: list[dict[str, Any]]) -> set[str]:
    """The names of the tools the assistant has asked for in a conversation."""
    return {
        str(block["name"])
        for message in messages
        if message["role"] == "assistant"
        for block in blocks(message["content"])
        if block["type"] == "tool_use"
    }


def _check_message(number: int, message: Any, *, is_last: bool, model: Model) -> None:
    where = f"messages.{number}"
    if not isinstance(message, dict):
        raise invalid(f"{where}: Input should be a valid dictionary")
    role, content = message.get("role"), message.get("content")
    if role not in ("user", "assistant", "system"):
        raise invalid(f"{where}.role: Input should be 'user', 'assistant' or 'system'")
    for name in sorted(set(message) - {"role", "content"}):
        raise invalid(f"{where}.{name}: Extra inputs are not permitted")
    if isinstance(content, str):
        if not content.strip() and not (is_last and role == "assistant"):
            raise invalid(f"{where}: {role} messages must have non-empty content")
        return
    if not isinstance(content, list):
        raise invalid(f"{where}.content: Input should be a valid string or list")
    if not content and not (is_last and role == "assistant"):
        raise invalid(f"{where}: {role} messages must have non-empty content")
    allowed = _ASSISTANT_BLOCKS if role == "assistant" else _USER_BLOCKS
    for position, block in enumerate(content):
        _check_block(f"{where}.content.{position}", block, allowed, role, model)


def _check_block(where: str, block: Any, allowed: frozenset[str], role: str, model: Model) -> None:
    kind = block.get("type") if isinstance(block, dict) else None
    if kind not in allowed:
        raise invalid(f"{where}.type: '{kind}' blocks are not permitted in {role} messages")
    if kind == "text":
        if not isinstance(block.get("text"), str):
            raise invalid(f"{where}.text.text: Field required")
        if not block["text"].strip():
            raise invalid("messages: text content blocks must contain non-whitespace text")
        if role == "user" and block.get("citations"):
            raise invalid(f"{where}.text.citations: Citations are not permitted in user messages")
    elif kind == "tool_use" and not all(key in block for key in ("id", "name", "input")):
        raise invalid(f"{where}.tool_use: `id`, `name` and `input` are required")
    elif kind == "tool_result" and not block.get("tool_use_id"):
        raise invalid(f"{where}.tool_result.tool_use_id: Field required")
    elif kind == "thinking":
        _check_signature(where, block, model)


def _check_signature(where: str, block: Mapping[str, Any], model: Model) -> None:
    try:
        mark, model_id, nonce, _, hidden = base64.b64decode(str(block.get("signature", ""))).decode().split("/")
        expected = signature(model_id, int(nonce), str(block.get("thinking", "")), len(hidden) // _BYTES_PER_TOKEN)
    except (ValueError, binascii.Error):
        raise invalid(f"{where}: Invalid `signature` in `thinking` block") from None
    if mark != _MARK or expected != block["signature"]:
        raise invalid(f"{where}: Invalid `signature` in `thinking` block")
    if model_id != model.id:
        raise invalid(f"{where}: Invalid `signature` in `thinking` block: it was made by {model_id}")


def _check_tool_turns(messages: list[dict[str, Any]]) -> None:
    asked: list[str] = []
    for number, message in enumerate(messages):
        content = message["content"]
        entries = content if isinstance(content, list) else []
        answered = [str(b["tool_use_id"]) for b in entries if b["type"] == "tool_result"]
        for position, block in enumerate(entries):
            if block["type"] == "tool_result" and block["tool_use_id"] not in asked:
                raise invalid(
                    f"messages.{number}.content.{position}: unexpected `tool_use_id` found in `tool_result` "
                    f"blocks: {block['tool_use_id']}. Each `tool_result` block must have a corresponding "
                    "`tool_use` block in the previous message."
                )
        if len(set(answered)) != len(answered):
            raise invalid(f"messages.{number}: each tool_use must have a single result. Found multiple.")
        _check_all_answered(number - 1, [name for name in asked if name not in answered])
        asked = [str(b["id"]) for b in entries if b["type"] == "tool_use"]
    _check_all_answered(len(messages) - 1, asked)


def _check_all_answered(number: int, missing: list[str]) -> None:
    if missing:
        raise invalid(
            f"messages.{number}: `tool_use` ids were found without `tool_result` blocks immediately after: "
            f"{', '.join(missing)}. Each `tool_use` block must have a corresponding `tool_result` block in "
            "the next message."
        )
