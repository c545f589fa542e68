"""The leads that fit the filters as a CSV file, with the columns that are shown, written while it is sent."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import tzinfo

from django.db.models import QuerySet

from agents.models import Installation
from leads.columns import Chosen, file_head, file_row
from leads.listing import read_rows
from leads.models import Lead
from runs.switches import describe_halt
from runs.views.exports import csv_text, in_chunks


def write_csv(leads: QuerySet[Lead], chosen: Chosen, zone: tzinfo) -> Iterator[str]:
    """The lines of the file, a thousand leads at a time, newest first; times in this zone."""
    yield csv_text([file_head(chosen)])
    halt = describe_halt(Installation.read())
    joined = ("item__automation_by", "item__department__state_by", "item__total", "owner")
    for chunk in in_chunks(leads.select_related(*joined)):
        yield csv_text([file_row(row, chosen, zone) for row in read_rows(chunk, halt)])
