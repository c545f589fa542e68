"""Times on pages are the person's own: their browser says which zone it is in, by the cookie that theme.js sets."""

from __future__ import annotations

from functools import lru_cache
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from django.http import HttpRequest, HttpResponseBase
from django.utils import timezone
from django.utils.deprecation import MiddlewareMixin

COOKIE = "kontor-zone"
MOST_LETTERS = 64


class PersonalTimes(MiddlewareMixin):
    """Django middleware: templates and filters show times in the zone of whoever asks, in UTC if they say none."""

    def process_request(self, request: HttpRequest) -> None:
        """Choose the zone for this request. Never refuses one: a wrong zone is no zone."""
        timezone.activate(find_zone(request.COOKIES.get(COOKIE, "")))

    def process_response(self, request: HttpRequest, response: HttpResponseBase) -> HttpResponseBase:
        """Leave the thread as it was."""
        timezone.deactivate()
        return response


@lru_cache(maxsize=1_000)
def find_zone(name: str) -> ZoneInfo:
    """The zone of this name (``Europe/Berlin``), UTC if there is none. A name may be anything that a cookie can be."""
    try:
        return ZoneInfo(name if name and len(name) <= MOST_LETTERS else "UTC")
    except (ZoneInfoNotFoundError, ValueError, OSError):  # unknown; a path out of the folder; a folder
        return ZoneInfo("UTC")
