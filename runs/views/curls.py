"""A model call as a command line that sends the same request again. Pure.

The key is not in it: the shell puts it in from the environment variable that the department names. The body goes in
on standard input from a quoted here-document, in which the shell reads nothing; as it is one line of JSON in ASCII,
no text in it can end the document, or carry control characters into a terminal.
"""

from __future__ import annotations

import json
import re
import shlex
from typing import Any
from urllib.parse import urlsplit, urlunsplit

API_VERSION = "2023-06-01"
_END = "END_OF_REQUEST"
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def build_curl(request: Any, *, base_url: str, api_key_env: str) -> str:
    """The command. It asks for the answer in one piece, where Kontor has it streamed."""
    variable = api_key_env if _VARIABLE.fullmatch(api_key_env) else "ANTHROPIC_API_KEY"
    lines = [
        f"curl -sS {shlex.quote(f'{_without_secrets(base_url)}/v1/messages')}",
        "-H 'content-type: application/json'",
        f"-H 'anthropic-version: {API_VERSION}'",
        f'-H "x-api-key: ${variable}"',
        f"--data-binary @- <<'{_END}'",
    ]
    body = json.dumps(request, ensure_ascii=True, default=str).replace("\x7f", "\\u007f")
    return " \\\n  ".join(lines) + f"\n{body}\n{_END}\n"


def _without_secrets(address: str) -> str:
    """The base URL without the name and password that may stand before its host."""
    parts = urlsplit(address)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", "")).rstrip("/")
