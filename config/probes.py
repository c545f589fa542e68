"""Answers to machines that watch the site: health and metrics, before hosts, sessions and logins are looked at.

A probe calls by address, so ``ALLOWED_HOSTS`` cannot be asked of it, and it must get an answer while logins fail.
"""

from __future__ import annotations

from collections.abc import Callable

from django.http import HttpRequest, HttpResponse, HttpResponseBase

from runs.views.probes import healthz_live, healthz_ready, metrics

PROBES: dict[str, Callable[[HttpRequest], HttpResponse]] = {
    "/healthz/live": healthz_live,
    "/healthz/ready": healthz_ready,
    "/metrics": metrics,
}


def probes(get_response: Callable[[HttpRequest], HttpResponseBase]) -> Callable[[HttpRequest], HttpResponseBase]:
    """Django middleware; must be the first."""

    def answer(request: HttpRequest) -> HttpResponseBase:
        probe = PROBES.get(request.path.rstrip("/"))
        return get_response(request) if probe is None else probe(request)

    return answer
