"""A person is erased: no text names them, costs add up, nobody writes to them, and nothing under way slips by."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from datetime import timedelta
from decimal import Decimal
from functools import partial
from typing import Any
from unittest.mock import patch

import pytest
from django.apps import apps
from django.contrib.admin.models import LogEntry as AdminEntry
from django.contrib.contenttypes.models import ContentType
from django.core.management import CommandError, call_command
from django.db import models
from django.db.models import Model, Sum
from django.urls import reverse
from django.utils import timezone

from agents.models import Member
from leads.erasing import erase_lead
from leads.models import ImportJob, ImportRemark, Lead, StagedLead
from runs import control, suppressions
from runs.addresses import erased_entry
from runs.allowed import ERASED
from runs.cost_rollups import roll_up
from runs.cost_sums import Period
from runs.costs import break_down
from runs.models import (
    Action,
    AgentRun,
    Alert,
    AlertDelivery,
    BulkAction,
    EditPattern,
    Item,
    ItemCost,
    LogEntry,
    ModelCall,
    ModelCallBody,
    OutboxMessage,
    SavedView,
    SendBack,
    Suppression,
    Trigger,
    TryOut,
)
from runs.tagging import change_tags
from runs.views.item_costs import sum_costs
from tests import factories
from tests.crossings import paths
from tests.engine import claim, in_threads
from tests.runs.scene import HTMX, Scene, make_scene

pytestmark = pytest.mark.django_db

ADDRESS, NAME = "lena.erasmi@werk.example", "Lena Erasmi-Öz"
STAYS = {
    *("AgentRun.pinned_model", "AgentRun.worker", "CostCorrection.reason", "ItemOutcome.outcome", "Lead.source"),
    *("ModelCall.model_asked", "ModelCall.model_used", "ModelCall.request_id", "ModelCall.reserved_in"),
    *("ModelCall.worker", "Output.facets", "Output.made_from", "OutboxMessage.configuration"),
    *("OutboxMessage.worker", "Trigger.delivery_id", "Trigger.source", "TryOut.model", "TryOut.soul_name"),
    *("TryOut.sections", "TryOut.worker", "Message.channel", "OutboxMessage.channel", "Action.target"),
    *("Output.schema_version", "Suppression.address", "ModelCall.stop_reason"),
}
"""Columns of an item's rows that say nothing about its person. A new column has to be here or be blanked."""


def text_columns(model: type[Model]) -> Iterator[models.Field[Any, Any]]:
    """The model's columns that can hold an address."""
    for field in model._meta.concrete_fields:
        is_text = isinstance(field, models.CharField | models.TextField) and (field.max_length or 1_000) > 30
        if is_text and (field.choices or isinstance(field, models.SlugField)):
            continue
        if is_text or isinstance(field, models.JSONField):
            yield field


def of_item(model: type[Model]) -> str:
    """The lookup that leads from the model to the item; empty if none does."""
    if model in (ModelCallBody, AlertDelivery):
        return "call__item" if model is ModelCallBody else ""
    if any(field.name == "item" for field in model._meta.concrete_fields):
        return "item"
    return {"ToolCall": "model_call__item", "CostCorrection": "call__item"}.get(model.__name__, "")


def where_named(*texts: str) -> set[str]:
    """The columns of any table in which one of the texts stands."""
    found = set()
    for model in apps.get_models():
        for field in text_columns(model):
            for value in model._base_manager.values_list(field.name, flat=True):
                written = json.dumps(value, ensure_ascii=False) if not isinstance(value, str) else value
                if any(text.casefold() in written.casefold() for text in texts):
                    found.add(f"{model.__name__}.{field.name}")
    return found


