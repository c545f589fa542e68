"""The inbound webhook of leads: ``POST /hooks/<department>/leads/``, signed as Standard Webhooks are.

A body is one lead, ``{"email": …, "name": …}``, or up to a hundred, ``{"leads": [{…}, …]}``. Keys are recognised
like the columns of an import; what is unknown becomes an attribute. A lead needs an ``email`` or an ``external_id``.
Leads, triggers and "due now" are one transaction, and nothing else is done here.

To add a source (a form, a mailbox, a CRM) write a file like this one:

1. ``read_body``, ``check_signature`` and ``parse_object`` of ``runs.inbound``, or what the sender has instead.
2. Turn what came into ``LeadRow`` s with ``mapping.read_lead``, numbered from 1.
3. ``record_delivery`` with an ``Arrival`` whose ``trigger_source`` is the source's own and whose ``Delivery`` has the
   sender's id of the event: the unique constraint on both makes a second delivery a no-op, also in a race.
4. One line in ``config/urls.py``.
"""

from __future__ import annotations

from typing import Any

from django.db import IntegrityError, OperationalError, transaction
from django.http import HttpRequest, JsonResponse
from django.utils import timezone
from django.views.decorators.csrf import csrf_exempt

from agents.models import Department
from leads.department import SALES
from leads.intake import Arrival, Delivery, Landed, upsert_leads
from leads.mapping import LeadRow, RowError, read_lead, recognise
from runs.inbound import RefusedError, check_signature, parse_object, read_body
from runs.models import Item, Trigger

MAX_LEADS = 100
MAX_DELIVERY_ID = 180
_TRIES = 4


@csrf_exempt  # the signature says who sends; there is no session
def receive_leads(request: HttpRequest, department: str) -> JsonResponse:
    """200 with what became of each lead, or ``{"status": "duplicate"}``; 4xx and 503 with ``{"error": reason}``."""
    try:
        return _receive(request, department)
    except RefusedError as refusal:
        return refusal.response()


def _receive(request: HttpRequest, slug: str) -> JsonResponse:
    if request.method != "POST":
        raise RefusedError(405, "Send a POST request.")
    department = Department.objects.filter(slug=slug, kind=SALES.kind).first()
    if department is None:
        raise RefusedError(404, "There is no such department.")
    body = read_body(request)
    delivery_id = check_signature(request, body, secret_env=department.webhook_secret_env)
    if len(delivery_id) > MAX_DELIVERY_ID:
        raise RefusedError(400, f"The webhook-id is longer than {MAX_DELIVERY_ID} characters.")
    rows, is_single = read_rows(parse_object(body))
    source = f"webhook:{department.slug}"
    arrival = Arrival(
        source=source,
        trigger_source=source,
        now=timezone.now(),
        priority=Item.Priority.PROSPECT,
        delivery=Delivery(delivery_id, body.decode(), is_single),
    )
    landed = record_delivery(department=department, rows=rows, arrival=arrival)
    if landed is None:
        return JsonResponse({"status": "duplicate"})
    return JsonResponse({"status": "recorded", "leads": [_answer(one) for one in landed]})


def read_rows(payload: dict[str, Any]) -> tuple[list[LeadRow], bool]:
    """The leads in a body, and whether it held one outside of a list. One that is unusable refuses the delivery:
    the sender is told which and why, and nothing is half recorded."""
    is_single = "leads" not in payload
    entries = [payload] if is_single else payload["leads"]
    if not isinstance(entries, list) or not 0 < len(entries) <= MAX_LEADS:
        raise RefusedError(400, f"`leads` must be a list of 1 to {MAX_LEADS} leads.")
    rows, problems = [], []
    for number, entry in enumerate(entries, start=1):
        try:
            rows.append(_read_row(number, entry))
        except RowError as error:
            problems.append({"lead": number, "reason": str(error)})
    if problems:
        reasons = " ".join(f"Lead {p['lead']}: {p['reason']}" for p in problems[:3])
        raise RefusedError(400, f"Nothing is recorded. {reasons}", problems=problems)
    return rows, is_single


def record_delivery(*, department: Department, rows: list[LeadRow], arrival: Arrival) -> list[Landed] | None:
    """Store the leads of one delivery; None if that delivery is recorded already, also by somebody a moment ago."""
    delivery = arrival.delivery
    if delivery is None:
        raise ValueError("A delivery has an id.")
    ids = [delivery.id_of(row.number) for row in rows]
    recorded = Trigger.objects.filter(source=arrival.trigger_source, delivery_id__in=ids)
    for tries_left in reversed(range(_TRIES)):
        try:
            with transaction.atomic():
                if recorded.exists():
                    return None
                return upsert_leads(department=department, rows=rows, arrival=arrival)
        except (IntegrityError, OperationalError):
            # Another delivery of the same id or of the same people was faster, or both waited for each other.
            # The next look sees what it has written.
            if not tries_left:
                raise
    raise AssertionError("unreachable")


def _read_row(number: int, entry: Any) -> LeadRow:
    if not isinstance(entry, dict):
        raise RowError("A lead must be a JSON object.")
    cells = {name: value for name, value in entry.items() if name != "attributes"}
    mapping = recognise(list(cells))
    more = entry.get("attributes")
    if isinstance(more, dict):
        cells |= {name: value for name, value in more.items() if name not in cells}
    elif more is not None:
        cells["attributes"] = more
    return read_lead(number, cells, mapping)


def _answer(landed: Landed) -> dict[str, Any]:
    answer: dict[str, Any] = {"lead": landed.item_id, "result": landed.what}
    return answer | ({"notes": list(landed.notes)} if landed.notes else {})
