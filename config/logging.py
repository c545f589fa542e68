"""The process log: one formatter for everything that logs here, as JSON or as lines for a terminal."""

from __future__ import annotations

import os
import socket
import sys
from typing import Any

import structlog
from structlog.typing import EventDict, WrappedLogger

FORMATS = ("auto", "json", "text")
_MACHINE = socket.gethostname()


def build_logging(level: str, *, style: str, is_debug: bool) -> dict[str, Any]:
    """The setting LOGGING. ``style``: ``json``, ``text``, or ``auto``: text for a terminal and with DEBUG.

    Every line has the ids that were bound where it was written (``runs.tracing``) and the worker's name.
    """
    if style not in FORMATS:
        raise ValueError(f"LOG_FORMAT is {style!r}. It must be one of {', '.join(FORMATS)}.")
    is_text = style == "text" or (style == "auto" and (is_debug or sys.stderr.isatty()))
    render: list[Any] = (
        [structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())]
        if is_text
        else [structlog.processors.format_exc_info, structlog.processors.JSONRenderer(ensure_ascii=False, default=str)]
    )
    console = {"handlers": ["console"], "propagate": False}
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {
            "line": {
                "()": structlog.stdlib.ProcessorFormatter,
                "foreign_pre_chain": [
                    structlog.contextvars.merge_contextvars,
                    add_worker,
                    structlog.stdlib.add_logger_name,
                    structlog.stdlib.add_log_level,
                    structlog.stdlib.ExtraAdder(),
                    structlog.processors.TimeStamper(fmt="iso", utc=True),
                ],
                "processors": [structlog.stdlib.ProcessorFormatter.remove_processors_meta, *render],
            }
        },
        "handlers": {"console": {"class": "logging.StreamHandler", "formatter": "line"}},
        "root": {"handlers": ["console"], "level": level},
        "loggers": {
            "httpx2": {"level": "WARNING"},
            # These bring handlers of their own, which would print their lines differently.
            "django": console,
            "django-q": {**console, "level": "WARNING"},
            "uvicorn": console,
            "uvicorn.error": {"handlers": [], "propagate": True},
            "uvicorn.access": console,
        },
    }


def add_worker(logger: WrappedLogger, name: str, event: EventDict) -> EventDict:
    """Machine and process, as pages name a worker. Asked for anew, because workers are forked."""
    event.setdefault("worker", f"{_MACHINE}:{os.getpid()}")
    return event
