"""Files that are written while they are sent: as long as a log may be, and never whole in memory."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import AsyncIterator, Iterator, Sequence
from datetime import datetime, tzinfo
from typing import Any, TypeVar

from asgiref.sync import sync_to_async
from django.core.handlers.asgi import ASGIRequest
from django.db.models import Model, QuerySet
from django.http import HttpRequest, HttpResponseBadRequest, StreamingHttpResponse
from django.utils import timezone

CHUNK_ROWS = 1_000
FORMULAS = ("=", "+", "-", "@", "\t", "\r")
"""What a spreadsheet takes for the beginning of a formula."""
_BELOW_ZERO = re.compile(r"-[0-9]+(\.[0-9]+)?")

ModelT = TypeVar("ModelT", bound=Model)


def send_file(
    request: HttpRequest, pieces: Iterator[str] | Iterator[bytes], *, name: str, content_type: str
) -> StreamingHttpResponse:
    """A download of these pieces of text or bytes, each made when the one before has been taken."""
    # Django collects a plain iterator whole before it sends it under ASGI.
    content: Any = _in_turn(pieces) if isinstance(request, ASGIRequest) else pieces
    charset = "" if content_type == "application/zip" else "; charset=utf-8"
    response = StreamingHttpResponse(content, content_type=f"{content_type}{charset}")
    response["Content-Disposition"] = f'attachment; filename="{name}"'
    response["Cache-Control"] = "private, no-store"
    return response


def in_chunks(rows: QuerySet[ModelT]) -> Iterator[list[ModelT]]:
    """The rows, newest first, a query for each thousand: no transaction stays open while somebody downloads."""
    rows, last = rows.order_by("-pk"), None
    while chunk := list((rows if last is None else rows.filter(pk__lt=last))[:CHUNK_ROWS]):
        yield chunk
        last = chunk[-1].pk


def refuse_file(problems: Sequence[str]) -> HttpResponseBadRequest:
    """Instead of a file whose filters cannot be read: it would hold more than was asked for."""
    text = f"No file was made. {' '.join(problems)} Correct the filter, then export again.\n"
    return HttpResponseBadRequest(text, content_type="text/plain; charset=utf-8")


def moment_text(value: datetime | None, zone: tzinfo) -> str:
    """A moment as every file has it: in the person's zone, with its distance from UTC. Empty for none.

    The zone is to be asked for while the request is answered: when a file is being sent, it is forgotten.
    """
    return timezone.localtime(value, zone).isoformat(timespec="seconds") if value else ""


def csv_text(rows: Sequence[Sequence[object]]) -> str:
    """Lines of a CSV file. A text that a spreadsheet would take for a formula gets a quotation mark before it."""
    text = io.StringIO()
    csv.writer(text).writerows([[_harmless(value) for value in row] for row in rows])
    return text.getvalue()


def _harmless(value: object) -> object:
    is_formula = isinstance(value, str) and value.startswith(FORMULAS) and not _BELOW_ZERO.fullmatch(value)
    return f"'{value}" if is_formula else value


async def _in_turn(pieces: Iterator[str] | Iterator[bytes]) -> AsyncIterator[str | bytes]:
    take = sync_to_async(lambda: next(pieces, None))
    while (piece := await take()) is not None:
        yield piece
