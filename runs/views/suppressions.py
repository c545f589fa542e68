"""Those nobody writes to: search, add, remove. The list holds for every department, so administrators keep it."""

from __future__ import annotations

from django.contrib.auth.models import User
from django.db.models import Q, QuerySet
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404
from django.urls import reverse
from django.views.decorators.http import require_POST, require_safe

from runs import suppressions
from runs.access import access_of, signed_in
from runs.addresses import entries_for
from runs.models import Suppression
from runs.views.answers import answer, show
from runs.views.paging import read_page


@signed_in
@require_safe
def suppression_list(request: HttpRequest) -> HttpResponse:
    """Newest first; ``?q=`` is part of an address. Whose list it is not sees what concerns their own departments."""
    access, query = access_of(request), request.GET.get("q", "").strip()
    rows = visible_to(request).select_related("author", "item__department")
    if query:
        # An erased address is found by the whole of it.
        rows = rows.filter(Q(address__icontains=query) | Q(address__in=entries_for(query)))
    context = {
        "access": access,
        "page": read_page(request, rows),
        "query": query,
        "can_change": access.administers,
    }
    return show(request, "runs/suppressions.html", "runs/_suppressions.html", context)


@signed_in
@require_POST
def suppression_add(request: HttpRequest) -> HttpResponse:
    """Put an address or ``@domain`` onto the list, for a reason."""
    user, url = _administrator(request), reverse("runs:suppressions")
    address, note = request.POST.get("address", "").strip(), request.POST.get("note", "").strip()
    if not note:
        return answer(request, "Say why: it stays beside the address.", changed=False, url=url)
    try:
        is_new = suppressions.suppress(address=address, reason=Suppression.Reason.MANUAL, note=note, user=user)
    except ValueError as error:
        return answer(request, f"{address!r} is neither an address nor @domain: {error}", changed=False, url=url)
    text = f"Nobody writes to {address} any more." if is_new else f"{address} was on the list already."
    return answer(request, text, changed=is_new, url=url)


@signed_in
@require_POST
def suppression_lift(request: HttpRequest, pk: int) -> HttpResponse:
    """Take an entry off the list, for a reason."""
    user, url = _administrator(request), reverse("runs:suppressions")
    row = get_object_or_404(visible_to(request), pk=pk)
    reason = request.POST.get("reason", "").strip()
    if not reason:
        return answer(request, "Say why they may be written to again.", changed=False, url=url)
    done = suppressions.lift(suppression=row, user=user, reason=reason)
    text = done.reason or f"{row} may be written to again."
    return answer(request, text, changed=bool(done), url=url)


def visible_to(request: HttpRequest) -> QuerySet[Suppression]:
    """All entries for whoever keeps the installation; else those of one's own items, and one's own entries.

    An address tells whom another department writes to.
    """
    if getattr(request.user, "is_superuser", False):
        return Suppression.objects.all()
    departments = [department.pk for department in access_of(request).departments]
    return Suppression.objects.filter(Q(item__department__in=departments) | Q(author=request.user.pk))


def _administrator(request: HttpRequest) -> User:
    if not access_of(request).administers or not isinstance(request.user, User):
        raise Http404("This takes another role.")
    return request.user
