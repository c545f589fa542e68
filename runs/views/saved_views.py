"""Saved views of lists and the columns a person has chosen: saving, renaming, deleting, beginning with one."""

from __future__ import annotations

from urllib.parse import parse_qsl

from django.contrib.auth.models import User
from django.http import Http404, HttpRequest, HttpResponse
from django.urls import reverse
from django.utils.http import urlencode
from django.views.decorators.http import require_POST

from agents.models import Department
from runs import saved_views
from runs.access import access_of, get_visible, signed_in
from runs.models import SavedView
from runs.saved_views import SavableList
from runs.views.answers import answer


@signed_in
@require_POST
def view_save(request: HttpRequest) -> HttpResponse:
    """Keep what the list is narrowed to. ``query``: its query string; ``department``: for whom, empty for oneself."""
    known = _list(request)
    params = dict(parse_qsl(request.POST.get("query", "")[:2_000]))
    url = _url(known, params)
    department = None
    if slug := request.POST.get("share", ""):
        department = get_visible(request, Department.objects.all(), path="pk", slug=slug)
        if not (may := saved_views.can_share(department, access_of(request))):
            return answer(request, may.reason, changed=False, url=url)
    name = request.POST.get("name", "")
    done = saved_views.save_view(
        user=_person(request),
        list_name=known.name,
        name=name,
        params=params,
        columns=request.POST.getlist("columns"),
        department=department,
    )
    return answer(request, f"Saved as “{name.strip()}”." if done else done.reason, changed=done.ok, url=url)


@signed_in
@require_POST
def view_columns(request: HttpRequest) -> HttpResponse:
    """Show other columns of a list from now on."""
    known = _list(request)
    params = dict(parse_qsl(request.POST.get("query", "")[:2_000]))
    changed = saved_views.choose_columns(
        user=_person(request),
        list_name=known.name,
        columns=request.POST.getlist("columns"),
    )
    text = "These columns are shown from now on." if changed else "These columns are shown already."
    return answer(request, text, changed=changed, url=_url(known, params))


@signed_in
@require_POST
def view_rename(request: HttpRequest, pk: int) -> HttpResponse:
    """Give a view another name."""
    view = _view(request, pk)
    _require_change(request, view)
    url = reverse(saved_views.get_list(view.list_name).url_name)
    done = saved_views.rename_view(
        view=view,
        user=_person(request),
        name=request.POST.get("name", ""),
    )
    return answer(request, f"It is “{view.name}” now." if done else done.reason, changed=done.ok, url=url)


@signed_in
@require_POST
def view_delete(request: HttpRequest, pk: int) -> HttpResponse:
    """Forget a view."""
    view = _view(request, pk)
    _require_change(request, view)
    url = reverse(saved_views.get_list(view.list_name).url_name)
    done = saved_views.delete_view(view=view, user=_person(request))
    return answer(request, f"“{view.name}” is deleted." if done else done.reason, changed=done.ok, url=url)


@signed_in
@require_POST
def view_default(request: HttpRequest, pk: int) -> HttpResponse:
    """Begin with this view, or no longer with it."""
    view = _view(request, pk)
    stops = request.POST.get("stop", "") == "yes"
    changed = saved_views.begin_with(
        user=_person(request),
        view=None if stops else view,
        list_name=view.list_name,
    )
    text = "The list begins whole again." if stops else f"The list begins with “{view.name}” from now on."
    url = reverse(saved_views.get_list(view.list_name).url_name)
    return answer(request, text if changed else "It is so already.", changed=changed, url=url)


def _person(request: HttpRequest) -> User:
    if not isinstance(request.user, User):
        raise Http404("Views belong to people.")
    return request.user


def _list(request: HttpRequest) -> SavableList:
    try:
        return saved_views.get_list(request.POST.get("list", ""))
    except LookupError as error:
        raise Http404("There is no such list.") from error


def _view(request: HttpRequest, pk: int) -> SavedView:
    """A view the person may use; 404 for any other."""
    rows = SavedView.objects.select_related("user", "department")
    found = rows.filter(pk=pk).first()
    mine = found is not None and found.user_id == request.user.pk and found.department_id is None
    if found is not None and (mine or found.department_id in [each.pk for each in access_of(request).departments]):
        return found
    raise Http404("There is no such view.")


def _require_change(request: HttpRequest, view: SavedView) -> None:
    if not (may := saved_views.can_change(view, access_of(request), _person(request))):
        raise Http404(may.reason)


def _url(known: SavableList, params: dict[str, str]) -> str:
    clean = known.clean(params)
    return f"{reverse(known.url_name)}{'?' if clean else ''}{urlencode(clean)}"
