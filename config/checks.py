"""System checks: mistakes in the settings, each with what to change."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.core.checks import CheckMessage, Error, Warning, register


@register()
def check_queue(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    """The relations without which tasks run twice or shifts starve each other."""
    queue = settings.Q_CLUSTER
    found: list[CheckMessage] = []
    if queue["retry"] <= queue["timeout"]:
        found.append(Error("Q_CLUSTER retry must be larger than timeout, else tasks run twice.", id="kontor.E001"))
    if queue["workers"] < 2 * settings.SHIFTS + 3:
        found.append(
            Error(
                "Q_CLUSTER needs 2 × SHIFTS + 3 workers: a shift that drains still holds one, and so do try-outs.",
                id="kontor.E002",
            )
        )
    if settings.SHIFTS < 1 or settings.SHIFT_CONCURRENCY < 1:
        found.append(Error("SHIFTS and SHIFT_CONCURRENCY must be at least 1.", id="kontor.E003"))
    if settings.LEASE_SECONDS < 3:
        found.append(Error("LEASE_SECONDS must be at least 3: a heartbeat every third of it.", id="kontor.E004"))
    return found


@register()
def check_sending(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    """A mail whose sender still waits for an answer must not be taken for lost."""
    # The last answer may take four times as long as a step; before it there are connecting and a few steps.
    least = 6 * settings.SEND_TIMEOUT_SECONDS
    lease: float = settings.SEND_LEASE_SECONDS
    if lease < least:
        text = f"KONTOR_SEND_LEASE_SECONDS must be at least {least:g}: six times KONTOR_SEND_TIMEOUT_SECONDS."
        return [Error(text, id="kontor.E005")]
    return []


@register(deploy=True)
def check_secrets(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    """What must not go live as it is."""
    found: list[CheckMessage] = []
    if settings.SECRET_KEY.startswith("insecure-"):
        found.append(Error("Set SECRET_KEY to a long random string.", id="kontor.E010"))
    if settings.TOOLS_ALLOW_PRIVATE:
        found.append(Error("Unset KONTOR_TOOLS_ALLOW_PRIVATE: it is for tests.", id="kontor.E011"))
    if settings.EMAIL_IS_CONFIGURED and not settings.BASE_URL.startswith("https://"):
        text = "Set KONTOR_BASE_URL to the public https address: the link in mails that ends them leads there."
        found.append(Warning(text, id="kontor.W011"))
    if settings.IS_SQLITE:
        found.append(Warning("SQLite serves one machine. Set DATABASE_URL for several.", id="kontor.W010"))
    return found
