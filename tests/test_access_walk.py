"""Every URL of the installation, opened by everybody: strangers, members of another department, viewers.

The URLs come from the resolver, so a new one is walked without being named here. What it needs is an example to
put into its address: found by the part of the address before the number, in ``EXAMPLES``. A new part, a page that
viewers do not get, or an address that is open to the world needs a line in one of the tables below; a test says
which, and where.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.apps import apps
from django.contrib.auth.models import User
from django.db import transaction
from django.test import Client
from django.urls import URLPattern, URLResolver, get_resolver, reverse
from django.utils import timezone

from agents.models import Agent, Budget, Department, Member
from agents.souls import create_draft, sections_of
from leads.models import ImportJob
from runs.models import (
    Absence,
    AutoApproval,
    BulkAction,
    Channel,
    DraftGroup,
    OutboxMessage,
    Review,
    RiskRule,
    SavedView,
    Suppression,
    TryOut,
)
from tests import factories
from tests.crossings import KONTOR, paths
from tests.runs.scene import HTMX, Scene, make_scene

pytestmark = pytest.mark.django_db

_PARAMETER = re.compile(r"<(?:\w+:)?(\w+)>")


@dataclass(frozen=True, slots=True)
class Route:
    """One URL pattern: ``runs:detail`` is ``runs/<int:pk>/``."""

    name: str
    pattern: str

    def fill(self, values: Mapping[str, Any]) -> str:
        """An address of this pattern."""
        return "/" + _PARAMETER.sub(lambda found: str(values[found[1]]), self.pattern)


@dataclass(slots=True)
class Place:
    """Two departments: everything lies in the first, ``other`` has one lead and the stranger."""

    scene: Scene
    administrator: User
    job: ImportJob
    incident: Review
    bulk: BulkAction
    unsure: OutboxMessage
    budget: Budget
    channel: Channel
    group: DraftGroup
    absence: Absence
    suppression: Suppression
    view: SavedView
    risk_rule: RiskRule
    approval: AutoApproval
    agent: Agent
    try_out: TryOut
    other_lead: str


# --- The tables -----------------------------------------------------------------------------------------------

EXAMPLES: dict[str, Callable[[Place], int | str]] = {
    "agents/": lambda p: p.agent.pk,
    "tryouts/": lambda p: p.try_out.pk,
    "budgets/": lambda p: p.budget.pk,
    "bulk/": lambda p: p.bulk.pk,
    "channels/": lambda p: p.channel.pk,
    "calls/": lambda p: p.scene.call.pk,
    "departments/": lambda p: p.scene.department.slug,
    "items/": lambda p: p.scene.lead.pk,
    "hooks/": lambda p: p.scene.department.slug,
    "incidents/": lambda p: p.incident.pk,
    "leads/": lambda p: p.scene.lead.pk,
    "leads/import/": lambda p: p.job.pk,
    "outbox/": lambda p: p.unsure.pk,
    "outputs/": lambda p: p.scene.output.pk,
    "password/reset/": lambda p: "person",
    "reviews/": lambda p: p.scene.review.pk,
    "reviews/alike/": lambda p: p.group.pk,
    "account/away/": lambda p: p.absence.pk,
    "rules/": lambda p: p.scene.department.rules.order_by("pk")[0].pk,
    "rules/approvals/": lambda p: p.approval.pk,
    "rules/risk/": lambda p: p.risk_rule.pk,
    "runs/": lambda p: p.scene.run.pk,
    "settings/": lambda p: p.scene.department.slug,
    "steps/": lambda p: p.scene.failed.pk,
    "switches/": lambda p: p.scene.department.pk,
    "suppressions/": lambda p: p.suppression.pk,
    "system/restore/": lambda p: p.scene.department.pk,
    "system/unsure/": lambda p: p.unsure.pk,
    "unsubscribe/": lambda p: "token",
    "views/": lambda p: p.view.pk,
}
"""What stands for the first parameter after this beginning of an address. Rows of the first department."""

FURTHER: dict[str, str] = {"section": "department", "token": "token"}
"""What stands for any parameter after the first, by its name."""

SPECIAL: dict[str, Callable[[Place], int | str]] = {
    "runs:review_accept": lambda p: Review.objects.get(agent_run=p.scene.failed).pk,
}
"""By name, where the beginning does not say it."""

OPEN = {
    *("login", "leads-hook", "runs:mail_events", "runs:unsubscribe"),
    *("password_reset", "password_reset_done", "password_reset_confirm", "password_reset_complete"),
}
"""Open to the world: the first and the last are how one gets in, the others check a signature."""
ELSEWHERE = {"runs:mailbox"}
"""Not there unless mails are written to files; see tests/runs/test_views_mailbox.py."""
PERSONAL = {"logout", "password", "runs:away", "runs:away_plan", "runs:account"}
"""About nothing but the person who is signed in."""
STREAMS = {"runs:events"}
"""Answered under ASGI only; tests/runs/test_live.py opens them as a stranger and as a member of another department."""
NEEDS: dict[str, str] = {
    "leads:edit": Member.Role.OPERATOR,
    "leads:erase": Member.Role.ADMINISTRATOR,
    "leads:import": Member.Role.OPERATOR,
    "leads:import_job": Member.Role.OPERATOR,
    "leads:import_progress": Member.Role.OPERATOR,
    "leads:import_remarks": Member.Role.OPERATOR,
    "leads:run_preview": Member.Role.OPERATOR,
    "runs:agent_settings": Member.Role.ADMINISTRATOR,
    "runs:bulk_new": Member.Role.OPERATOR,
    "runs:output_edit": Member.Role.OPERATOR,
    "runs:output_new": Member.Role.OPERATOR,
    "runs:auto_approval_edit": Member.Role.ADMINISTRATOR,
    "runs:auto_approval_new": Member.Role.ADMINISTRATOR,
    "runs:risk_rule_edit": Member.Role.ADMINISTRATOR,
    "runs:risk_rule_new": Member.Role.ADMINISTRATOR,
    "runs:rule_change": Member.Role.ADMINISTRATOR,
    "runs:rule_edit": Member.Role.ADMINISTRATOR,
    "runs:rule_new": Member.Role.ADMINISTRATOR,
    "runs:step_rerun": Member.Role.OPERATOR,
    "runs:soul_publish": Member.Role.ADMINISTRATOR,
    "runs:soul_rollback": Member.Role.ADMINISTRATOR,
    "runs:system": Member.Role.ADMINISTRATOR,
    "runs:system_panel": Member.Role.ADMINISTRATOR,
    "runs:system_restore": Member.Role.ADMINISTRATOR,
    "runs:system_restore_panel": Member.Role.ADMINISTRATOR,
    "runs:tryout": Member.Role.OPERATOR,
}
"""Pages that a viewer does not get, and who does."""
OWN_WORK = {
    *("leads:run", "leads:import", "runs:bulk_start", "runs:installation_switch", "runs:suppression_add"),
    *("runs:rule_new", "runs:rule_preview", "runs:rule_impact", "runs:rule_try"),
    *("runs:risk_rule_new", "runs:auto_approval_new"),
    *("runs:view_save", "runs:view_columns"),
}
"""Actions without an object in the address: a member of another department may take them, on their own rows."""
LEADS_ON = {"runs:next_failure"}
"""Addresses that have no page of their own: they lead to another one, which is walked as well."""
VIEWER_MAY = {"runs:view_save", "runs:view_columns", "runs:view_default"}
"""Actions that change nothing but how the person sees the pages."""
QUERY: dict[str, str] = {
    "runs:bulk_new": "?department=amselwerk&status=drafted",
    "runs:output_new": "?key=email",
    "runs:soul_diff": "?to=draft",
    "runs:soul_rollback": "?number=2",
}
"""What a page must be asked besides, for example which of several rows."""
DATA = {
    "reason": "Too long.",
    "note": "Shorter.",
    "body": "Yes, please.",
    "sent": "yes",
    "subject": "Hello",
    "key": "email",
    "list": "leads",
    "state": "stopped",
    "verb": "pause",
    "text": "A word.",
    "address": "nobody@amsel.example",
}
"""Good enough for every form: what is refused is refused for who asks, not for what is missing."""


# --- The walk -------------------------------------------------------------------------------------------------


def find_routes(resolver: URLResolver | None = None, prefix: str = "", spaces: str = "") -> Iterator[Route]:
    """All patterns of the installation but the admin's."""
    for entry in (resolver or get_resolver()).url_patterns:
        if isinstance(entry, URLResolver):
            if entry.namespace != "admin":
                space = f"{entry.namespace}:" if entry.namespace else ""
                yield from find_routes(entry, prefix + str(entry.pattern), spaces + space)
        elif isinstance(entry, URLPattern):
            yield Route(f"{spaces}{entry.name}", prefix + str(entry.pattern))


