"""What is done every few seconds and every minute: one thing that fails holds up no other, nor whoever does it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable

from django.db import InterfaceError, OperationalError

logger = logging.getLogger(__name__)


def do_each(jobs: Iterable[Callable[[], object]]) -> bool:
    """Do them in turn; one that fails is logged and is tried again next time. Returns whether none has failed.

    Raises OperationalError and InterfaceError: the database is away, and all of them would fail.
    """
    is_well = True
    for job in jobs:
        try:
            job()
        except (OperationalError, InterfaceError):
            raise
        except Exception:
            is_well = False
            name = f"{getattr(job, '__module__', '')}.{getattr(job, '__name__', job)}"
            logger.exception("%s failed; it is tried again", name)
    return is_well