def make_known_everywhere() -> Scene:
    """A lead with rows in every table that has an item, and its name and address in every column that can hold them."""
    scene = make_scene()
    item, user = scene.lead.item, scene.operator
    AgentRun.objects.filter(status=AgentRun.Status.RUNNING).update(
        status=AgentRun.Status.DONE, lease_token=None, lease_expires_at=None
    )
    SendBack.objects.create(item=item, key="draft", note="Warmer.")
    Action.objects.create(department=scene.department, item=item, user=user, verb="pause")
    factories.make_outbox(item, output=scene.output, status=OutboxMessage.Status.SENT, sent_at=timezone.now())
    factories.make_log_entry(item)
    TryOut.objects.create(
        department=scene.department,
        agent=scene.failed.agent,
        item=item,
        soul_name="draft",
        sections={},
        model="m",
        bound_usd=0,
        status="done",
        payload={"a": 1},
        created_at=timezone.now(),
    )
    suppressions.suppress(address=ADDRESS, reason="bounce", item=item)
    for model in apps.get_models():
        if path := of_item(model):
            _fill(model, {path: item.pk})
    Item.objects.filter(pk=item.pk).update(
        title=NAME, tags=[ADDRESS, "suppressed"], flag=f"Ask {NAME}", automation_reason=ADDRESS
    )
    Lead.objects.filter(pk=item.pk).update(
        name=NAME,
        email=ADDRESS,
        phone="+49 30 123456",
        attributes={"Second mail": "lena@home.example"},
        external_id="E-1",
    )
    _name_elsewhere(scene)
    scene.lead.refresh_from_db()
    return scene


def _fill(model: type[Model], lookup: dict[str, Any]) -> None:
    rows = model._base_manager.filter(**lookup)
    text = f"{ADDRESS} {NAME}"
    for field in text_columns(model):
        if f"{model.__name__}.{field.name}" in STAYS or field.unique:
            continue
        if isinstance(field, models.JSONField):
            rows.exclude(**{field.name: None}).update(**{field.name: {"said": [text]}})
        else:
            is_short = field.name == "address" or (field.max_length or 1_000) < len(text)
            rows.update(**{field.name: ADDRESS if is_short else text})


def _name_elsewhere(scene: Scene) -> None:
    """In rows that are of no item, or of others'."""
    department, user = scene.department, scene.operator
    factories.make_log_entry(text=f"Refused: {ADDRESS}.", data={"to": ADDRESS})
    Action.objects.create(user=user, verb="suppress", target=f"suppression:{ADDRESS}", after={"q": ADDRESS.upper()})
    BulkAction.objects.create(
        department=department, user=user, verb="bulk_close", selection={"filter": {"q": NAME}}, refused={"1": ADDRESS}
    )
    SavedView.objects.create(user=user, list_name="leads", name=f"Only {NAME}", params={"q": ADDRESS})
    EditPattern.objects.create(
        department=department,
        agent=scene.failed.agent,
        user=user,
        day=timezone.now().date(),
        kind="removed",
        place="opening",
        digest="d",
        text=f"Dear {NAME},",
    )
    now = timezone.now()
    alert = Alert.objects.create(key="k", kind="review", text=f"No answer of {ADDRESS}", first_at=now, last_at=now)
    AlertDelivery.objects.create(alert=alert, target="mail", error=ADDRESS, due_at=now)
    AdminEntry.objects.create(
        user=user,
        content_type=ContentType.objects.get_for_model(Suppression),
        object_repr=ADDRESS,
        action_flag=1,
        change_message=f"Added {ADDRESS}",
    )
    job = ImportJob.objects.create(department=department, source="fair", file_name="fair.csv", status="done")
    ImportRemark.objects.create(job=job, row_number=7, kind="note", text=f"More than one address: {ADDRESS}")
    ImportRemark.objects.create(job=job, row_number=8, kind="note", text="About somebody else.")
    factories.make_trigger(scene.lead.item, source="import:fair", payload={"row": 7, "import": job.pk})
    first = factories.make_lead(department)
    body = json.dumps({"leads": [{"email": first.email}, {"email": ADDRESS}]})
    factories.make_trigger(first.item, source="webhook:sales", delivery_id="d-1#1", raw_body=body)
    factories.make_trigger(scene.lead.item, source="webhook:sales", delivery_id="d-1#2")