def address(route: Route, place: Place) -> str | None:
    """An address with an object of the first department; None if nobody has said what to put in."""
    names = _PARAMETER.findall(route.pattern)
    before = route.pattern.split("<", 1)[0]
    example = SPECIAL.get(route.name) or EXAMPLES.get(before)
    if not names:
        return route.fill({}) + QUERY.get(route.name, "")
    if not example or set(names[1:]) - set(FURTHER):
        return None
    return route.fill({**FURTHER, names[0]: example(place)}) + QUERY.get(route.name, "")


def closed_routes() -> list[Route]:
    """Everything that takes signing in and answers in one go."""
    return [route for route in find_routes() if route.name not in OPEN | STREAMS | ELSEWHERE]


@pytest.fixture
def place(settings: Any, tmp_path: Path) -> Place:
    return make_place(settings, tmp_path)


def make_place(settings: Any, tmp_path: Path) -> Place:
    """A scene in which every kind of address leads to something."""
    settings.BASE_DIR, settings.SIMULATED = tmp_path, True
    scene = make_scene()
    item = scene.lead.item
    Department.objects.filter(pk=scene.department.pk).update(name="Amselwerk", slug="amselwerk")
    scene.department.refresh_from_db()
    incident = Review.objects.create(
        department=scene.department, kind=Review.Kind.INCIDENT, cause="timeout", ask="Amselwerk times out: try again?"
    )
    bulk = BulkAction.objects.create(
        department=scene.department, verb="retry_all", selection={"incident": incident.pk}, total=3
    )
    job = ImportJob.objects.create(department=scene.department, source="amsel", file_name="amsel.csv")
    job.path.parent.mkdir(parents=True)
    job.path.write_bytes(b"Name;E-Mail\nAnna Amsel;anna@amsel.example\n")
    other = Department.objects.get(slug="other")
    anna = factories.make_user("anna", department=scene.department, role=Member.Role.ADMINISTRATOR)
    now = timezone.now()
    writer = factories.agent_of(scene.department, "writer")
    factories.make_soul(writer, number=2, status="retired")
    create_draft(agent=writer, sections=sections_of(writer.souls.get(number=1)), author=anna)
    return Place(
        scene=scene,
        administrator=anna,
        group=DraftGroup.objects.create(
            department=scene.department,
            agent=factories.agent_of(scene.department, "writer"),
            purpose="item",
            signature=[1],
            used_at=now,
        ),
        absence=Absence.objects.create(user=anna, cover=scene.reviewer, starts_at=now, ends_at=now + timedelta(days=1)),
        job=job,
        incident=incident,
        bulk=bulk,
        unsure=factories.make_outbox(item, output=scene.output, status=OutboxMessage.Status.UNKNOWN),
        budget=Budget.objects.create(department=scene.department, period=Budget.Period.DAY, limit_usd=1),
        channel=Channel.objects.create(department=scene.department, kind="email"),
        risk_rule=RiskRule.objects.create(department=scene.department, name="Mine", when={"status": ["new"]}),
        approval=AutoApproval.objects.create(
            department=scene.department, name="Mine", agent=factories.agent_of(scene.department, "writer")
        ),
        suppression=Suppression.objects.create(address="old@example.com", reason="bounce", item=item),
        view=SavedView.objects.create(
            user=scene.operator, department=scene.department, list_name="leads", name="Warm ones"
        ),
        agent=writer,
        try_out=TryOut.objects.create(
            department=scene.department,
            agent=writer,
            item=item,
            user=scene.operator,
            soul_name="SOUL 1",
            sections=sections_of(writer.souls.get(number=1)),
            model=writer.model,
            bound_usd=0,
            created_at=now,
        ),
        other_lead=factories.make_lead(other).name,
    )


