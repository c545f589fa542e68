"""An address that only takes forms, opened as a page: by a bookmark, or by going back."""

from __future__ import annotations

from django.http import HttpRequest, HttpResponseBase, HttpResponseNotAllowed
from django.shortcuts import render
from django.utils.deprecation import MiddlewareMixin


class SayNotAllowed(MiddlewareMixin):
    """Django middleware: who is signed in reads a sentence where Django answers GET with an empty 405."""

    def process_response(self, request: HttpRequest, response: HttpResponseBase) -> HttpResponseBase:
        """The page in place of nothing, with the same status and ``Allow``."""
        if not isinstance(response, HttpResponseNotAllowed) or request.method != "GET":
            return response
        if not request.user.is_authenticated:
            return response
        page = render(request, "405.html", status=405)
        page["Allow"] = response["Allow"]
        return page
