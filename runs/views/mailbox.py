"""Where mails are written to files: a page that shows them."""

from __future__ import annotations

from pathlib import Path

from django.conf import settings
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_safe

from runs.access import signed_in
from runs.mailbox import is_in_files, read_mailbox


@signed_in
@require_safe
def mailbox(request: HttpRequest) -> HttpResponse:
    """The newest mails of all departments, for superusers; 404 where mails are really sent."""
    if not is_in_files() or not getattr(request.user, "is_superuser", False):
        raise Http404("There is no mailbox.")
    return render(request, "runs/mailbox.html", {"mails": read_mailbox(Path(settings.EMAIL_FILE_PATH))})