def stored(of: Department | None = None) -> dict[str, list[tuple[Any, ...]]]:
    """Every row of Kontor's tables, or those of one department and those that belong to the whole installation."""
    found = {}
    for model in (model for model in apps.get_models() if model._meta.app_label in KONTOR):
        rows = model._base_manager.order_by("pk")
        if of is not None:
            path = next(iter(paths(model).values()), None)
            rows = rows.filter(**{path: of.pk}) if path else rows
        found[model.__name__] = list(rows.values_list())
    return found


def changed(before: dict[str, list[tuple[Any, ...]]], of: Department | None = None) -> list[str]:
    """The tables that are not as they were."""
    after = stored(of)
    return [name for name in after if after[name] != before[name]]


def traces(html: str, place: Place) -> list[str]:
    """What of the first department can be read on a page."""
    scene = place.scene
    names = (scene.department.name, scene.department.slug, scene.lead.name, scene.lead.email, scene.lead.company)
    people = [f">{user.username}<" for user in (scene.operator, scene.viewer, scene.reviewer, place.administrator)]
    return [name for name in (*names, place.job.file_name, *people) if name in html]


def text_of(response: Any) -> str:
    """What came back, streamed or not."""
    content = b"".join(response.streaming_content) if response.streaming else response.content
    return str(content.decode(errors="replace"))


