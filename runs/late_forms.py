"""A form that comes too late: who filled it in is signed out by now, or somebody has signed in since.

Nothing is done, and what was typed is not lost: the browser has it behind its back button, and the answer repeats it.
"""

from __future__ import annotations

from urllib.parse import urlsplit, urlunsplit

from django.conf import settings
from django.contrib import messages
from django.contrib.auth.views import redirect_to_login
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render, resolve_url
from django.utils.http import url_has_allowed_host_and_scheme
from django.views.csrf import csrf_failure

TOO_LATE = "You are signed out by now. Nothing was changed; do it again after signing in."
_NEVER = ("csrfmiddlewaretoken", "password")
"""In the names of fields that are never repeated."""


def answer_signed_out(request: HttpRequest) -> HttpResponse:
    """For a form of somebody who is signed out: what they wrote, or the door where they wrote no sentence.

    Either says that nothing was done. From there they get back to the page with the form: the address it was sent to
    may answer nothing else.
    """
    came_from = request.headers.get("Referer", "")
    is_ours = url_has_allowed_host_and_scheme(came_from, request.get_host())
    page = urlsplit(came_from if is_ours else resolve_url(settings.LOGIN_REDIRECT_URL))
    door = redirect_to_login(urlunsplit(("", "", page.path, page.query, "")))
    written = _written(request) if is_ours else []  # else there is no form to go back to
    if not written:
        messages.warning(request, TOO_LATE)
        return door
    return render(request, "too_late.html", {"written": written, "login_url": door.url}, status=401)


def answer_csrf(request: HttpRequest, reason: str = "") -> HttpResponse:
    """Django's ``CSRF_FAILURE_VIEW``: each signing in changes the token that the forms of all tabs carry."""
    if request.path == resolve_url(settings.LOGIN_URL) and settings.CSRF_COOKIE_NAME in request.COOKIES:
        return redirect(request.get_full_path())  # it leads on whoever has signed in in another tab
    return csrf_failure(request, reason)


def _written(request: HttpRequest) -> list[tuple[str, str]]:
    """Name and value of every field in which somebody may have written more than a word."""
    given = [(name, value.strip()) for name, values in request.POST.lists() for value in values]
    return [
        (name, value) for name, value in given if len(value.split()) > 1 and not any(part in name for part in _NEVER)
    ]
