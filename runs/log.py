"""The live log: entries are gathered while a transaction works and written with it."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any

from runs.database import insert_rows
from runs.models import AgentRun, Item, LogEntry


def item_entry(
    item: Item,
    kind: str,
    text: str,
    *,
    at: datetime,
    level: str = LogEntry.Level.INFO,
    pipeline_run_id: int | None = None,
    agent_run_id: int | None = None,
    data: dict[str, Any] | None = None,
) -> LogEntry:
    """One line about an item, not yet saved."""
    return LogEntry(
        department_id=item.department_id,
        item_id=item.pk,
        pipeline_run_id=pipeline_run_id,
        agent_run_id=agent_run_id,
        kind=kind,
        text=text,
        level=level,
        data=data or {},
        at=at,
    )


def run_entry(
    run: AgentRun,
    kind: str,
    text: str,
    *,
    at: datetime,
    level: str = LogEntry.Level.INFO,
    data: dict[str, Any] | None = None,
) -> LogEntry:
    """One line about an agent run, not yet saved."""
    return LogEntry(
        department_id=run.department_id,
        item_id=run.item_id,
        pipeline_run_id=run.pipeline_run_id,
        agent_run_id=run.pk,
        kind=kind,
        text=text,
        level=level,
        data=data or {},
        at=at,
    )


def write(entries: Iterable[LogEntry]) -> None:
    """Save the lines in their order, in the transaction that did what they tell."""
    insert_rows(entries)
