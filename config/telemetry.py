"""Where the engine's and the SDK's spans go: nowhere, unless an OTLP endpoint is set.

``runs.tracing`` makes spans through the API alone; the SDK and its exporter are loaded only when they are used.
"""

from __future__ import annotations

from django.conf import settings
from django.utils.module_loading import import_string

EXPORT = "config.telemetry_export.start_export"


def start() -> bool:
    """Send spans to the endpoint that is set; False where there is none, and then nothing is loaded."""
    if not settings.OTEL_ENDPOINT:
        return False
    import_string(EXPORT)(settings.VERSION)
    return True
