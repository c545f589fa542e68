"""What of the answers is compressed on its way."""

from __future__ import annotations

from django.http import HttpRequest, HttpResponseBase
from django.middleware.gzip import GZipMiddleware


class CompressWhole(GZipMiddleware):
    """Django middleware: compresses pages, and leaves alone what is written while it is sent.

    Under ASGI Django compresses each piece for itself, and of several such parts a browser keeps only the first.
    """

    def process_response(self, request: HttpRequest, response: HttpResponseBase) -> HttpResponseBase:
        """The page compressed, if the browser takes that."""
        return response if response.streaming else super().process_response(request, response)
