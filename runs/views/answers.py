"""How views answer: the whole page or its partial, and after an action a sentence or a redirect."""

from __future__ import annotations

from typing import Any

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils.cache import patch_vary_headers

CHANGED_EVENT = "kontor:changed"
"""The browser event after which the parts of a page fetch what an action has changed."""


def is_htmx(request: HttpRequest) -> bool:
    """Whether htmx asks for a part of a page; a page restored from the browser's history is asked for whole."""
    headers = request.headers
    return headers.get("HX-Request") == "true" and headers.get("HX-History-Restore-Request") != "true"


def show(request: HttpRequest, page: str, partial: str, context: dict[str, Any]) -> HttpResponse:
    """The page, or to htmx the partial that the page includes: for filters and paging, where both share a URL."""
    response = render(request, partial if is_htmx(request) else page, context)
    patch_vary_headers(response, ["HX-Request"])
    return response


def answer(request: HttpRequest, text: str, *, changed: bool, url: str) -> HttpResponse:
    """After an action: to htmx the message alone, and the parts of the page refetch themselves; else a redirect.

    ``changed`` False: somebody else was first, or there was nothing to do; ``text`` says which.
    """
    messages.add_message(request, messages.SUCCESS if changed else messages.WARNING, text)
    if not is_htmx(request):
        return redirect(url)
    response = render(request, "_messages.html")
    response["HX-Trigger"] = CHANGED_EVENT
    return response
