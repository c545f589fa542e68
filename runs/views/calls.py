"""One model call: the request and the answer, readable, as JSON, and as a command that sends it again."""

from __future__ import annotations

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.views.decorators.http import require_safe

from runs.access import access_of, get_visible, signed_in
from runs.models import ModelCall, ModelCallBody
from runs.views.answers import show
from runs.views.attempts import CallRow, fallback_note
from runs.views.bodies import pretty, read_request, read_response
from runs.views.curls import build_curl
from runs.views.shown import show_model_call


@signed_in
@require_safe
def call_detail(request: HttpRequest, pk: int) -> HttpResponse:
    """A page, or to htmx the part that the run page opens in place."""
    calls = ModelCall.objects.select_related("agent", "agent_run", "item", "price", "soul", "department")
    call = get_visible(request, calls, pk=pk)
    body = ModelCallBody.objects.filter(call=call).first()
    context = {
        "access": access_of(request),
        "call": call,
        "row": CallRow(call, show_model_call(call), tuple(call.tool_calls.order_by("pk"))),
        "shown": show_model_call(call),
        "body": body,
    }
    if body is not None:
        key = call.department.api_key_env
        context |= {
            "request_sections": read_request(body.request),
            "response_sections": read_response(body.response),
            "request_json": pretty(body.request),
            "response_json": pretty(body.response),
            "curl": build_curl(body.request, base_url=settings.ANTHROPIC_BASE_URL, api_key_env=key),
            "note": fallback_note(body.request),
        }
    return show(request, "runs/call.html", "runs/_call.html", context)
