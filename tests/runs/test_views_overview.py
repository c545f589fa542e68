"""The overview: what needs a person, what is moving, what it costs, how healthy it is; and banners, one a cause."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from agents.models import Agent, Budget, Department, Installation, Member, ModelState
from agents.statements import Statement
from runs import agent_health, cost_rollups
from runs.access import access_of
from runs.examples import REASON
from runs.models import AgentHour, Alert, DepartmentHour, HourCount, Item, Review, ShiftSlot
from runs.views import moving
from runs.views.banners import find_banners
from runs.views.moving import read_moving
from tests import factories
from tests.runs.scene import HTMX, Scene, make_scene

pytestmark = pytest.mark.django_db


def page(scene: Scene) -> str:
    """The overview as the operator sees it, in one line."""
    text = scene.client(scene.operator).get(reverse("runs:overview")).content.decode()
    return re.sub(r"\s+", " ", text)


def shift() -> None:
    """A shift at work."""
    now = timezone.now()
    ends = now + timedelta(minutes=1)
    ShiftSlot.objects.create(
        number=1, token=uuid4(), worker="host:1", started_at=now, heartbeat_at=now, lease_expires_at=ends
    )


def test_what_needs_a_person_leads_to_its_list() -> None:
    scene = make_scene()
    Item.objects.filter(pk=scene.lead.pk).update(flag="Qualifier failed.")
    factories.make_outbox(scene.lead.item, status="unknown", output=scene.output)
    now = timezone.now()
    Alert.objects.create(department=scene.department, key="k", kind="system", text="x", first_at=now, last_at=now)
    text = page(scene)
    for url, count, label in (
        ("/reviews/?risk=2", 1, "question of medium risk"),
        ("/outbox/?status=unknown", 1, "message that may have been sent"),
        ("/leads/?flag=yes", 1, "flagged lead"),
        ("/alerts/", 1, "open alert"),
    ):
        assert re.search(rf'<a href="{re.escape(url)}"> <b>{count}</b><span>{label}<', text), url
        assert scene.client(scene.operator).get(url).status_code == 200
    assert "/system/" not in text, "an operator may not see that page"


def test_several_of_a_kind_are_said_as_several() -> None:
    scene = make_scene()
    for _ in range(2):
        factories.make_review(scene.lead.item, ask="And this?", risk=3)
    assert re.search(r"<b>2</b><span>questions of high risk<", page(scene))


def test_alerts_are_counted_for_who_finds_them_behind_the_link() -> None:
    # Some time ago, so that it stands as many hours back in both answers.
    scene, now = make_scene(), timezone.now() - timedelta(hours=2, minutes=5)
    for key, department, text in (
        ("mine", scene.department, "The Writer failed."),
        ("all", None, "No worker is at work."),
        ("theirs", Department.objects.get(slug="other"), "Their trouble."),
    ):
        link = reverse("runs:system_restore")
        Alert.objects.create(
            department=department, key=key, kind="failure", text=text, link=link, first_at=now, last_at=now
        )
    chief = factories.make_user("chief", department=scene.department, role=Member.Role.ADMINISTRATOR)
    for user, number in ((scene.operator, 1), (chief, 2)):
        client = scene.client(user)
        needs = {need.url: need.count for need in client.get(reverse("runs:overview")).context["needs"]}
        assert needs[reverse("runs:alerts")] == number
        response = client.get(reverse("runs:alerts"))
        assert len(response.context["alerts"]) == number
        text = response.content.decode()
        assert "The Writer failed." in text
        assert f"{reverse('runs:runbook')}#an-agent-failed-for-good" in text
        assert ("No worker is at work." in text) is (user == chief)
        assert "Their trouble." not in text
        assert (link in text) is (user == chief), "no way to a page that is not there"
        assert client.get(reverse("runs:alerts"), headers=HTMX).content.decode().strip() in text


def test_the_list_of_alerts_takes_as_many_queries_for_many() -> None:
    scene, now, numbers = make_scene(), timezone.now(), []
    client = scene.client(scene.operator)
    for number in range(3):
        with CaptureQueriesContext(connection) as found:
            client.get(reverse("runs:alerts"))
        numbers.append(len(found))
        for name in ("a", "b", "c"):
            key = f"{name}{number}"
            Alert.objects.create(
                department=scene.department, key=key, kind="failure", text="x", first_at=now, last_at=now
            )
    assert numbers[1] == numbers[2] <= numbers[0] + 1, "whom they were told is not asked where there is none"


def test_health_leads_to_the_steps_of_the_department_of_its_row() -> None:
    scene = make_scene()
    other = Department.objects.get(slug="other")
    Member.objects.create(user=scene.operator, department=other, role=Member.Role.VIEWER)
    hour = agent_health.begin_of_hour(timezone.now())
    writer = scene.department.agents.get(slug="writer")
    AgentHour.objects.create(department=scene.department, agent=writer, hour=hour, done=1, failed=9, took_2=10)
    text = page(scene)
    row = text[text.index(f'id="health-{writer.pk}"') :]
    steps = f"/steps/?agent=writer&amp;since=24h&amp;department={scene.department.slug}"
    overdrawn = f"/steps/?agent=writer&amp;status=failed&amp;since=7d&amp;department={scene.department.slug}"
    assert re.findall(r'href="(/steps/[^"]*)"', row)[:2] == [steps, overdrawn]


def test_no_run_has_finished_is_said_of_late_ones_only() -> None:
    assert "No run has finished lately." in page(make_scene())


def test_what_is_estimated_is_of_the_cost_and_not_of_what_is_reserved() -> None:
    scene = make_scene()
    factories.make_model_call(scene.failed, cost_usd=2, is_estimate=True)
    factories.make_model_call(scene.failed, status="started", reserved_usd=3)
    cost_rollups.roll_up()
    text = page(scene)
    assert re.search(r"of it estimated; besides, \$3\.\S* is reserved for those under way\.", text)


def test_nothing_to_do_says_so() -> None:
    scene = make_scene()
    text = scene.client(scene.stranger).get(reverse("runs:overview")).content.decode()
    assert "Nobody has to do anything." in text
    assert "No question is open." in text


def test_leads_stand_in_their_stages_in_the_order_of_the_kind() -> None:
    scene = make_scene()
    factories.make_lead(scene.department, name="Otto", email="otto@example.com", status="replied")
    factories.make_lead(scene.department, name="Ida", email="ida@example.com", status="won")
    text = page(scene)
    flow = text[text.index('<ol class="k-flow">') : text.index("</ol>")]
    stages = re.findall(r'href="/leads/\?status=(\w+)"><b>(\d+)</b>', flow)
    assert stages == [
        *(("new", "0"), ("qualified", "0"), ("drafted", "1"), ("approved", "0"), ("contacted", "0")),
        *(("replied", "1"), ("answered", "0"), ("meeting", "0")),
    ]
    assert re.search(r'status=won"><i [^>]*></i>Won <b>1</b>', text)


def test_hours_health_and_error_budget_come_from_the_sums() -> None:
    scene = make_scene()
    hour = agent_health.begin_of_hour(timezone.now())
    writer = scene.department.agents.get(slug="writer")
    AgentHour.objects.create(
        department=scene.department, agent=writer, hour=hour, done=998, failed=2, took_2=900, took_60=98
    )
    DepartmentHour.objects.create(department=scene.department, hour=hour, completed=300, degraded=4)
    HourCount.objects.create(pk=1, counted_to=timezone.now() - timedelta(seconds=50), settled_to=hour)
    text = page(scene)
    assert (
        '<b>998</b> steps done, <a href="/steps/?status=failed&amp;since=24h"><b>2</b> failed</a>, <b>304</b> runs'
        in text
    )
    assert 'data-value="998">998</td>' in text
    row = text[text.index(f'id="health-{writer.pk}"') :]
    cells = [re.sub(r"<[^>]+>", "", cell).strip() for cell in re.findall(r"<td[^>]*>(.*?)</td>", row)[:7]]
    assert cells == ["Writer", "1,000", "99.8 %", "2 s", "1 min", "20 s", "80 %"]
    assert '<b class="k-no">1 min</b>' in row, "slower than its target"


def test_nothing_measured_is_not_shown_as_healthy() -> None:
    text = page(make_scene())
    health = text[text.index("How the agents do") :]
    assert "nothing ended" in health
    assert "100" not in re.sub(r"<[^>]+>", "", health)
    assert "Not counted yet: a worker does it each minute." in text


def test_a_budget_is_a_bar_with_what_is_spent() -> None:
    scene = make_scene()
    Budget.objects.create(department=scene.department, period="day", limit_usd=2)
    cost_rollups.roll_up()
    text = page(scene)
    assert re.search(r"this day: \$\S+ of \$2\.00", text)
    assert 'class="k-meter"' in text


def test_a_budget_in_tokens_is_a_bar_and_one_of_a_model_is_when_it_is_nearly_used() -> None:
    scene = make_scene()
    Budget.objects.create(department=scene.department, period="day", limit_tokens=5_000)
    assert re.search(r"this day: 0 of 5,000 tokens", page(scene))
    Budget.objects.all().delete()
    budget = Budget.objects.create(department=scene.department, period="day", limit_usd=2, model="claude-x")
    text = page(scene)
    assert "No budget of a whole department is set" in text
    assert "claude-x, this day" not in text
    now = timezone.now()
    budget.periods.create(starts_at=now - timedelta(hours=1), ends_at=now + timedelta(hours=1), spent_usd="1.6")
    assert "claude-x, this day: $1.60 of $2.00" in page(scene)


def test_trouble_is_one_line_that_other_departments_do_not_see(settings: Any) -> None:
    settings.SHIFTS = 1
    scene = make_scene()
    shift()
    scene.lead.item.agent_runs.filter(status="running").delete()
    until = timezone.now() + timedelta(minutes=2)
    ModelState.objects.create(model="claude-x", breaker="open", closed_until=until, reason="Overloaded.")
    text = page(scene)
    assert "claude-x is not working. Overloaded." in text[text.index('id="verdict"') :]
    assert "It heals by itself." in text
    Department.objects.filter(slug="other").update(api_key_env="OTHER_KEY")
    quiet = scene.client(scene.stranger).get(reverse("runs:overview")).content.decode()
    assert "claude-x" not in quiet
    assert 'id="verdict"' not in quiet


def test_what_a_banner_says_is_not_said_twice(settings: Any) -> None:
    settings.SHIFTS = 1
    scene = make_scene()
    shift()
    scene.lead.item.agent_runs.filter(status="running").delete()
    Department.objects.filter(pk=scene.department.pk).update(stopped_by_error="The key is not accepted.")
    text = page(scene)
    assert "the line stands still." in text
    assert 'id="verdict"' not in text


def test_departments_with_the_same_refused_key_share_a_banner() -> None:
    soon = timezone.now() + timedelta(seconds=20)
    for number, key in enumerate(("ONE_KEY", "ONE_KEY", "TWO_KEY")):
        factories.make_department(slug=f"d{number}", api_key_env=key, stopped_by_error="Refused.", next_probe_at=soon)
    banners = find_banners(Department.objects.order_by("pk"), Installation())
    assert [banner.title for banner in banners] == [
        "D0, D1: the line stands still.",
        "D2: the line stands still.",
    ]
    assert all(banner.at == soon and banner.link.endswith("#the-line-stands-still") for banner in banners)


def test_a_banner_says_since_when_the_line_stands_still() -> None:
    held = [
        factories.make_department(slug=f"d{number}", api_key_env="KEY", stopped_by_error="Refused.")
        for number in range(2)
    ]
    now = timezone.now()
    for department, minutes in zip(held, (3, 5), strict=True):
        since = now - timedelta(minutes=minutes)
        Alert.objects.create(
            department=department, key="line", kind="stop_the_line", text="x", first_at=since, last_at=now
        )
    (banner,) = find_banners(held, Installation())
    assert banner.text.endswith(f"Since {now - timedelta(minutes=5):%Y-%m-%d %H:%M} UTC.")
    Alert.objects.update(state="closed")
    assert "Since" not in find_banners(held, Installation())[0].text


def test_where_all_departments_are_shown_it_is_said_in_which_first_steps_are_open() -> None:
    scene = make_scene()
    busy, new = scene.department, Department.objects.get(slug="other")
    Member.objects.create(user=scene.operator, department=new, role=Member.Role.VIEWER)
    DepartmentHour.objects.create(department=busy, hour=agent_health.begin_of_hour(timezone.now()), completed=1)
    link = '<a href="{}">First steps</a>'
    text = page(scene)
    assert re.search(rf"\d of the first steps of {new} are open", text)
    assert link.format(reverse("runs:first_steps", args=[new.slug])) in text
    assert link.format(reverse("runs:first_steps", args=[busy.slug])) not in text
    waiting = factories.make_lead(busy, name="Otto", email="otto@example.com").item
    Item.objects.filter(pk=waiting.pk).update(automation="paused", automation_reason=REASON)
    assert link.format(reverse("runs:first_steps", args=[busy.slug])) in page(scene), "items wait for a word"


def test_a_department_whose_calls_cost_something_is_no_beginner_even_if_no_hour_was_counted() -> None:
    scene = make_scene()
    busy, new = scene.department, Department.objects.get(slug="other")
    Member.objects.create(user=scene.operator, department=new, role=Member.Role.VIEWER)
    link = f'<a href="{reverse("runs:first_steps", args=[busy.slug])}">First steps</a>'
    item = factories.make_lead(busy, name="Otto", email="otto@example.com").item
    factories.make_model_call(factories.make_agent_run(item, "writer"))
    assert link in page(scene), "the call is in no rollup yet"
    cost_rollups.roll_up()
    assert not DepartmentHour.objects.exists()
    text = page(scene)
    assert link not in text
    assert link.replace(busy.slug, new.slug) in text


def test_what_is_snoozed_needs_nobody_now() -> None:
    scene = make_scene()
    review = factories.make_review(scene.lead.item, ask="Is this for later?")
    client = scene.client(scene.operator)
    assert b"Is this for later?" in client.get(reverse("runs:overview")).content
    Review.objects.update(snoozed_until=timezone.now() + timedelta(hours=1))
    page = client.get(reverse("runs:overview")).content
    assert b"Is this for later?" not in page
    assert b"of low risk" not in page, "the list that it leads to would be empty"
    Review.objects.filter(pk=review.pk).update(snoozed_until=timezone.now() - timedelta(hours=1))
    assert b"Is this for later?" in client.get(reverse("runs:overview")).content


def test_the_number_of_queries_does_not_grow_with_the_rows() -> None:
    scene = make_scene()
    client = scene.client(scene.operator)
    client.get(reverse("runs:overview"))
    with CaptureQueriesContext(connection) as few:
        client.get(reverse("runs:overview"))
    now = timezone.now()
    for number in range(6):
        item = factories.make_lead(scene.department, name=f"L{number}", email=f"l{number}@example.com").item
        factories.make_agent_run(item, status="running")
        factories.make_review(item, ask=f"Question {number}?")
        run = factories.make_pipeline_run(factories.make_lead(scene.department, email=f"m{number}@example.com").item)
        type(run).objects.filter(pk=run.pk).update(status="completed", ended_at=now)
        Budget.objects.create(department=scene.department, period="day", limit_usd=2, model=f"m{number}")
        Alert.objects.create(
            department=scene.department, key=f"k{number}", kind="system", text="x", first_at=now, last_at=now
        )
    with CaptureQueriesContext(connection) as many:
        client.get(reverse("runs:overview"))
    assert len(many) <= len(few) + 1, "the periods of budgets are looked up once there is one"
    assert len(many) <= 47


def test_what_is_erased_while_the_overview_is_read_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows are read before their items and agents; both may be other ones by then."""
    scene = make_scene()
    assert scene.lead.item.title in page(scene)
    access = access_of(scene.client(scene.operator).get(reverse("runs:overview")).wsgi_request)
    assert not read_moving(access, [], timezone.now()).running, "their agents came after the list of agents was read"
    monkeypatch.setattr(moving, "_ITEMS", Statement(lambda: Item.objects.filter(pk=0)))
    found = read_moving(access, scene.department.agents.all(), timezone.now())
    assert [row for row in found.reviews if row.item_id is not None] == []
    assert (found.running, found.finished) == ([], [])


