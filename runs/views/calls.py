"""One model call: the exact request and the exact response."""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse
from django.views.decorators.http import require_safe

from runs.access import access_of, get_visible, signed_in
from runs.models import ModelCall, ModelCallBody
from runs.views.answers import show
from runs.views.shown import show_model_call


@signed_in
@require_safe
def call_detail(request: HttpRequest, pk: int) -> HttpResponse:
    """A page, or to htmx the part that the run page opens in place."""
    calls = ModelCall.objects.select_related("agent", "agent_run", "item", "price", "soul")
    call = get_visible(request, calls, pk=pk)
    context = {
        "access": access_of(request),
        "call": call,
        "shown": show_model_call(call),
        "body": ModelCallBody.objects.filter(call=call).first(),
    }
    return show(request, "runs/call.html", "runs/_call.html", context)
