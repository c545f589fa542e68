"""Answers to machines that watch the site: health and metrics, before hosts, sessions and logins are looked at.

A probe calls by address, so ``ALLOWED_HOSTS`` cannot be asked of it, and it must get an answer while logins fail.
"""

from __future__ import annotations

from collections.abc import Callable

from asgiref.sync import iscoroutinefunction, sync_to_async
from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django.utils.decorators import sync_and_async_middleware

from runs.views.probes import healthz_live, healthz_ready, metrics

PROBES: dict[str, Callable[[HttpRequest], HttpResponse]] = {
    "/healthz/live": healthz_live,
    "/healthz/ready": healthz_ready,
    "/metrics": metrics,
}


@sync_and_async_middleware
def probes(get_response: Callable[[HttpRequest], HttpResponseBase]) -> Callable[[HttpRequest], HttpResponseBase]:
    """Django middleware; must be the first."""
    if iscoroutinefunction(get_response):

        async def answer_async(request: HttpRequest) -> HttpResponseBase:
            probe = PROBES.get(request.path.rstrip("/"))
            if probe is healthz_live:
                return probe(request)  # without a thread: it says that the event loop turns
            if probe is not None:
                return await sync_to_async(probe)(request)
            response: HttpResponseBase = await get_response(request)
            return response

        return answer_async  # type: ignore[return-value]

    def answer(request: HttpRequest) -> HttpResponseBase:
        probe = PROBES.get(request.path.rstrip("/"))
        return get_response(request) if probe is None else probe(request)

    return answer
