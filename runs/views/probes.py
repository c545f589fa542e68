"""What machines ask: is the process alive, does work flow, and the numbers. No login, no secrets."""

from __future__ import annotations

import secrets
from collections.abc import Mapping

from django.conf import settings
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.views.decorators.http import require_safe

from runs.health import READY, is_healthy, look
from runs.metrics import CONTENT_TYPE, render_metrics

_LOOPBACK = ("127.0.0.1", "::1", "::ffff:127.0.0.1")


@require_safe
def healthz_live(request: HttpRequest) -> HttpResponse:
    """The process answers; nothing else is asked."""
    return _json({"status": "alive"}, 200)


@require_safe
def healthz_ready(request: HttpRequest) -> HttpResponse:
    """Whether work flows: 200, or 503 with the reasons."""
    findings = look(READY)
    healthy = is_healthy(findings)
    body = {
        "status": "ready" if healthy else "not ready",
        "reasons": [f"{finding.check}: {finding.text}" for finding in findings if not finding.is_well],
        "checks": [{"check": finding.check, "ok": finding.is_well, "text": finding.text} for finding in findings],
    }
    return _json(body, 200 if healthy else 503)


@require_safe
def metrics(request: HttpRequest) -> HttpResponse:
    """Numbers for Prometheus, for whoever has the token; without a token for this machine alone."""
    if not may_read_metrics(request):
        return HttpResponse("Send the token of KONTOR_METRICS_TOKEN as a bearer token.\n", "text/plain", status=403)
    return HttpResponse(render_metrics(), CONTENT_TYPE, headers={"Cache-Control": "no-store"})


def may_read_metrics(request: HttpRequest) -> bool:
    """The right bearer token; or, where none is set, a caller on this machine that no proxy speaks for."""
    if settings.METRICS_TOKEN:
        given = request.headers.get("Authorization", "").removeprefix("Bearer ").strip()
        return secrets.compare_digest(given.encode(), settings.METRICS_TOKEN.encode())
    # A proxy on this machine is loopback too, and it says for whom it asks.
    is_proxied = "X-Forwarded-For" in request.headers or "Forwarded" in request.headers
    is_proxied = is_proxied or settings.SECURE_PROXY_SSL_HEADER is not None
    return request.META.get("REMOTE_ADDR") in _LOOPBACK and not is_proxied


def _json(body: Mapping[str, object], status: int) -> JsonResponse:
    return JsonResponse(dict(body), status=status, headers={"Cache-Control": "no-store"})
