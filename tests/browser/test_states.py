"""What pages show only while something is so: an incident, a budget that holds up work, a restore, a bulk action."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.urls import reverse
from django.utils import timezone

from agents.models import Department, ModelState
from runs import restore
from runs.gate_alerts import tell_budgets
from runs.models import Absence, AgentRun, Alert, BulkAction, Item, Review, SendBack
from runs.switches import switch_installation
from tests import factories
from tests.browser.conftest import Visit
from tests.browser.test_every_page import find_faults
from tests.runs.desk import item_of, mail_of, make_drafted
from tests.runs.test_spending import make_budget, make_waiting

pytestmark = pytest.mark.browser

Open = Callable[..., Visit]
LONG = "The model's answer did not fit its schema: https://api.example/v1/" + "messages-" * 20


@pytest.fixture
def office(transactional_db: None) -> Department:
    return factories.make_department(name="Amselwerk")


@pytest.fixture
def ada(office: Department) -> User:
    made: User = factories.make_user("ada", department=office, role="administrator", password="a-password")
    User.objects.filter(pk=made.pk).update(is_staff=True)
    return made


def fail_together(office: Department, user: User) -> list[str]:
    """An open incident, one that is being answered, an alert of it, a flagged item."""
    incident = Review.objects.create(
        department=office, kind="incident", cause="writer:timeout", ask=f"3 leads time out: {LONG}"[:500], count=3
    )
    for number in range(3):
        item = factories.make_lead(office, name=f"Lead {number}", email=f"l{number}@example.com").item
        Item.objects.filter(pk=item.pk).update(flag="Writer failed.")
        run = factories.make_agent_run(item, "writer", status="failed", error=LONG, cause="timeout")
        AgentRun.objects.filter(pk=run.pk).update(incident=incident)
    answered = Review.objects.create(
        department=office, kind="incident", cause="writer:invalid", ask="Try again?", status="answered", count=3
    )
    Review.objects.filter(pk=answered.pk).update(answer="retry", answered_by=user, answered_at=timezone.now())
    bulk = BulkAction.objects.create(
        department=office, user=user, verb="retry_all", selection={"incident": answered.pk}, total=300, done=120
    )
    now = timezone.now()
    Alert.objects.create(department=office, key="k", kind="failure", text=LONG, first_at=now, last_at=now)
    return [
        reverse("runs:incident", args=[incident.pk]),
        reverse("runs:incident", args=[answered.pk]),
        reverse("runs:bulk", args=[bulk.pk]),
        reverse("runs:bulk_list"),
        reverse("runs:review", args=[incident.pk]),
        reverse("runs:alerts"),
        "/leads/?flag=yes",
        "/",
    ]


def run_out_of_budget(office: Department, user: User) -> list[str]:
    """A budget that is spent, steps that wait for it, and the question about it."""
    budget = make_budget("9.9", department=office, agent=office.agents.get(slug="writer"))
    run = make_waiting(budget)
    tell_budgets([(office.pk, run.waiting_for)])
    review = Review.objects.get(kind="budget")
    return [
        reverse("runs:review", args=[review.pk]),
        reverse("runs:costs"),
        reverse("runs:agents"),
        reverse("runs:detail", args=[run.pipeline_run_id]),
        "/",
    ]


def restore_backup(office: Department, user: User) -> list[str]:
    """A backup was put back: sends are held, and of some messages nobody knows whether they left."""
    review = make_drafted(office)
    factories.make_outbox(item_of(review), output=mail_of(review))
    restore.after_restore(user=user, reason="The disk was lost.")
    unsure = restore.unsure_messages().get()
    return [
        reverse("runs:system"),
        reverse("runs:system_restore"),
        reverse("runs:outbox"),
        reverse("runs:outbox_message", args=[unsure.pk]),
        reverse("runs:switches"),
        "/",
    ]


def stop_the_line(office: Department, user: User) -> list[str]:
    """The key is refused, a model is tried again later, and the whole installation stands still."""
    now = timezone.now()
    Department.objects.update(stopped_by_error=LONG, next_probe_at=now + timedelta(minutes=1))
    state = ModelState.objects.create(model="claude-x", api_key_env=office.api_key_env, breaker="open", reason=LONG)
    ModelState.objects.filter(pk=state.pk).update(closed_until=now + timedelta(minutes=5))
    root = factories.make_user("root", is_superuser=True)
    assert switch_installation(state="stopped", user=root, reason=LONG[:200])
    return [reverse("runs:system"), reverse("runs:switches"), reverse("runs:live"), "/"]


def send_back(office: Department, user: User) -> list[str]:
    """A draft that was sent back, one on an item that rests, and the absence of who was to decide."""
    review = make_drafted(office)
    SendBack.objects.create(item=item_of(review), key="draft", note=LONG, author=user, output=mail_of(review))
    resting = make_drafted(office)
    Item.objects.filter(pk=item_of(resting).pk).update(automation="taken_over", automation_by=user)
    now = timezone.now()
    cover = factories.make_user("cora", department=office)
    Absence.objects.create(user=user, cover=cover, starts_at=now - timedelta(hours=1), ends_at=now + timedelta(days=2))
    Review.objects.filter(pk=resting.pk).update(snoozed_until=now + timedelta(hours=2), assignee=user)
    return [
        reverse("runs:review", args=[review.pk]),
        reverse("runs:review", args=[resting.pk]),
        reverse("runs:reviews"),
        reverse("leads:detail", args=[resting.item_id]),
        reverse("runs:away"),
        "/",
    ]


def begin(office: Department, user: User) -> list[str]:
    """A department in which nothing was done yet."""
    steps = reverse("runs:first_steps", args=[office.slug])
    empty = ("leads:list", "runs:reviews", "runs:outbox", "runs:list", "runs:actions", "runs:costs", "runs:alerts")
    return [steps, "/", *map(reverse, empty)]


STATES = [fail_together, run_out_of_budget, restore_backup, stop_the_line, send_back, begin]


@pytest.mark.looks
@pytest.mark.parametrize("make", STATES, ids=lambda make: make.__name__)
def test_what_is_only_seen_in_a_state_has_the_quality_of_all_pages(
    make: Callable[[Department, User], list[str]],
    office: Department,
    ada: User,
    site: str,
    visit: Open,
    settings: Any,
    tmp_path: Path,
) -> None:
    settings.BASE_DIR = tmp_path
    urls = make(office, ada)
    opened, wrong = visit("ada"), []
    opened.page.emulate_media(reduced_motion="reduce")
    for url in urls:
        found = opened.page.request.get(opened.site + url)
        assert found.status == 200, url
        wrong += find_faults(opened, url)
    assert not wrong, "\n".join(wrong)
