"""The cards of the review queue, as tests look at them."""

from __future__ import annotations

from playwright.sync_api import Page, expect

from runs.models import Review

LIMIT_SECONDS = 60


def answers() -> list[str]:
    """What each question was answered with, in the order in which they were asked; empty for the open ones."""
    return list(Review.objects.order_by("pk").values_list("answer", flat=True))


def wait_until_ahead(page: Page, asked: str) -> None:
    """The card is there, and the one behind it was fetched."""
    expect(page.locator("h1")).to_have_text(asked)
    page.locator("#review[data-ready]").wait_for()
