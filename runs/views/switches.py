"""The switches of departments and of the installation: what each would do, and doing it."""

from __future__ import annotations

from typing import Any

from django.contrib.auth.models import User
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import reverse
from django.views.decorators.http import require_POST, require_safe

from agents.models import Department, Installation, Member
from runs import switches
from runs.access import access_of, get_visible, may_see_system, require, signed_in
from runs.views.answers import answer

Role = Member.Role
State = Department.State
CHOICES = (
    (State.RUNNING, "Run", "player-play", "Agents work and mails leave."),
    (State.DRAINING, "Drain", "hourglass", "What is under way is finished. Nothing new starts, nothing leaves."),
    (State.HOLDING_SENDS, "Hold sends", "mail", "Agents work on. Nothing leaves the house."),
    (
        State.STOPPED,
        "Stop now",
        "ban",
        "What is under way is cancelled and queued again. Nothing starts or leaves.",
    ),
)


@signed_in
@require_safe
def switch_page(request: HttpRequest) -> HttpResponse:
    """Every department the person may see, and the installation, each with its switch and what is under way."""
    return render(request, "runs/switches.html", _context(request))


@signed_in
@require_POST
def department_switch(request: HttpRequest, pk: int) -> HttpResponse:
    """Switch a department to the ``state`` of the form."""
    department = get_visible(request, Department.objects.all(), path="pk", pk=pk)
    user = require(request, department.pk, Role.ADMINISTRATOR)
    state, reason = request.POST.get("state", ""), request.POST.get("reason", "").strip()
    if state not in State.values:
        return _answer(request, "Choose what it shall do.", False)
    if state != State.RUNNING and not reason:
        return _answer(request, "Say why: everybody sees it on every page.", False)
    allowed = switches.switch_department(department=department, user=user, state=state, reason=reason)
    department.refresh_from_db()
    return _answer(request, switches.describe_state(department) if allowed else allowed.reason, allowed.ok)


@signed_in
@require_POST
def installation_switch(request: HttpRequest) -> HttpResponse:
    """Switch everything to the ``state`` of the form."""
    user = request.user
    if not isinstance(user, User) or not may_see_system(request):
        raise Http404("This takes another role.")
    if not user.is_superuser:
        return _answer(request, switches.NEEDS_SUPERUSER, False)
    state, reason = request.POST.get("state", ""), request.POST.get("reason", "").strip()
    if state not in State.values:
        return _answer(request, "Choose what it shall do.", False)
    if state != State.RUNNING and not reason:
        return _answer(request, "Say why: everybody sees it on every page.", False)
    allowed = switches.switch_installation(user=user, state=state, reason=reason)
    text = switches.describe_state(Installation.read()) if allowed else allowed.reason
    return _answer(request, text, allowed.ok)


def _answer(request: HttpRequest, text: str, changed: bool) -> HttpResponse:
    return answer(request, text, changed=changed, url=reverse("runs:switches"))


def _context(request: HttpRequest) -> dict[str, Any]:
    access = access_of(request)
    rows: list[dict[str, Any]] = []
    for department in access.departments:
        rows.append(_row(request, department, [department.pk], reverse("runs:department_switch", args=[department.pk])))
    everything = None
    if getattr(request.user, "is_superuser", False):
        # Who may switch it sees all departments.
        ids = [department.pk for department in access.departments]
        everything = _row(request, access.installation, ids, reverse("runs:installation_switch"))
    return {"access": access, "rows": rows, "everything": everything}


def _row(request: HttpRequest, held: Department | Installation, ids: list[int], url: str) -> dict[str, Any]:
    access = access_of(request)
    choices = []
    for state, label, image, means in CHOICES:
        if isinstance(held, Department):
            allowed = switches.can_switch(held, state, access)
        else:
            allowed = switches.can_switch_all(held, state)
        choices.append({"state": state, "label": label, "image": image, "means": means, "allowed": allowed})
    return {
        "held": held,
        "is_department": isinstance(held, Department),
        "said": switches.describe_state(held),
        "choices": choices,
        "may": any(choice["allowed"].ok for choice in choices),  # type: ignore[attr-defined]
        "foreseen": switches.foresee(ids),
        "url": url,
    }
