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
    if queue["workers"] < 2 * settings.SHIFTS + 2:
        found.append(
            Error("Q_CLUSTER needs 2 × SHIFTS + 2 workers: a shift that drains still holds one.", id="kontor.E002")
        )
    if settings.SHIFTS < 1 or settings.SHIFT_CONCURRENCY < 1:
        found.append(Error("SHIFTS and SHIFT_CONCURRENCY must be at least 1.", id="kontor.E003"))
    if settings.LEASE_SECONDS < 3:
        found.append(Error("LEASE_SECONDS must be at least 3: a heartbeat every third of it.", id="kontor.E004"))
    return found


@register(deploy=True)
def check_secrets(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    """What must not go live as it is."""
    found: list[CheckMessage] = []
    if settings.SECRET_KEY.startswith("insecure-"):
        found.append(Error("Set SECRET_KEY to a long random string.", id="kontor.E010"))
    if settings.TOOLS_ALLOW_PRIVATE:
        found.append(Error("Unset KONTOR_TOOLS_ALLOW_PRIVATE: it is for tests.", id="kontor.E011"))
    if settings.IS_SQLITE:
        found.append(Warning("SQLite serves one machine. Set DATABASE_URL for several.", id="kontor.W010"))
    return found