def test_the_scene_of_these_tests_names_the_person_in_every_table() -> None:
    scene = make_known_everywhere()
    named = where_named(ADDRESS, NAME)
    with_items = {
        model.__name__ for model in apps.get_models() if of_item(model) and any(_blankable(model)) and paths(model)
    }
    assert with_items - {"ItemCost", "ItemTotal", "StagedLead"} <= {column.partition(".")[0] for column in named}
    assert {"Lead.email", "ModelCallBody.request", "LogEntry.text", "SavedView.params", "Suppression.address"} <= named
    assert scene.lead.email == ADDRESS


def _blankable(model: type[Model]) -> Iterator[str]:
    return (f.name for f in text_columns(model) if f"{model.__name__}.{f.name}" not in STAYS and not f.unique)


def test_the_address_and_the_name_appear_nowhere_afterwards() -> None:
    scene = make_known_everywhere()
    assert erase_lead(lead=scene.lead, user=scene.operator, reason=f"{ADDRESS} wrote a letter")
    assert where_named(ADDRESS, NAME, "lena@home.example", "123456") == set()
    assert list(ImportRemark.objects.values_list("text", flat=True)) == ["About somebody else."]
    action = Action.objects.get(verb="erase_person")
    assert (action.user, action.item_id, action.reason) == (scene.operator, scene.lead.pk, "[erased] wrote a letter")
    item = Item.objects.get(pk=scene.lead.pk)
    assert (item.title, item.tags) == (f"Erased lead {item.pk}", ["suppressed", "erased"])
    assert (item.automation, item.route_due_at) == ("closed", None)


def test_the_page_of_somebody_erased_says_so_and_shows_no_empty_cards(settings: Any) -> None:
    settings.SIMULATED = True
    scene = make_known_everywhere()
    assert erase_lead(lead=scene.lead, user=scene.operator)
    client, page = scene.client(scene.operator), reverse("leads:detail", args=[scene.lead.pk])
    html = client.get(page).content.decode()
    assert f"<h1>Erased lead {scene.lead.pk}</h1>" in html
    assert "The person was erased. Nothing more happens." in html
    assert "what was written about them and to them is gone" in html
    assert "k-output" not in html
    assert "Simulate a reply" not in html
    url = reverse("leads:simulate_reply", args=[scene.lead.pk])
    assert "The person was erased" in client.post(url, {"body": "It is me."}, headers=HTMX).content.decode()
    assert "It is me." not in list(scene.lead.item.messages.values_list("body", flat=True))
    lines = client.get(page, {"tab": "timeline"}).content.decode()
    assert "its words were erased." in lines
    assert ">Erased.<" not in lines
    assert "k-draft" not in client.get(page, {"tab": "conversation"}).content.decode(), "nobody is asked about it"
    why = client.get(page, {"tab": "why"}).content.decode()
    assert f"?step={scene.failed.pk}" in why
    for promised in ("Erased.", "A failure stands", "automation goes on", "once it", "Wanted:"):
        assert promised not in why
    assert f">Erased lead {scene.lead.pk}</a>" in client.get(reverse("leads:list")).content.decode()


def test_money_and_counts_stay_what_they_were() -> None:
    scene = make_known_everywhere()
    item = scene.lead.item
    ItemCost.objects.create(department=scene.department, item=item, day=timezone.now().date(), calls=1, cost_units=5)

    def sums() -> tuple[Any, ...]:
        calls = ModelCall.objects.aggregate(usd=Sum("cost_usd"), tokens=Sum("input_tokens"))
        counted = [
            model.objects.count() for model in (ModelCall, AgentRun, OutboxMessage, Trigger, ItemCost, Item, Lead)
        ]
        return calls["usd"], calls["tokens"], counted, item.messages.count(), item.outputs.count(), item.reviews.count()

    before = sums()
    assert before[0] > Decimal(0)
    assert erase_lead(lead=scene.lead, user=scene.operator)
    assert sums() == before
    assert not ModelCallBody.objects.filter(call__item=item).exists()
    assert OutboxMessage.objects.get(item=item).status == "sent"


