"""Five examples before anything else: what an upload to a new department starts, and what waits for a word."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from agents.models import Department, Member
from leads.intake import Arrival, Delivery
from leads.mapping import LeadRow
from leads.models import ImportJob
from leads.tasks import import_file
from leads.webhooks import record_delivery
from runs.examples import EXAMPLES, REASON, VERB, go_on, held_items, hold_back, wants_examples
from runs.models import Action, BulkAction, Item
from tests import factories
from tests.engine import in_threads
from tests.runs.scene import HTMX

pytestmark = pytest.mark.django_db
ROWS = 12
HEAD = b"E-Mail;Firma\n"
TABLE = HEAD + b"".join(b"lead%d@acme%d.example;Acme %d\n" % (n, n, n) for n in range(ROWS))


@pytest.fixture
def sales(settings: Any, tmp_path: Path) -> Department:
    settings.BASE_DIR = tmp_path
    return factories.make_department()


@pytest.fixture
def browser(sales: Department) -> Client:
    client = Client()
    client.force_login(factories.make_user("olga", department=sales))
    return client


def upload(browser: Client, content: bytes = TABLE, name: str = "people.csv") -> ImportJob:
    """A draft of an import."""
    assert browser.post("/leads/import/", {"file": SimpleUploadedFile(name, content)}).status_code == 302
    return ImportJob.objects.latest("pk")


def run_import(browser: Client, job: ImportJob, **fields: str) -> None:
    """Start it as the page does, and let a worker do it."""
    browser.post(reverse("leads:import_start", args=[job.pk]), fields)
    import_file(job.pk)
    job.refresh_from_db()
    assert job.status == ImportJob.Status.DONE


def test_the_preview_says_price_time_and_that_nothing_is_sent(browser: Client) -> None:
    text = browser.get(upload(browser).get_absolute_url()).content.decode()
    assert "12 leads, at most about $" in text
    assert "nothing will be sent before a person approves it" in text
    assert 'name="examples" value="yes" checked' in text


def test_an_automatic_approval_is_not_hidden(browser: Client, sales: Department) -> None:
    writer = sales.agents.get(slug="formatter")
    sales.auto_approvals.create(agent=writer, name="Low risk", is_enabled=True)
    text = browser.get(upload(browser).get_absolute_url()).content.decode()
    assert "automatic approvals are on" in text
    assert "nothing will be sent" not in text


def test_only_the_first_five_are_worked_on(browser: Client, sales: Department) -> None:
    run_import(browser, upload(browser), examples="yes")
    due = Item.objects.exclude(route_due_at=None).order_by("pk")
    assert due.count() == EXAMPLES
    assert [item.pk for item in due] == list(Item.objects.order_by("pk").values_list("pk", flat=True)[:EXAMPLES])
    held = held_items(sales)
    assert held.count() == ROWS - EXAMPLES
    assert {(item.automation, item.automation_reason, item.route_due_at) for item in held} == {("paused", REASON, None)}
    assert {str(item.automation_by) for item in held} == {"olga"}


def test_a_second_upload_waits_behind_the_same_examples(browser: Client, sales: Department) -> None:
    run_import(browser, upload(browser), examples="yes")
    more = HEAD + b"otto@berg.example;Berg\nida@tal.example;Tal\n"
    factories.make_pipeline_run(Item.objects.order_by("pk")[0])
    job = upload(browser, more, "more.csv")
    text = browser.get(job.get_absolute_url()).content.decode()
    assert 'name="examples" value="yes" checked' in text, "or it would be worked on before anybody has said go on"
    assert f"wait with the {ROWS - EXAMPLES} that are held" in text
    run_import(browser, job, examples="yes")
    assert Item.objects.exclude(route_due_at=None).count() == EXAMPLES
    assert held_items(sales).count() == ROWS - EXAMPLES + 2


def test_without_the_tick_all_are_worked_on(browser: Client, sales: Department) -> None:
    run_import(browser, upload(browser))
    assert Item.objects.exclude(route_due_at=None).count() == ROWS
    assert not held_items(sales).exists()


def test_few_leads_need_no_word(browser: Client, sales: Department) -> None:
    job = upload(browser, HEAD + b"otto@berg.example;Berg\n")
    assert 'name="examples"' not in browser.get(job.get_absolute_url()).content.decode()
    run_import(browser, job, examples="yes")
    assert not held_items(sales).exists()


def test_go_on_starts_the_rest_once_and_says_who_said_so(browser: Client, sales: Department) -> None:
    run_import(browser, upload(browser), examples="yes")
    url = reverse("runs:examples_go_on", args=[sales.slug])
    response = browser.post(url)
    assert response["Location"] == reverse("runs:first_steps", args=[sales.slug])
    assert not held_items(sales).exists()
    assert Item.objects.exclude(route_due_at=None).count() == ROWS
    assert set(Item.objects.values_list("automation", flat=True)) == {"active"}
    bulk = BulkAction.objects.get()
    assert (bulk.done, bulk.total, bulk.status) == (ROWS - EXAMPLES, ROWS - EXAMPLES, "done")
    assert Action.objects.get(verb="go_on_after_examples").user == bulk.user
    again = browser.post(url, headers=HTMX)
    assert "Nothing waits behind the examples any more." in again.content.decode()
    assert BulkAction.objects.count() == 1
    assert not wants_examples(sales)


def test_the_second_of_two_who_say_go_on_is_told_so(browser: Client, sales: Department) -> None:
    run_import(browser, upload(browser), examples="yes")
    BulkAction.objects.create(
        department=sales,
        verb=VERB,
        status=BulkAction.Status.RUNNING,
        selection={},
        arguments={"after": [10**9]},
        total=7,
    )
    again = browser.post(reverse("runs:examples_go_on", args=[sales.slug]), headers=HTMX).content.decode()
    assert "Somebody has said go on already" in again
    page = browser.get(reverse("runs:first_steps", args=[sales.slug])).content.decode()
    assert "7 are still to be let go" in page
    assert "Go on with the other" not in page
    assert BulkAction.objects.count() == 1


def test_what_a_person_has_paused_stays_paused(browser: Client, sales: Department) -> None:
    run_import(browser, upload(browser), examples="yes")
    mine = held_items(sales).last()
    assert mine is not None
    Item.objects.filter(pk=mine.pk).update(automation_reason="On holiday.")
    user = factories.make_user("ole", department=sales)
    bulk = go_on(department=sales, user=user)
    assert bulk is not None
    mine.refresh_from_db()
    assert mine.automation == "paused"


def test_a_department_that_has_worked_is_not_asked(browser: Client, sales: Department) -> None:
    assert wants_examples(sales)
    factories.make_pipeline_run(factories.make_lead(sales).item)
    assert not wants_examples(sales)
    assert 'name="examples"' not in browser.get(upload(browser).get_absolute_url()).content.decode()


def test_who_may_say_go_on(browser: Client, sales: Department) -> None:
    run_import(browser, upload(browser), examples="yes")
    url = reverse("runs:examples_go_on", args=[sales.slug])
    assert browser.get(url).status_code == 405
    assert Client().post(url)["Location"].startswith(reverse("login"))
    other = factories.make_department(slug="other")
    for person in (
        factories.make_user("vera", department=sales, role=Member.Role.VIEWER),
        factories.make_user("rudi", department=sales, role=Member.Role.REVIEWER),
        factories.make_user("stan", department=other, role=Member.Role.ADMINISTRATOR),
    ):
        client = Client()
        client.force_login(person)
        assert client.post(url).status_code == 404
    assert held_items(sales).count() == ROWS - EXAMPLES


def come_in(sales: Department, *addresses: str) -> None:
    """New leads by the webhook."""
    rows = [LeadRow(number, {"email": address}) for number, address in enumerate(addresses, start=1)]
    delivery = Delivery(addresses[0], "{}", is_single=False)
    arrival = Arrival(source="hook", trigger_source="hook", now=timezone.now(), delivery=delivery)
    assert record_delivery(department=sales, rows=rows, arrival=arrival)


def test_what_a_webhook_brings_waits_behind_the_examples_too(browser: Client, sales: Department) -> None:
    come_in(sales, "before@first.example")
    assert Item.objects.get().route_due_at is not None, "nothing waits before the first upload"
    run_import(browser, upload(browser), examples="yes")
    due = Item.objects.exclude(route_due_at=None).count()
    come_in(sales, "otto@berg.example", "lead0@acme0.example", "ida@tal.example")
    assert Item.objects.exclude(route_due_at=None).count() == due, "one of them is known, and an example"
    held = held_items(sales).filter(lead__source="hook")
    assert sorted(held.values_list("lead__email", flat=True)) == ["ida@tal.example", "otto@berg.example"]
    browser.post(reverse("runs:examples_go_on", args=[sales.slug]))
    assert not held_items(sales).exists()
    come_in(sales, "late@comer.example")
    assert Item.objects.get(lead__email="late@comer.example").route_due_at is not None


def test_a_batch_that_comes_after_go_on_is_not_held_again(
    browser: Client, sales: Department, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("leads.importing.BATCH_ROWS", 8)
    job = upload(browser)
    real = hold_back
    said: list[Any] = []

    def hold_and_go_on(*args: Any, **kwargs: Any) -> list[int]:
        """Somebody says go on between the first batch and the second."""
        if held_items(sales).exists() and not said:
            said.append(browser.post(reverse("runs:examples_go_on", args=[sales.slug])))
        return real(*args, **kwargs)

    monkeypatch.setattr("runs.examples.hold_back", hold_and_go_on)
    run_import(browser, job, examples="yes")
    assert len(said) == 1
    assert not held_items(sales).exists()
    assert Item.objects.exclude(route_due_at=None).count() == ROWS


def test_an_aborted_go_on_is_no_word(browser: Client, sales: Department) -> None:
    run_import(browser, upload(browser), examples="yes")
    BulkAction.objects.create(department=sales, verb=VERB, status="aborted", selection={}, arguments={"after": [0]})
    come_in(sales, "otto@berg.example")
    assert held_items(sales).count() == ROWS - EXAMPLES + 1


@pytest.mark.django_db(transaction=True)
def test_nothing_is_left_waiting_when_leads_come_in_while_somebody_says_go_on(sales: Department) -> None:
    user = factories.make_user("olga", department=sales)
    for number in range(4):
        BulkAction.objects.all().delete()
        factories.make_item(sales, automation="paused", automation_reason=REASON)
        jobs = [
            partial(go_on, department=sales, user=user),
            partial(come_in, sales, f"a{number}@x.example", f"b{number}@x.example"),
        ]
        in_threads(lambda index, jobs=jobs: jobs[index](), 2)  # type: ignore[misc]
        bulk = BulkAction.objects.get()
        assert bulk.status == "done"
        assert not held_items(sales).exists()
