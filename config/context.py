from __future__ import annotations

from typing import Any

from django.conf import settings
from django.http import HttpRequest


def kontor(request: HttpRequest) -> dict[str, Any]:
    """What every page may show: whether the answers are simulated."""
    return {"is_simulated": settings.SIMULATED}
