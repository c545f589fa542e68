"""What strangers may call: the link in a mail that ends the mails, and news of mails that came back."""

from __future__ import annotations

from typing import Any

from django.core import signing
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import render
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_http_methods

from agents.models import Department
from runs import mail_events, suppressions
from runs.inbound import RefusedError, check_signature, parse_object, read_body
from runs.models import Item, Suppression
from runs.outbox import UNSUBSCRIBE_SALT

MAX_EVENTS = 100
MAX_NOTE = 300


@csrf_exempt  # the signed link says whose it is; mail programs post to it by themselves (RFC 8058)
@require_http_methods(["GET", "HEAD", "POST"])
def unsubscribe(request: HttpRequest, token: str) -> HttpResponse:
    """A page with a button; posting ends the mails. Programs that only follow links end nothing."""
    try:
        found = signing.loads(token, salt=UNSUBSCRIBE_SALT)
        item = Item.objects.filter(pk=found["item"]).first()
    except (signing.BadSignature, KeyError, TypeError, ValueError):
        return render(request, "unsubscribe.html", {}, status=404)
    address = str(found["address"])
    if request.method != "POST":
        return render(request, "unsubscribe.html", {"address": address})
    if item is not None:
        mail_events.opt_out(item=item, address=address)
    else:  # what we knew of them is gone; their word stands
        suppressions.suppress(address=address, reason=Suppression.Reason.OPT_OUT, note="By the link in a mail.")
    return render(request, "unsubscribe.html", {"address": address, "is_done": True})


@csrf_exempt  # the signature says who sends; there is no session
def mail_events_hook(request: HttpRequest, department: str) -> JsonResponse:
    """``{"events": [{"type": "bounce", "address": …, "message_id": …, "note": …}]}``, signed as leads are.

    ``type`` is ``bounce``, ``complaint`` or ``opt_out``. Sending the same again changes nothing.
    """
    try:
        return _receive(request, department)
    except RefusedError as refusal:
        return refusal.response()


def _receive(request: HttpRequest, slug: str) -> JsonResponse:
    if request.method != "POST":
        raise RefusedError(405, "Send a POST request.")
    department = Department.objects.filter(slug=slug).first()
    if department is None:
        raise RefusedError(404, "There is no such department.")
    body = read_body(request)
    check_signature(request, body, secret_env=department.webhook_secret_env)
    payload = parse_object(body)
    events = payload.get("events", [payload])
    if not isinstance(events, list) or not 0 < len(events) <= MAX_EVENTS:
        raise RefusedError(400, f"`events` must be a list of 1 to {MAX_EVENTS} events.")
    read = [_read(event) for event in events]
    recorded = sum(mail_events.record_event(department=department, **event) for event in read)
    return JsonResponse({"status": "recorded", "news": recorded})


def _read(event: Any) -> dict[str, str]:
    if not isinstance(event, dict):
        raise RefusedError(400, "An event must be a JSON object.")
    texts = {name: event.get(name) or "" for name in ("type", "address", "message_id", "note")}
    if not all(isinstance(text, str) for text in texts.values()):
        raise RefusedError(400, "The fields of an event must be text.")
    if texts["type"] not in mail_events.REASONS:
        raise RefusedError(400, f"`type` must be one of {', '.join(mail_events.REASONS)}.")
    address = texts["address"].strip()
    if "@" not in address or len(address) > 320 or "\0" in "".join(texts.values()):
        raise RefusedError(400, "`address` must be an e-mail address.")
    message_id = texts["message_id"][:255]
    return {"kind": texts["type"], "address": address, "message_id": message_id, "note": texts["note"][:MAX_NOTE]}