def test_nothing_counted_in_these_hours_is_not_shown_as_nothing_done() -> None:
    scene = make_scene()
    for age in (None, timedelta(days=7)):
        if age is not None:
            HourCount.objects.create(pk=1, counted_to=timezone.now() - age, settled_to=timezone.now() - age)
        text = page(scene)
        assert "Not counted yet: a worker does it each minute." in text
        assert "</b> steps done" not in text
        assert "99 % done; not counted yet<" in text
    HourCount.objects.update(counted_to=timezone.now())
    assert "<b>0</b> steps done" in page(scene)


def test_an_agent_that_is_switched_off_is_named() -> None:
    scene = make_scene()
    assert "Switched off:" not in page(scene)
    writer = scene.department.agents.get(slug="writer")
    Agent.objects.filter(pk=writer.pk).update(is_enabled=False)
    url = reverse("runs:agent", args=[writer.pk])
    assert re.search(rf'Switched off: <a href="{url}">Writer</a>[^<]*\.</p>', page(scene))


def test_more_items_than_are_counted_are_said_so(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = make_scene()
    monkeypatch.setattr(moving, "MANY", 1)
    factories.make_lead(scene.department)
    Item.objects.update(automation="active", route_due_at=timezone.now() - timedelta(hours=1))
    assert "<b>more than 10,000</b> items to decide on" in page(scene)
