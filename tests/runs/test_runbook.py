"""The runbook: everything that leads to it finds its section, and every section is led to."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest
from django.urls import reverse
from django.utils import timezone

from agents.causes import Cause
from runs import runbook
from runs.alert_delivery import compose
from runs.health import EVERYTHING, look
from runs.models import Alert, AlertDelivery
from runs.verdict import judge
from tests import factories
from tests.runs import test_verdict
from tests.runs.scene import make_scene

KEYS = {
    "failure:writer:timeout": "an-agent-failed-for-good",
    "send:12:first": "a-message-could-not-be-sent",
    "channel:email": "a-channel-does-not-work",
    "undecided:KeyError": "items-cannot-be-decided-on",
    "unusual_sends": "unusual-sends",
    "after_restore": "a-backup-was-restored",
    "reviews": "questions-wait-for-people",
    "review:7": "questions-wait-for-people",
    "line": "the-line-stands-still",
    "breaker:claude-x": "the-breaker-is-open",
    "budget:The budget": "a-budget-holds-up-work",
    "budget-share:3:50": "a-budget-holds-up-work",
}
_KINDS = {"line": "stop_the_line", "breaker:claude-x": "breaker"}


def anchors() -> set[str]:
    """Every anchor of the page."""
    return {heading.anchor for heading in runbook.read_page().headings}


def test_everything_that_leads_to_the_runbook_finds_its_section() -> None:
    assert runbook.known_sections() - anchors() == set()


def test_every_section_is_led_to() -> None:
    assert anchors() - runbook.known_sections() == set()


def test_links_inside_the_runbook_are_not_dead() -> None:
    links = set(re.findall(r'href="#([^"]+)"', runbook.read_page().html))
    assert links
    assert links - anchors() == set()


@pytest.mark.parametrize("kind", Alert.Kind.values)
def test_every_kind_of_alert_has_a_section(kind: str) -> None:
    assert runbook.section_of(Alert(kind=kind, key="something new")) in anchors()


@pytest.mark.parametrize(("key", "anchor"), KEYS.items())
def test_an_alert_leads_to_the_section_about_it(key: str, anchor: str) -> None:
    kind = _KINDS.get(key, "budget" if key.startswith("budget") else "system")
    assert runbook.section_of(Alert(kind=kind, key=key)) == anchor


@pytest.mark.parametrize("cause", [cause for cause in Cause if cause])
def test_every_cause_of_a_failure_has_a_section(cause: Cause) -> None:
    assert runbook.CAUSES[cause] in anchors()
    assert runbook.section_of_cause(f"writer:{cause}") == runbook.CAUSES[cause]


def test_a_cause_that_nobody_knows_leads_to_the_beginning() -> None:
    assert runbook.section_of_cause("writer:who knows") == runbook.HOME


@pytest.mark.django_db
def test_every_check_of_the_doctor_has_a_section() -> None:
    names = {check.__name__.removeprefix("check_").replace("_", " ") for check in EVERYTHING}
    names |= {finding.check for finding in look(EVERYTHING)}
    assert {*names, "model endpoint"} == set(runbook.CHECKS)


def test_every_verdict_has_a_section() -> None:
    cases = [case[:2] for case in test_verdict.FAULTS] + [case[:2] for case in test_verdict.UNKNOWN]
    for change, part in cases:
        changed: dict[str, Any] = {
            name: replace(getattr(test_verdict.WELL, name), **values) for name, values in change.items()
        }
        verdict = judge(replace(test_verdict.WELL, **changed))
        assert test_verdict.line_of(verdict, part).section in anchors()


@pytest.mark.django_db
def test_the_page_is_for_everybody_who_is_signed_in() -> None:
    scene = make_scene()
    url = reverse("runs:runbook")
    text = scene.client(scene.viewer).get(url).content.decode()
    assert '<h2 id="no-worker-is-at-work">No worker is at work</h2>' in text
    assert 'href="#no-worker-is-at-work"' in text
    assert scene.client(None).get(url)["Location"].startswith(reverse("login"))
    assert scene.client(scene.viewer).post(url).status_code == 405


@pytest.mark.django_db
def test_a_mail_about_an_alert_names_the_section_and_the_system_page(settings: Any) -> None:
    settings.BASE_URL = "https://kontor.example"
    now = timezone.now()
    alert = Alert.objects.create(
        department=factories.make_department(),
        key="channel:email",
        kind="system",
        text="Nothing can leave.",
        first_at=now,
        last_at=now,
    )
    delivery = AlertDelivery(alert=alert, target="log", due_at=now)
    text = compose([delivery], "sales").text
    assert "What to do: https://kontor.example/runbook/#a-channel-does-not-work" in text
    assert "System: https://kontor.example/system/" in text
    alert.closed_at = now
    assert "What to do" not in compose([delivery], "sales").text
