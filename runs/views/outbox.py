"""The outbox: what waits to leave and why, what has left, what is unsure; and what a person does about it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from django.contrib import messages
from django.db.models import Q, QuerySet, prefetch_related_objects
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import reverse
from django.utils import timezone
from django.views.decorators.http import require_POST, require_safe

from agents.models import Member
from agents.statements import Among, Statement, count_each
from runs import departures, outbox, reviews
from runs.access import Access, access_of, get_visible, require, signed_in
from runs.allowed_sending import can_mark_sent, can_send_another, can_settle, can_withdraw
from runs.mailbox import is_in_files
from runs.models import Channel, Item, OutboxMessage, Review
from runs.outbox import Status
from runs.send_channels import CHANNELS
from runs.sendable import address_of
from runs.trial_sends import send_test
from runs.views.answers import answer, is_htmx, show
from runs.views.forms import day_bounds, read_day
from runs.views.outbox_line import ENVELOPE as _ENVELOPE
from runs.views.outbox_line import build_headers, read_timeline
from runs.views.paging import read_page
from runs.views.review_buttons import waits_as_it_stands
from runs.views.shown import Shown

Role = Member.Role
PAGE_ROWS = 30
"""A row is three lines high and has its buttons: more of them are looked at no sooner."""
UNSURE_ROWS = 10
"""So many unsure messages stand above the list; the rest is found by their state."""
MOST_COUNTED = 1_000
"""A state's number counts so far, then it says "1,000+"."""
_LOOKS = {
    Status.PENDING: ("progress", "clock"),
    Status.SENDING: ("progress", "mail"),
    Status.SENT: ("good", "circle-check"),
    Status.FAILED: ("bad", "circle-x"),
    Status.UNKNOWN: ("warning", "alert-triangle"),
    Status.WITHDRAWN: ("neutral", "ban"),
}


@dataclass(frozen=True, slots=True)
class Chosen:
    """What the list is narrowed to; empty means everything. ``day`` is of the approval, in the person's zone."""

    status: str = ""
    channel: str = ""
    day: str = ""
    search: str = ""

    @property
    def is_any(self) -> bool:
        """Whether anything is chosen."""
        return bool(self.status or self.is_narrowed)

    @property
    def is_narrowed(self) -> bool:
        """Whether anything but the state is."""
        return bool(self.channel or self.day or self.search)


@dataclass(frozen=True, slots=True)
class Count:
    """How many messages are in one state, None where nobody counted; ``is_more``: at least so many."""

    status: str
    label: str
    number: int | None
    is_more: bool


@dataclass(frozen=True, slots=True)
class Button:
    """One thing that may be done about a message, and where it is posted. ``sent`` is what is said of an unsure one."""

    label: str
    icon: str
    url: str
    sent: str = ""


@dataclass(frozen=True, slots=True)
class Row:
    """One message as the list shows it, with what may be done about it."""

    message: OutboxMessage
    shown: Shown
    buttons: Sequence[Button]
    waits: str = ""
    """Why it does not leave at its time, in sentences; empty if nothing is known to hold it."""


@signed_in
@require_safe
def outbox_list(request: HttpRequest) -> HttpResponse:
    """Newest first; state, channel, day and text filter by the query string, which is the page."""
    access, chosen = access_of(request), read_chosen(request)
    visible = OutboxMessage.objects.filter(department__in=access.ids)
    related = visible.select_related("item", "approved_by")
    page = read_page(request, filter_messages(related, chosen, access), size=PAGE_ROWS)
    unsure = [] if chosen.is_any else _UNSURE.objects(limit=UNSURE_ROWS + 1, departments=access.ids)
    shown = [*page.rows, *unsure]
    access.give_departments([*shown, *(message.item for message in shown)])
    resting = [m.item for m in page.rows if m.status == Status.PENDING and m.item.automation != Item.Automation.ACTIVE]
    prefetch_related_objects(resting, "automation_by")
    context = {
        "access": access,
        "page": page,
        "rows": [build_row(message, access) for message in page.rows],
        "unsure": [build_row(message, access) for message in unsure[:UNSURE_ROWS]],
        "has_more_unsure": len(unsure) > UNSURE_ROWS,
        "chosen": chosen,
        "counts": _counts(access, chosen),
        "known_channels": sorted(CHANNELS),
        "channels": describe_channels(access),
        "mailbox_url": reverse("runs:mailbox") if is_in_files() and request.user.is_superuser else "",
    }
    return show(request, "runs/outbox.html", "runs/_outbox.html", context)


@signed_in
@require_safe
def outbox_detail(request: HttpRequest, pk: int) -> HttpResponse:
    """One message: exactly what leaves, and everything that has become of it."""
    return render(request, "runs/outbox_message.html", _message(request, pk))


@signed_in
@require_safe
def outbox_panel(request: HttpRequest, pk: int) -> HttpResponse:
    """The same without the page around it."""
    return render(request, "runs/_outbox_message.html", _message(request, pk))


