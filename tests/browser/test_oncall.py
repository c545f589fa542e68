"""The page of whoever is called: the verdict follows by itself, and the runbook is one click away."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
from django.db import transaction
from django.utils import timezone
from playwright.sync_api import expect

from agents.model_state import OPEN_AFTER, record_failures, record_successes
from agents.models import Member
from runs import log
from runs.examples import REASON
from runs.models import Item, ShiftSlot
from tests import factories
from tests.browser.conftest import Visit

pytestmark = pytest.mark.browser
Open = Callable[..., Visit]


@pytest.fixture
def ada(transactional_db: None, settings: Any) -> Any:
    """An administrator of a department that is at work."""
    settings.SHIFTS = 1
    department = factories.make_department()
    now = timezone.now()
    # So far ahead that it is alive for as long as the test takes.
    heard = now + timedelta(minutes=5)
    ShiftSlot.objects.create(
        number=1, token=uuid4(), worker="host:1", started_at=now, heartbeat_at=heard, lease_expires_at=heard
    )
    item = factories.make_lead(department).item
    run = factories.make_agent_run(item, "intake", status="done")
    factories.make_model_call(run, ended_at=now)
    return factories.make_user("ada", department=department, role=Member.Role.ADMINISTRATOR, password="a-password")


def tell(department: Any) -> None:
    """A line in the log, as everything that happens writes one: pages look again."""
    item = Item.objects.filter(department=department).first()
    assert item is not None
    log.write([log.item_entry(item, "breaker", "A breaker has changed.", at=timezone.now())])


@pytest.mark.parametrize("width", [1440, 375])
def test_the_verdict_follows_the_breaker_and_leads_to_the_runbook(ada: Any, visit: Open, width: int) -> None:
    department = ada.memberships.get().department
    opened = visit("ada", width=width)
    opened.open("/system/")
    line = opened.page.locator("#verdict-model")
    expect(line).to_contain_text("well")
    key = (department.agents.get(slug="writer").model, department.api_key_env)
    with transaction.atomic():
        record_failures([key] * OPEN_AFTER, "The server answers 500.", timezone.now())
    tell(department)
    expect(line).to_contain_text("in trouble")
    expect(line).to_contain_text("is not working. The server answers 500.")
    expect(line).to_contain_text("It heals by itself.")
    expect(line).to_contain_text("Next try in")
    assert opened.overflow() <= 0
    with transaction.atomic():
        record_successes([key])
    tell(department)
    expect(line).to_contain_text("well")
    expect(line).not_to_contain_text("is not working")
    ShiftSlot.objects.update(heartbeat_at=timezone.now() - timedelta(minutes=3))
    tell(department)
    us = opened.page.locator("#verdict-us")
    expect(us).to_contain_text("No worker is at work.")
    us.get_by_role("link", name="What to do").click()
    expect(opened.page.get_by_role("heading", name="No worker is at work")).to_be_in_viewport()
    assert opened.overflow() <= 0
    assert opened.complaints == []


def test_the_examples_page_lets_the_rest_go_on(ada: Any, visit: Open) -> None:
    department = ada.memberships.get().department
    for number in range(3):
        item = factories.make_lead(department, name=f"Lead {number}", email=f"lead{number}@example.com").item
        Item.objects.filter(pk=item.pk).update(automation="paused", automation_reason=REASON)
    opened = visit("ada", width=375)
    opened.open(f"/departments/{department.slug}/first-steps/")
    button = opened.page.get_by_role("button", name="Go on with the other 3")
    button.focus()
    opened.page.keyboard.press("Enter")
    expect(opened.page.locator("#messages")).to_contain_text("3 of 3 go on.")
    expect(button).to_have_count(0)
    assert not Item.objects.filter(automation="paused").exists()
    assert opened.overflow() <= 0
    assert opened.complaints == []