def _right(route: Route) -> int:
    """How a page answers whom it is for."""
    return 302 if route.name in LEADS_ON else 200


# --- What must hold -------------------------------------------------------------------------------------------


def test_every_url_has_a_name_and_an_example(place: Place) -> None:
    missing = [route for route in find_routes() if address(route, place) is None or route.name.endswith("None")]
    assert not missing, "Give these a name, and an example in EXAMPLES or SPECIAL (tests/test_access_walk.py)"


def test_the_tables_name_urls_that_exist() -> None:
    names = {route.name for route in find_routes()}
    for table in (SPECIAL, OPEN, PERSONAL, STREAMS, NEEDS, OWN_WORK, LEADS_ON, VIEWER_MAY, QUERY):
        assert set(table) <= names, set(table) - names
    beginnings = {route.pattern.split("<", 1)[0] for route in find_routes() if "<" in route.pattern}
    assert set(EXAMPLES) <= beginnings, set(EXAMPLES) - beginnings


def test_an_administrator_gets_everything_so_the_examples_lead_somewhere(place: Place) -> None:
    client, wrong = place.scene.client(place.administrator), []
    for route in closed_routes():
        url = address(route, place) or ""
        with transaction.atomic():
            seen = client.get(url).status_code
            done = client.post(url, DATA).status_code
            transaction.set_rollback(True)
        client.force_login(place.administrator)
        if seen not in (_right(route), 405) or done not in (200, 204, 302, 405, 409, 422) or (seen, done) == (405, 405):
            wrong.append(f"{route.name} {url}: GET {seen}, POST {done}")
    assert not wrong, "\n".join(wrong)


def test_a_number_that_no_row_can_have_is_not_found(place: Place) -> None:
    client, wrong = place.scene.client(place.administrator), []
    client.raise_request_exception = False
    for route in (one for one in closed_routes() if "<int:" in one.pattern):
        names = _PARAMETER.findall(route.pattern)
        url = route.fill({**FURTHER, **dict.fromkeys(names, 2**63)})
        for status in (client.get(url).status_code, client.post(url, DATA).status_code):
            if status not in (404, 405):
                wrong.append(f"{route.name} {url}: {status}")
    assert not wrong, "\n".join(wrong)


def test_strangers_are_sent_to_sign_in(place: Place) -> None:
    client, wrong, before = Client(), [], stored()
    login = reverse("login")
    for route in closed_routes():
        url = address(route, place) or ""
        for method in (client.get, client.post):
            plain, part = method(url), method(url, headers=HTMX)
            is_sent_on = plain.status_code == 302 and plain["Location"].startswith(login)
            # A form that is sent keeps its page, and what is typed in it.
            is_told = part.status_code == 401 and part.get("HX-Redirect") == (login if method == client.get else None)
            if not (is_sent_on and (is_told or route.name in PERSONAL)) and plain.status_code != 405:
                wrong.append(f"{route.name} {url}: {plain.status_code}, to htmx {part.status_code}")
    assert not wrong, "\n".join(wrong)
    assert not changed(before)