@signed_in
@require_POST
def outbox_withdraw(request: HttpRequest, pk: int) -> HttpResponse:
    """Take a message back before it leaves; the approval behind it is taken back with it."""
    message = get_visible(request, OutboxMessage.objects.select_related("output"), pk=pk)
    user = require(request, message.department_id, Role.OPERATOR)
    about = Q(output=message.output) | Q(
        edited=message.output
    )  # what a person changed was asked about as it was before
    asked = Review.objects.filter(about, status=Review.Status.ANSWERED, answer__in=Review.APPROVALS)
    review = asked.order_by("-answered_at").first() if message.output is not None else None
    if review is not None and (undone := reviews.undo(review=review, user=user)):
        return _answered(request, message, bool(undone), "Taken back: the question is open again.")
    changed = outbox.withdraw(message=message, user=user, reason=request.POST.get("reason", ""))
    return _answered(request, message, changed, "Taken back. It is not sent.")


@signed_in
@require_POST
def outbox_by_hand(request: HttpRequest, pk: int) -> HttpResponse:
    """Say that a message was sent by other means, so that it is not sent again."""
    message = get_visible(request, OutboxMessage.objects.all(), pk=pk)
    user = require(request, message.department_id, Role.OPERATOR)
    changed = departures.mark_sent(message=message, user=user)
    return _answered(request, message, changed, "Noted as sent by hand. It does not leave again.")


@signed_in
@require_POST
def outbox_settle(request: HttpRequest, pk: int) -> HttpResponse:
    """Say whether an unsure message was sent: ``sent`` is ``yes`` or ``no``."""
    message = get_visible(request, OutboxMessage.objects.all(), pk=pk)
    user = require(request, message.department_id, Role.OPERATOR)
    said = request.POST.get("sent")
    if said not in ("yes", "no"):
        return answer(request, "Say whether it was sent.", changed=False, url=reverse("runs:outbox"))
    changed = departures.settle_unknown(message=message, user=user, was_sent=said == "yes")
    return _answered(request, message, changed, "It counts as sent." if said == "yes" else "It waits to be sent.")


@signed_in
@require_POST
def outbox_again(request: HttpRequest, pk: int) -> HttpResponse:
    """Send another message of the same purpose, for a reason."""
    message = get_visible(request, OutboxMessage.objects.select_related("output", "item"), pk=pk)
    user = require(request, message.department_id, Role.OPERATOR)
    reason = request.POST.get("reason", "").strip()
    if not reason:
        text = "Say why another is to be sent: the person has had one."
        return answer(request, text, changed=False, url=reverse("runs:outbox"))
    allowed = can_send_another(message, access_of(request))
    again = departures.send_another(message=message, user=user, reason=reason) if allowed else None
    text = f"Another one waits to be sent to {again.address or 'nobody yet'}." if again else ""
    if again is not None and again.address != message.address:
        text += f" The first one went to {message.address}."
    if again is None:
        text = f"Not written. {allowed.reason or 'Somebody was first.'} Nothing was changed."
    return answer(request, text, changed=again is not None, url=reverse("runs:outbox"))


@signed_in
@require_POST
def channel_test(request: HttpRequest, pk: int) -> HttpResponse:
    """Send a test mail over a channel to whoever asks, and say what DNS says of its domain."""
    channel = get_visible(request, Channel.objects.select_related("department"), pk=pk)
    user = require(request, channel.department_id, Role.ADMINISTRATOR)
    trial = send_test(channel=channel, user=user)
    if not is_htmx(request):
        for record in trial.records:
            level = messages.SUCCESS if record.is_good else messages.WARNING
            messages.add_message(request, level, f"{record.name}: {record.text}")
        return answer(request, trial.text, changed=trial.is_sent, url=reverse("runs:outbox"))
    return render(request, "runs/_channel_trial.html", {"trial": trial, "channel": channel})


def read_chosen(request: HttpRequest) -> Chosen:
    """The filters of the query string; what is none is left out."""
    given = request.GET
    status, channel, day = given.get("status", ""), given.get("channel", ""), given.get("day", "")
    return Chosen(
        status=status if status in Status.values else "",
        channel=channel if channel in CHANNELS else "",
        day=day if read_day(day) is not None else "",
        search=given.get("q", "").strip()[:100],
    )


def filter_messages(rows: QuerySet[OutboxMessage], chosen: Chosen, access: Access) -> QuerySet[OutboxMessage]:
    """The messages that fit. A text is looked for in the item's title and in the address."""
    if chosen.status:
        rows = rows.filter(status=chosen.status)
    if chosen.channel:
        rows = rows.filter(channel=chosen.channel)
    day = read_day(chosen.day)
    if day is not None:
        begin, end = day_bounds(day)
        rows = rows.filter(approved_at__gte=begin, approved_at__lt=end)
    if chosen.search:
        rows = _search(rows, chosen.search, access)
    return rows


def _search(rows: QuerySet[OutboxMessage], text: str, access: Access) -> QuerySet[OutboxMessage]:
    if len(text) < 3:  # too short for the indexes; a page of it is found soon
        return rows.filter(Q(item__title__icontains=text) | Q(address__icontains=text))
    # Two searches, each by an index of its own; one with "or" would read every message where nothing fits.
    about = Item.objects.filter(department__in=access.ids, title__icontains=text).order_by()
    titled = OutboxMessage.objects.filter(item__in=about.values("pk")).order_by()
    addressed = OutboxMessage.objects.filter(department__in=access.ids, address__icontains=text).order_by()
    return rows.filter(pk__in=titled.values("pk").union(addressed.values("pk")))


