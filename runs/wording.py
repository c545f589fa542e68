"""Names of fields, outputs and kinds as words in a sentence."""

from __future__ import annotations

_SPELT = {"crm": "CRM", "icp": "ICP", "url": "URL", "id": "ID", "api": "API"}


def in_words(slug: str) -> str:
    """``crm_update`` becomes ``CRM update``, ``opt_out`` becomes ``opt-out``."""
    words = " ".join(_SPELT.get(word, word) for word in slug.split("_"))
    return words.replace("opt out", "opt-out")