def test_what_brought_nothing_is_the_same_sum_afterwards() -> None:
    """A repaired answer has an error and no cause: taking the words out must not make it a useful one."""
    lead = factories.make_lead()
    run = factories.make_agent_run(lead.item, status="done")
    now = timezone.now()
    period = Period(now.date(), now.date())
    factories.make_model_call(run, cost_usd=Decimal("0.10"), started_at=now, error=f"name: {ADDRESS} is too long")
    factories.make_model_call(run, cost_usd=Decimal("0.25"), started_at=now)
    roll_up()
    factories.make_model_call(run, cost_usd=Decimal("0.02"), started_at=now, error=f"name: {ADDRESS} is too long")

    def wasted() -> list[Decimal]:
        by_dimension = [break_down([lead.item.department], period, by)[0].waste_usd for by in ("item", "agent")]
        return [*by_dimension, sum_costs(lead.item)["total"].waste_usd]

    assert wasted() == [Decimal("0.12")] * 3
    assert erase_lead(lead=lead, user=factories.make_user())
    assert wasted() == [Decimal("0.12")] * 3
    roll_up()
    assert wasted() == [Decimal("0.12")] * 3
    assert sorted(ModelCall.objects.values_list("error", flat=True)) == ["", "Erased.", "Erased."]


def test_nobody_writes_to_an_erased_address_and_it_is_not_stored_again() -> None:
    scene = make_scene()
    lead = scene.lead
    address = lead.email
    AgentRun.objects.filter(status="running").update(status="done", lease_token=None, lease_expires_at=None)
    assert erase_lead(lead=lead, user=scene.operator)
    assert Suppression.objects.get().address == erased_entry(address)
    assert suppressions.is_suppressed(address.upper())
    assert suppressions.suppressed_among([address, "other@example.com"]) == {address}
    assert not suppressions.suppress(address=address, reason="bounce"), "a late bounce"
    assert not suppressions.suppress(address=address, reason="manual", user=scene.operator)
    assert where_named(address) == set()
    again = factories.make_lead(scene.department, email=address)
    assert suppressions.is_suppressed(again.email), "also when somebody imports them again"


def test_a_person_erased_twice_is_one_entry_and_nothing_is_done_to_what_is_left() -> None:
    scene = make_known_everywhere()
    assert erase_lead(lead=scene.lead, user=scene.operator)
    again = erase_lead(lead=scene.lead, user=scene.operator)
    assert again.reason == "The person was erased before."
    assert Action.objects.filter(verb="erase_person").count() == 1
    item = Item.objects.get(pk=scene.lead.pk)
    assert control.reopen_item(item=item, user=scene.operator).reason == ERASED
    assert change_tags(item=item, user=scene.operator, remove=["erased"]).reason == ERASED
    page = scene.client(scene.operator).get(reverse("leads:detail", args=[item.pk])).content.decode()
    assert reverse("leads:edit", args=[item.pk]) not in page


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("run", "A step is under way."),
        ("try_out", "A try-out is under way."),
        ("sending", "A message is being sent."),
        ("unknown", "It is unsure whether a message was sent."),
        ("import", "The import that brought it is not over."),
        ("call", "A call to the model may still answer."),
        ("late_call", "A call to the model may still answer."),
    ],
)
def test_it_is_refused_while_something_is_under_way(what: str, said: str) -> None:
    lead = factories.make_lead()
    item, now = lead.item, timezone.now()
    run = factories.make_agent_run(item, status="running" if what == "run" else "done")
    if what == "try_out":
        TryOut.objects.create(
            department=item.department, agent=run.agent, item=item, soul_name="1", sections={}, model="m", bound_usd=0,
            created_at=now,
        )  # fmt: skip
    elif what in ("sending", "unknown"):
        lease = {"lease_token": "6" * 32, "lease_expires_at": now} if what == "sending" else {}
        factories.make_outbox(item, status=what, **lease)
    elif what == "import":
        StagedLead.objects.create(job=make_job(item, "running", lease_seconds=60), lead=lead)
    elif what == "call":
        factories.make_model_call(run, status="started")
    elif what == "late_call":
        factories.make_model_call(run, status="unseen", started_at=now - timedelta(minutes=2))
    before = where_named(lead.email)
    assert said in erase_lead(lead=lead, user=factories.make_user()).reason
    assert where_named(lead.email) == before
    item.refresh_from_db()
    assert item.automation == "active", "a refusal changes nothing"


