"""A person's own absences: from when to when, and who looks at their questions meanwhile."""

from __future__ import annotations

from datetime import date, datetime, time, timedelta
from zoneinfo import ZoneInfo

from django.contrib.auth.models import User
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404
from django.urls import reverse
from django.utils.dateparse import parse_date
from django.views.decorators.http import require_POST, require_safe

from runs import absences
from runs.access import access_of, signed_in
from runs.database import now as database_now
from runs.models import Absence
from runs.views.answers import answer, show
from runs.views.review_flow import user_of


@signed_in
@require_safe
def away(request: HttpRequest) -> HttpResponse:
    """When one is away and who covers, and for whom one covers oneself."""
    user, now = user_of(request), database_now()
    zone = _zone(request)
    rows = absences.absences_of(user, now=now)
    context = {
        "access": access_of(request),
        "mine": [row for row in rows if row.user_id == user.pk],
        "others": [row for row in rows if row.cover_id == user.pk],
        "covers": absences.possible_covers(user),
        "zone": zone,
        "today": f"{now.astimezone(zone):%Y-%m-%d}",
        "now": now,
    }
    return show(request, "runs/away.html", "runs/_away.html", context)


@signed_in
@require_POST
def away_plan(request: HttpRequest) -> HttpResponse:
    """Be away from one day to another, both included, covered by somebody."""
    user, zone, now = user_of(request), _zone(request), database_now()
    first, last = _day(request.POST.get("from", "")), _day(request.POST.get("to", ""))
    starts_at = max(_midnight(first, zone), now) if first is not None else None
    ends_at = _midnight(last + timedelta(days=1), zone) if last is not None else None
    cover = User.objects.filter(username=request.POST.get("cover", "")).first()
    done = absences.plan_absence(
        user=user, cover=cover, starts_at=starts_at, ends_at=ends_at, note=request.POST.get("note", "")
    )
    text = f"Noted: {cover} finds your questions among their own meanwhile." if done else done.reason
    return answer(request, text, changed=bool(done), url=reverse("runs:away"))


@signed_in
@require_POST
def away_end(request: HttpRequest, pk: int) -> HttpResponse:
    """Be back, or not go at all. Only one's own absence exists here."""
    absence = get_object_or_404(Absence, pk=pk, user=user_of(request))
    done = absences.end_absence(absence=absence, user=user_of(request), zone=_zone(request))
    text = "Ended: your questions come to you again." if done else f"{done.reason} Nothing was changed."
    return answer(request, text, changed=bool(done), url=reverse("runs:away"))


def _zone(request: HttpRequest) -> ZoneInfo:
    """The zone whose days are meant: of the department that is shown, else of the first one."""
    access = access_of(request)
    found = access.current or next(iter(access.departments), None)
    return ZoneInfo(found.time_zone if found is not None else "UTC")


def _day(text: str) -> date | None:
    try:
        found = parse_date(text)
    except ValueError:
        return None
    return found if found is not None and date.min < found < date.max - timedelta(days=2) else None


def _midnight(day: date, zone: ZoneInfo) -> datetime:
    return datetime.combine(day, time(), zone)
