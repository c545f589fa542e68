"""First steps of a department: each is done or open as what is stored says."""

from __future__ import annotations

from typing import Any

import pytest
import time_machine
from django.urls import reverse
from django.utils import timezone

from agents.models import Department
from leads.models import ImportJob
from runs.examples import REASON
from runs.first_steps import are_done, read_examples, read_steps
from runs.models import Channel, Item
from tests import factories
from tests.runs.scene import HTMX, make_scene, settled

pytestmark = pytest.mark.django_db
ALL = ["company", "icp", "brand", "mailbox", "upload", "examples"]


@pytest.fixture
def desk() -> Department:
    return factories.make_department()


def open_steps(department: Department) -> list[str]:
    """The slugs of what is not done."""
    department.refresh_from_db()
    return [step.slug for step in read_steps(department) if not step.is_done]


def test_everything_is_open_in_a_new_department(desk: Department) -> None:
    steps = read_steps(desk)
    assert [step.slug for step in steps] == ALL
    assert open_steps(desk) == ALL
    assert all(step.says and (step.url or step.slug == "examples") for step in steps)


OWN: dict[str, dict[str, Any]] = {
    "company": {"company_name": "Acme", "company_pitch": "Acme makes anvils.", "company_facts": []},
    "icp": {"icp": "Blacksmiths."},
    "brand": {"brand_guide": "Plain.", "sender_name": "Wile", "signature": "Wile"},
}
"""Settings that must not stay those of the invented example, by section."""


@pytest.mark.parametrize("slug", OWN)
def test_settings_are_done_when_nothing_is_left_of_the_example(desk: Department, slug: str) -> None:
    example = desk.spec.settings_schema().model_dump(mode="json")
    for key in OWN[slug]:
        Department.objects.filter(pk=desk.pk).update(settings=OWN[slug] | {key: example[key]})
        assert slug in open_steps(desk), f"{key} is still of another company"
    Department.objects.filter(pk=desk.pk).update(settings=OWN[slug])
    assert slug not in open_steps(desk)


def test_it_names_what_is_left_of_the_example(desk: Department) -> None:
    """A mail would state another company's facts as ours, and the Fact-Checker would let them pass."""
    example = desk.spec.settings_schema().model_dump(mode="json")
    facts = [{"fact": "Acme makes anvils", "source": "Catalogue"}, example["company_facts"][0]]
    settings = {"company_name": "Acme", "company_facts": facts}
    Department.objects.filter(pk=desk.pk).update(settings=settings)
    desk.refresh_from_db()
    step = next(step for step in read_steps(desk) if step.slug == "company")
    assert not step.is_done
    assert step.says.startswith("Still of an invented example: company pitch and company facts. ")


def test_the_mailbox_is_done_after_a_test_mail(desk: Department) -> None:
    sender = {"from_address": "mara@tallyport.example", "from_name": "Mara"}
    channel = Channel.objects.create(department=desk, kind="email", settings=sender, is_enabled=False)
    assert "mailbox" in open_steps(desk)
    Channel.objects.filter(pk=channel.pk).update(tested_at=timezone.now())
    assert "mailbox" in open_steps(desk), "a channel that is off sends nothing"


def test_an_upload_is_done_when_it_has_brought_leads(desk: Department) -> None:
    job = ImportJob.objects.create(department=desk, source="x", file_name="people.csv")
    step = next(step for step in read_steps(desk) if step.slug == "upload")
    assert (step.is_done, step.url) == (False, job.get_absolute_url())
    ImportJob.objects.filter(pk=job.pk).update(status="done", created=0)
    assert "upload" in open_steps(desk)
    ImportJob.objects.filter(pk=job.pk).update(created=1)
    assert any(step.says.endswith("has brought 1 lead.") for step in read_steps(desk))
    ImportJob.objects.filter(pk=job.pk).update(created=3)
    assert "upload" not in open_steps(desk)


def test_an_example_says_whether_a_draft_can_still_come(desk: Department) -> None:
    for name, status in (("Ida", "qualified"), ("Max", "rejected")):
        item = factories.make_lead(desk, name=name, email=f"{name}@x.example", status=status).item
        factories.make_agent_run(item, "qualifier", status="done")
    says = [text for _, text, _ in read_examples(desk).items]
    assert says == ["none yet. Qualified", "none. Not a lead"]


def test_an_example_that_was_worked_on_twice_stands_there_once(
    desk: Department, django_assert_num_queries: Any
) -> None:
    item = factories.make_lead(desk).item
    for status in ("completed", "active"):
        factories.make_pipeline_run(item, status=status)
    factories.make_lead(desk, name="Otto", email="otto@example.com")
    with django_assert_num_queries(3):
        assert [each.pk for each, _, _ in read_examples(desk).items] == [item.pk]


def test_the_page_counts_what_waits_once(django_assert_max_num_queries: Any) -> None:
    scene = make_scene()
    client, url = scene.client(scene.viewer), reverse("runs:first_steps_panel", args=[scene.department.slug])
    ImportJob.objects.create(department=scene.department, file_name="a.csv", status="done", created=2)
    with django_assert_max_num_queries(11):
        assert "has brought 2 leads" in client.get(url).content.decode()
    assert Department.objects.filter(slug="other").exists()
    assert client.get(reverse("runs:first_steps_panel", args=["other"])).status_code == 404


def test_examples_are_done_when_drafts_are_there_and_nothing_waits(desk: Department) -> None:
    item = factories.make_lead(desk).item
    run = factories.make_agent_run(item, "formatter", status="done")
    factories.make_output(item, "email", agent_run=run)
    assert "examples" not in open_steps(desk)
    other = factories.make_lead(desk, name="Otto", email="otto@example.com").item
    Item.objects.filter(pk=other.pk).update(automation="paused", automation_reason=REASON)
    step = next(step for step in read_steps(desk) if step.slug == "examples")
    assert not step.is_done
    assert "1 lead still to come." in step.says
    assert not are_done(read_steps(desk))


def test_the_page_and_its_part_show_the_same() -> None:
    scene = make_scene()
    client = scene.client(scene.viewer)
    slug = scene.department.slug
    with time_machine.travel(timezone.now(), tick=False):
        page = client.get(reverse("runs:first_steps", args=[slug])).content.decode()
        part = client.get(reverse("runs:first_steps_panel", args=[slug]), headers=HTMX).content.decode()
    assert settled(part) in settled(page)
    assert "0 of 6 done" in part
    for step in ALL:
        assert f'id="step-{step}"' in part


def test_a_viewer_sees_what_waits_and_no_button() -> None:
    scene = make_scene()
    other = factories.make_lead(scene.department, name="Otto", email="otto@example.com").item
    Item.objects.filter(pk=other.pk).update(automation="paused", automation_reason=REASON)
    url = reverse("runs:first_steps", args=[scene.department.slug])
    action = reverse("runs:examples_go_on", args=[scene.department.slug])
    assert action in scene.client(scene.operator).get(url).content.decode()
    text = scene.client(scene.viewer).get(url).content.decode()
    assert action not in text
    assert "1 wait" in text
    assert scene.client(scene.stranger).get(url).status_code == 404
    assert scene.client(None).get(url)["Location"].startswith(reverse("login"))


def test_the_overview_leads_there_until_all_is_done() -> None:
    scene = make_scene()
    text = scene.client(scene.operator).get(reverse("runs:overview")).content.decode()
    assert reverse("runs:first_steps", args=[scene.department.slug]) in text