def make_job(item: Item, status: str, lease_seconds: int) -> ImportJob:
    expires = timezone.now() + timedelta(seconds=lease_seconds)
    return ImportJob.objects.create(
        department=item.department, source="x", file_name="x.csv", status=status, lease_expires_at=expires
    )


@pytest.mark.parametrize("status", ["running", "failed"])
def test_a_person_whom_an_interrupted_import_left_behind_can_be_erased(status: str) -> None:
    lead, user = factories.make_lead(), factories.make_user()
    staged = StagedLead.objects.create(job=make_job(lead.item, status, lease_seconds=-60), lead=lead)
    run = factories.make_agent_run(lead.item, status="running")
    assert "A step is under way." in erase_lead(lead=lead, user=user).reason
    assert StagedLead.objects.filter(pk=staged.pk).exists(), "a refusal changes nothing"
    AgentRun.objects.filter(pk=run.pk).update(status="done", lease_token=None, lease_expires_at=None)
    assert erase_lead(lead=lead, user=user)
    assert not StagedLead.objects.filter(pk=staged.pk).exists()


def test_what_waits_is_cancelled_and_what_is_unsent_taken_back() -> None:
    lead = factories.make_lead(route_due_at=timezone.now())
    queued = factories.make_agent_run(lead.item)
    waiting = factories.make_outbox(lead.item)
    assert erase_lead(lead=lead, user=factories.make_user())
    queued.refresh_from_db()
    waiting.refresh_from_db()
    assert (queued.status, waiting.status, waiting.rendered) == ("cancelled", "withdrawn", {})


@pytest.mark.django_db(transaction=True)
def test_of_a_claim_and_an_erasure_at_once_one_comes_first() -> None:
    """Either the step is under way and nothing is erased, or the person is gone and nothing runs."""
    department = factories.make_department()
    user = factories.make_user()
    for _ in range(6):
        lead = factories.make_lead(department)
        run = factories.make_agent_run(lead.item, "intake")
        jobs = [partial(erase_lead, lead=lead, user=user), partial(claim, 1)]
        done, works = in_threads(lambda number, jobs=jobs: jobs[number](), 2)  # type: ignore[misc]
        run.refresh_from_db()
        named = where_named(lead.email)
        if works:
            assert not done
            assert {"Lead.email", "ModelCallBody.request"} <= named
            assert run.status == "running"
        else:
            assert done
            assert named == set()
            assert run.status == "cancelled"
        AgentRun.objects.filter(pk=run.pk, status="running").update(
            status="cancelled", lease_token=None, lease_expires_at=None
        )


@pytest.mark.django_db(transaction=True)
def test_of_two_who_erase_at_once_one_is_told() -> None:
    lead = factories.make_lead()
    users = [factories.make_user("one"), factories.make_user("two")]
    done = in_threads(lambda number: erase_lead(lead=lead, user=users[number]), 2)
    assert sorted(bool(answer) for answer in done) == [False, True]
    assert Action.objects.filter(verb="erase_person").count() == 1
    assert Suppression.objects.count() == 1


@pytest.mark.django_db(transaction=True)
def test_an_erasure_that_is_cut_off_leaves_everything_as_it_was() -> None:
    lead = factories.make_lead()
    factories.make_message(lead.item, address=lead.email)
    before = where_named(lead.email)
    user = factories.make_user()
    with patch("runs.erasure.act", side_effect=RuntimeError("killed before the end")), pytest.raises(RuntimeError):
        erase_lead(lead=lead, user=user)
    assert where_named(lead.email) == before
    assert not Suppression.objects.exists()


