"""The runbook as a page: what each alert means and what to do."""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_safe

from runs.access import access_of, signed_in
from runs.runbook import read_page


@signed_in
@require_safe
def runbook(request: HttpRequest) -> HttpResponse:
    """The page; the same text as ``docs/runbook.md``."""
    return render(request, "runs/runbook.html", {"access": access_of(request), "page": read_page()})