def test_a_member_of_another_department_finds_nothing(place: Place) -> None:
    client, wrong, listed = place.scene.client(place.scene.stranger), [], ""
    for route in closed_routes():
        url = address(route, place) or ""
        has_object = "<" in route.pattern
        for headers in ({}, HTMX):
            response = client.get(url, headers=headers)
            html = text_of(response)
            listed += html if not has_object else ""
            if has_object and response.status_code not in (404, 405):
                wrong.append(f"GET {url} ({route.name}): {response.status_code}")
            if found := traces(html, place):
                wrong.append(f"GET {url} ({route.name}) shows {found}")
        if "<" not in route.pattern and client.get(url, {"department": "amselwerk"}).status_code == 200:
            wrong.append(f"GET {url} ({route.name}): chooses a department that the person may not see")
    assert not wrong, "\n".join(wrong)
    assert place.other_lead in listed, "their own lead is on a list, so lists were looked at"


def test_a_member_of_another_department_changes_nothing(place: Place) -> None:
    client, wrong = place.scene.client(place.scene.stranger), []
    for route in closed_routes():
        if route.name in PERSONAL:
            continue
        url = address(route, place) or ""
        of = place.scene.department if route.name in OWN_WORK else None
        before = stored(of)
        with transaction.atomic():
            response = client.post(url, DATA)
            if response.status_code not in (404, 405) and route.name not in OWN_WORK:
                wrong.append(f"POST {url} ({route.name}): {response.status_code}")
            elif tables := changed(before, of):
                wrong.append(f"POST {url} ({route.name}) changed {tables}")
            if found := traces(text_of(response), place):
                wrong.append(f"POST {url} ({route.name}) shows {found}")
            transaction.set_rollback(True)
    assert not wrong, "\n".join(wrong)


def test_a_viewer_sees_the_pages(place: Place) -> None:
    client, wrong = place.scene.client(place.scene.viewer), []
    for route in closed_routes():
        url = address(route, place) or ""
        code = client.get(url).status_code
        if code != 405 and code != (404 if route.name in NEEDS else _right(route)):
            wrong.append(f"GET {url} ({route.name}): {code}")
    assert not wrong, "If a viewer is not to have it, say so in NEEDS:\n" + "\n".join(wrong)


def test_a_page_that_takes_a_role_is_there_for_that_role(place: Place) -> None:
    wrong = []
    by_role = {Member.Role.REVIEWER: place.scene.reviewer, Member.Role.OPERATOR: place.scene.operator}
    for route in closed_routes():
        if route.name in NEEDS:
            user = by_role.get(Member.Role(NEEDS[route.name]), place.administrator)
            code = place.scene.client(user).get(address(route, place) or "").status_code
            if code != 200:
                wrong.append(f"{route.name} as {NEEDS[route.name]}: {code}")
    assert not wrong, "\n".join(wrong)


def test_a_viewer_changes_nothing(place: Place) -> None:
    client, wrong, before = place.scene.client(place.scene.viewer), [], stored()
    for route in closed_routes():
        if route.name in PERSONAL | VIEWER_MAY:
            continue
        url = address(route, place) or ""
        for headers in ({}, HTMX):
            code = client.post(url, DATA, headers=headers).status_code
            if code not in (404, 405):
                wrong.append(f"POST {url} ({route.name}): {code}")
        if tables := changed(before):
            wrong.append(f"POST {url} ({route.name}) changed {tables}")
            before = stored()
    assert not wrong, "\n".join(wrong)


def test_the_admin_is_closed_to_all_of_them(place: Place) -> None:
    resolver = next(e for e in get_resolver().url_patterns if getattr(e, "namespace", "") == "admin")
    assert isinstance(resolver, URLResolver)
    routes = list(find_routes(resolver, "admin/"))
    assert len(routes) > 50
    for user in (None, place.scene.viewer, place.scene.operator):
        client = place.scene.client(user)
        for route in routes:
            url = route.fill(dict.fromkeys(_PARAMETER.findall(route.pattern), 1))
            if "(?P<" in url or route.name in ("login", "logout", "jsi18n"):
                continue
            assert client.get(url).status_code in (302, 403, 404), url


def test_signed_doors_refuse_who_has_no_signature(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(place.scene.department.webhook_secret_env, "whsec_" + "c2VjcmV0" * 4)
    before = stored()
    for route in find_routes():
        if route.name in OPEN - {"login"}:
            code = Client().post(address(route, place) or "", b"{}", content_type="application/json").status_code
            assert 400 <= code < 500, f"{route.name}: {code}"
    assert not changed(before)
