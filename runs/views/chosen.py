"""Pages about one department: which one is meant."""

from __future__ import annotations

from django.http import Http404, HttpRequest

from agents.models import Department
from runs.access import access_of


def chosen_department(request: HttpRequest) -> Department:
    """The department that is chosen, else the first one the person may see; 404 if there is none."""
    access = access_of(request)
    if not access.departments:
        raise Http404("You are a member of no department. Ask an administrator to add you to one.")
    return access.current or access.departments[0]