def test_the_page_says_what_goes_and_wants_the_address_typed() -> None:
    scene = make_scene()
    AgentRun.objects.filter(status="running").update(status="done", lease_token=None, lease_expires_at=None)
    admin = factories.make_user("ada", department=scene.department, role=Member.Role.ADMINISTRATOR)
    client, lead = scene.client(admin), scene.lead
    assert reverse("leads:erase", args=[lead.pk]) in client.get(f"/leads/{lead.pk}/").content.decode()
    page = client.get(reverse("leads:erase", args=[lead.pk])).content.decode()
    assert "3 outputs, 1 message and" in page
    url = reverse("leads:erase_now", args=[lead.pk])
    refused = client.post(url, {"word": "lena", "reason": "By letter"})
    assert refused.status_code == 422
    assert f"Nothing was erased: type “{lead.email}”." in refused.content.decode()
    assert 'value="lena"' in refused.content.decode()
    assert 'value="By letter"' in refused.content.decode()
    assert Lead.objects.get(pk=lead.pk).email == lead.email
    assert client.post(url, {"word": lead.email.upper(), "reason": "By letter"})["Location"] == f"/leads/{lead.pk}/"
    assert Lead.objects.get(pk=lead.pk).email == ""
    assert Action.objects.get(verb="erase_person").reason == "By letter"
    for tab in ("", "conversation", "timeline", "why", "cost"):
        assert client.get(f"/leads/{lead.pk}/?tab={tab}").status_code == 200
    for name in ("runs:list", "runs:steps", "runs:outbox", "runs:reviews", "runs:actions", "leads:list"):
        assert client.get(reverse(name)).status_code == 200
    assert client.get(reverse("runs:detail", args=[scene.run.pk])).status_code == 200
    assert client.get(reverse("runs:review", args=[scene.review.pk])).status_code == 200


@pytest.mark.parametrize("name", ["erase", "erase_now"])
def test_erasing_is_for_administrators(name: str) -> None:
    scene = make_scene()
    url = reverse(f"leads:{name}", args=[scene.lead.pk])
    for user in (scene.viewer, scene.operator, scene.reviewer, scene.stranger):
        client = scene.client(user)
        assert (client.get(url) if name == "erase" else client.post(url)).status_code == 404
    assert scene.client(None).post(url).status_code in (302, 405)
    assert LogEntry.objects.filter(kind="erased").count() == 0


def test_the_command_erases_the_person_in_every_department() -> None:
    scene = make_known_everywhere()
    other = factories.make_department(slug="second")
    factories.make_lead(other, name=NAME, email=ADDRESS)
    out = io.StringIO()
    call_command("erase_person", ADDRESS.upper(), "--yes", "--reason", "by letter", stdout=out)
    assert where_named(ADDRESS, NAME) == set()
    assert Suppression.objects.get().address == erased_entry(ADDRESS)
    assert out.getvalue().count("everything but its costs and counts is erased") == 2
    assert {action.user for action in Action.objects.filter(verb="erase_person")} == {None}
    assert scene.lead.pk


def test_the_command_refuses_what_is_under_way_and_what_is_no_address() -> None:
    lead = factories.make_lead(email=ADDRESS)
    factories.make_agent_run(lead.item, status="running")
    with pytest.raises(CommandError, match=r"Not everything was erased\. Lead \d+ of Sales: A step is under way"):
        call_command("erase_person", ADDRESS, "--yes", stdout=io.StringIO())
    with pytest.raises(CommandError, match="is no e-mail address"):
        call_command("erase_person", "lena", "--yes", stdout=io.StringIO())
    assert Lead.objects.get(pk=lead.pk).email == ADDRESS


def test_the_command_keeps_an_address_that_is_no_lead_and_says_who_else_names_it() -> None:
    other = factories.make_lead(name="Otto Berg", attributes={"Colleague": ADDRESS})
    suppressions.suppress(address=ADDRESS, reason="opt_out")
    out = io.StringIO()
    call_command("erase_person", ADDRESS, "--yes", stdout=out)
    assert Suppression.objects.get().address == erased_entry(ADDRESS)
    assert f"also stands in what is kept of lead {other.pk}" in out.getvalue()
