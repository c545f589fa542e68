"""What people and agents wrote in Markdown, as HTML: paragraphs, lists, emphasis. Nothing that loads or links."""

from __future__ import annotations

from django.utils.safestring import SafeString
from markdown_it import MarkdownIt

_markdown = MarkdownIt("commonmark", {"html": False}).disable(["image", "link", "autolink", "reference"])


def as_html(text: str) -> SafeString:
    """The text with its HTML escaped: tags in it are shown, not obeyed."""
    html: str = _markdown.render(text)
    return SafeString(html)
