"""Token estimates. They are estimates: no tokenizer of a current Claude model is public.

Calibrated so that English JSON and Markdown comes to one token per 3.6 characters on the 4.6 generation.
Text outside ASCII costs more, by script: about 1.7 characters a token in accented Latin, Greek and Cyrillic,
0.9 in Chinese, Japanese and Korean, 1.3 in other scripts. Newer tokenizers make ``Model.token_factor`` times
as many.
"""

from __future__ import annotations

import json
import re
from typing import Any

_LATIN_TO_CYRILLIC = re.compile("[\u0080-\u052f\u1e00-\u1fff]")
_CJK = re.compile("[\u1100-\u11ff\u2e80-\ua4cf\uac00-\ud7af\uf900-\ufaff\uff00-\uffef\U00020000-\U0003ffff]")
ASCII_PER_TOKEN, EUROPEAN_PER_TOKEN, CJK_PER_TOKEN, OTHER_PER_TOKEN = 3.6, 1.7, 0.9, 1.3

MESSAGE_OVERHEAD = 4
"""Tokens that frame each message, as one short message is seen to cost more than its text."""
TOOLS_OVERHEAD = 290
"""Tokens of the hidden tool-use prompt that the API adds when tools are declared."""


def raw_tokens(text: str) -> float:
    """Estimated tokens of a text on the 4.6 generation, not rounded."""
    if text.isascii():
        return len(text) / ASCII_PER_TOKEN
    ascii_count = len(text.encode("ascii", "ignore"))
    european = len(_LATIN_TO_CYRILLIC.findall(text))
    cjk = len(_CJK.findall(text))
    other = len(text) - ascii_count - european - cjk
    return ascii_count / ASCII_PER_TOKEN + european / EUROPEAN_PER_TOKEN + cjk / CJK_PER_TOKEN + other / OTHER_PER_TOKEN


def count(text: str, factor: float) -> int:
    """Estimated tokens of a text for a model's ``token_factor``; at least 1 for a text that is not empty."""
    return max(1, round(raw_tokens(text) * factor)) if text else 0


def compact(value: Any) -> str:
    """A JSON value as the text whose tokens are counted."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, separators=(",", ":"))