def build_row(message: OutboxMessage, access: Access) -> Row:
    """One message with its look and what the person may do about it."""
    status = Status(message.status)
    colour, icon = _LOOKS[status]
    waits = _waits(message, access) if status == Status.PENDING else ""
    note = _note(message, waits)
    shown = Shown(str(status.label), colour, icon, note=note, is_live=status == Status.SENDING)
    return Row(message, shown, _buttons(message, access), waits)


def _buttons(message: OutboxMessage, access: Access) -> list[Button]:
    found = []
    if can_withdraw(message, access):
        found.append(Button("Undo", "corner-up-left", reverse("runs:outbox_withdraw", args=[message.pk])))
    if can_mark_sent(message, access):
        found.append(Button("I sent it by hand", "mail", reverse("runs:outbox_by_hand", args=[message.pk])))
    if can_settle(message, access):
        url = reverse("runs:outbox_settle", args=[message.pk])
        found += [Button("It was sent", "check", url, sent="yes"), Button("It was not", "x", url, sent="no")]
    return found


def _message(request: HttpRequest, pk: int) -> dict[str, Any]:
    related = ("item__department", "department", "approved_by", "output__agent_run__agent", "output__author", "trigger")
    message = get_visible(request, OutboxMessage.objects.select_related(*related), pk=pk)
    access = access_of(request)
    rendered = message.rendered if isinstance(message.rendered, dict) else {}
    can_repeat = can_send_another(message, access) if message.status == Status.SENT else None
    return {
        "access": access,
        "row": build_row(message, access),
        "message": message,
        "headers": build_headers(rendered),
        "other": {k: v for k, v in rendered.items() if k not in ("subject", "body", "headers", *_ENVELOPE)},
        "line": read_timeline(message),
        "can_repeat": can_repeat,
        "address_now": address_of(message.item) if can_repeat else "",
    }


def _waits(message: OutboxMessage, access: Access) -> str:
    """What the sender has found to hold it, else what would hold it now."""
    is_manual = message.output_id is None
    return message.waiting_for or waits_as_it_stands(
        message.item, message.department, access.installation, is_manual=is_manual
    )


def _note(message: OutboxMessage, waits: str) -> str:
    """For what it waits, and what happens next; or why it ended as it did."""
    if message.status == Status.PENDING:
        if waits:
            return waits
        if message.release_at > timezone.now():
            return "It can still be taken back."
        return "It is due: the sender takes it next."
    if message.status == Status.SENT and message.bounced_at is not None:
        return f"It came back. {message.error}".strip()
    return message.error if message.status in (Status.FAILED, Status.UNKNOWN) and message.error else message.reason


def _counts(access: Access, chosen: Chosen) -> list[Count]:
    """How many are in each state, up to ``MOST_COUNTED``: six short walks over an index, however many there are.

    The states without a number where other filters are set, as no index counts those that fit them too.
    """
    if chosen.is_narrowed:
        return [Count(status.value, str(status.label), None, False) for status in Status]
    numbers = count_each(_IN_STATE, limit=MOST_COUNTED + 1, departments=access.ids)
    return [
        Count(status.value, str(status.label), min(numbers[status], MOST_COUNTED), numbers[status] > MOST_COUNTED)
        for status in Status
    ]


def _in_state(status: Status) -> Statement[OutboxMessage]:
    rows = OutboxMessage.objects.filter(status=status).order_by().values_list("pk")
    return Statement(lambda: rows.filter(Among("department_id", "departments")))


_UNSURE = Statement(
    lambda: (
        OutboxMessage.objects.filter(Among("department_id", "departments"), status=Status.UNKNOWN)
        .select_related("item", "approved_by")
        .order_by("pk")
    )
)
_IN_STATE: Mapping[str, Statement[OutboxMessage]] = {status.value: _in_state(status) for status in Status}


def describe_channels(access: Access) -> list[dict[str, Any]]:
    """The channels of the departments that are shown, with what keeps them from sending."""
    rows = Channel.objects.filter(department__in=access.ids).select_related("department").order_by("department", "kind")
    found = []
    for channel in rows:
        plugin = CHANNELS.get(channel.kind)
        problem = (
            plugin.problem(outbox.config_of(channel)) if plugin else f"This release has no {channel.kind} channel."
        )
        found.append(
            {
                "row": channel,
                "problem": problem,
                "can_test": bool(plugin and plugin.reaches_person)
                and access.can(channel.department_id, Role.ADMINISTRATOR),
            }
        )
    return found


def _answered(request: HttpRequest, message: OutboxMessage, changed: bool, text: str) -> HttpResponse:
    if not changed:
        message.refresh_from_db()
        text = f"Nothing was changed: this message is {message.get_status_display()}."
    return answer(request, text, changed=changed, url=reverse("runs:outbox"))
