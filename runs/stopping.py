"""One byte of memory that the worker command shares with the processes it forks: whether to stop.

Not a ``multiprocessing.Event``: its lock would stay locked for ever if a process that holds it were killed.
"""

from __future__ import annotations

import mmap

_flag = mmap.mmap(-1, 1)


def stop() -> None:
    """Tell every process forked from here to come to an end."""
    _flag[0] = 1


def is_stopping() -> bool:
    """Whether this worker has been told to stop."""
    return _flag[0] == 1
