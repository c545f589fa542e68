"""The dead man's switch: a call each minute while all is well, so that silence is an alarm somewhere else."""

from __future__ import annotations

import logging

import httpx2
from django.conf import settings

from runs.health import READY, is_healthy, look

logger = logging.getLogger(__name__)
TIMEOUT_SECONDS = 5.0


def send_ping() -> bool:
    """Call ``KONTOR_PING_URL`` if work flows; False where none is set, something is wrong, or the call failed.

    Never raises: what watches the system must not hold it up. The address may hold a secret and is not logged.
    """
    if not settings.PING_URL:
        return False
    findings = look(READY)
    if not is_healthy(findings):
        reasons = "; ".join(f"{finding.check}: {finding.text}" for finding in findings if not finding.is_well)
        logger.warning("no ping is sent, because not all is well: %s", reasons)
        return False
    try:
        answer = httpx2.get(settings.PING_URL, timeout=TIMEOUT_SECONDS)
        if answer.is_success:
            return True
        logger.warning("the ping was answered with %s", answer.status_code)
    except (httpx2.HTTPError, httpx2.InvalidURL) as error:
        logger.warning("the ping failed: %s", type(error).__name__)
    return False
