"""First steps of a new department: a checklist read from what is stored, and the word after the examples."""

from __future__ import annotations

from typing import Any

from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import reverse
from django.views.decorators.http import require_POST, require_safe

from agents.models import Department, Member
from runs import examples
from runs.access import access_of, get_visible, require, signed_in
from runs.first_steps import Examples, are_done, read_examples, read_steps
from runs.views.answers import answer

Role = Member.Role


@signed_in
@require_safe
def first_steps(request: HttpRequest, slug: str) -> HttpResponse:
    """The checklist."""
    return render(request, "runs/first_steps.html", _context(request, slug))


@signed_in
@require_safe
def first_steps_panel(request: HttpRequest, slug: str) -> HttpResponse:
    """The changing part of the page."""
    return render(request, "runs/_first_steps.html", _context(request, slug))


@signed_in
@require_POST
def examples_go_on(request: HttpRequest, slug: str) -> HttpResponse:
    """Let what waits behind the examples be worked on."""
    department = get_visible(request, Department.objects.all(), path="pk", slug=slug)
    user = require(request, department.pk, Role.OPERATOR)
    bulk = examples.go_on(department=department, user=user)
    url = reverse("runs:first_steps", args=[slug])
    if bulk is None:
        text = "Nothing waits behind the examples any more."
        if examples.is_going_on(department):
            text = "Somebody has said go on already: those that wait are let go one after the other."
        return answer(request, text, changed=False, url=url)
    rest = "" if bulk.done >= bulk.total else " The others follow."
    return answer(request, f"{bulk.done} of {bulk.total} go on.{rest}", changed=True, url=url)


def _context(request: HttpRequest, slug: str) -> dict[str, Any]:
    access = access_of(request)
    department = next((one for one in access.departments if one.slug == slug), None)
    if department is None:
        raise Http404("There is no such department.")
    held = examples.held_items(department).count()
    steps = read_steps(department, held=held)
    return {
        "access": access,
        "department": department,
        "steps": steps,
        "done": sum(step.is_done for step in steps),
        "are_done": are_done(steps),
        "examples": read_examples(department, held=held) if steps else Examples((), 0),
        "is_going_on": examples.is_going_on(department),
        "item_label": department.spec.item_label if steps else "item",
        "can_go_on": access.can(department.pk, Role.OPERATOR),
    }
