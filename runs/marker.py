"""A file outside of the database that tells whether the database has gone back in time: a backup was restored.

It holds the newest committed line of the log. The log's ids only ever grow, also when lines are deleted; so a
database whose ids have not come that far is an older one, and so is one that gave that id to another line.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from django.conf import settings
from django.db import connection

from runs.models import LogEntry

TABLE = LogEntry._meta.db_table


@dataclass(frozen=True, slots=True)
class Marker:
    """The newest line of the log when the file was written: its id, and when it was logged by the database's clock."""

    entry_id: int
    at: datetime


def marker_path() -> Path:
    """One file for each database that this checkout has worked on."""
    known = connection.settings_dict
    name = "|".join(str(known.get(part, "")) for part in ("ENGINE", "HOST", "PORT", "NAME"))
    return settings.VAR_DIR / f"newest-{hashlib.sha256(name.encode()).hexdigest()[:12]}.json"


def read_marker() -> Marker | None:
    """What the file says; None where there is none, or one that was not written by us."""
    try:
        content = json.loads(marker_path().read_text(encoding="utf-8"))
        return Marker(int(content["entry_id"]), datetime.fromisoformat(content["at"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def write_marker() -> Marker | None:
    """Write down how far the log has come; None while it is empty. Moved into place, so never half a file."""
    newest = LogEntry.objects.order_by("-pk").values_list("pk", "at").first()
    if newest is None:
        return None
    marker, path = Marker(*newest), marker_path()
    aside = path.with_suffix(f".{os.getpid()}")
    aside.write_text(json.dumps({"entry_id": marker.entry_id, "at": marker.at.isoformat()}), encoding="utf-8")
    aside.replace(path)
    return marker


def is_older_than(marker: Marker) -> bool:
    """Whether the database has not come as far as the marker, or has come there on another way."""
    if _last_id() < marker.entry_id:
        return True
    at = LogEntry.objects.filter(pk=marker.entry_id).values_list("at", flat=True).first()
    return at is not None and at != marker.at


def _last_id() -> int:
    """The highest id the log has ever given."""
    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            cursor.execute("SELECT pg_sequence_last_value(pg_get_serial_sequence(%s, 'id')::regclass)", [TABLE])
        else:
            cursor.execute("SELECT seq FROM sqlite_sequence WHERE name = %s", [TABLE])
        row = cursor.fetchone()
    return int(row[0]) if row and row[0] is not None else 0
