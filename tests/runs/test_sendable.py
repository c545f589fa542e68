"""What may be approved: nothing that was written without knowing a reply, nothing to who asked for no more."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.utils import timezone

from runs.models import Item, Output, Trigger
from runs.sendable import why_not_send
from runs.triggers import record_reply
from tests.factories import make_agent_run, make_lead, make_output, make_trigger

pytestmark = pytest.mark.django_db
REPLIED = "A reply came in after it was written."


@pytest.fixture
def item() -> Item:
    return make_lead().item


def written(item: Item, trigger: Trigger | None, *, draft_seconds: int, mail_seconds: int) -> Output:
    """A mail whose draft was begun, and which was begun itself, so many seconds ago."""
    made: list[Output] = []
    for agent, key, seconds in (("writer", "draft", draft_seconds), ("formatter", "email", mail_seconds)):
        run = make_agent_run(item, agent, status="done", trigger=trigger)
        run.started_at = timezone.now() - timedelta(seconds=seconds)
        run.save()
        made.append(make_output(item, key, trigger=trigger, agent_run=run, made_from=[row.pk for row in made]))
    return made[-1]


@pytest.mark.parametrize(("draft_seconds", "mail_seconds"), [(60, 60), (60, -60)])
def test_what_was_in_flight_when_a_reply_came_in_is_not_sent(item: Item, draft_seconds: int, mail_seconds: int) -> None:
    record_reply(item=item, body="Stop, please.")
    email = written(item, None, draft_seconds=draft_seconds, mail_seconds=mail_seconds)
    assert why_not_send(item, email) == REPLIED


def test_what_was_begun_after_the_reply_may_be_sent(item: Item) -> None:
    record_reply(item=item, body="I am away.")
    follow_up = make_trigger(item, "follow_up")
    assert why_not_send(item, written(item, follow_up, draft_seconds=-1, mail_seconds=-1)) == ""


def test_an_old_draft_of_another_occasion_or_for_the_item_says_nothing(item: Item) -> None:
    run = make_agent_run(item, "researcher", status="done")
    research = make_output(item, "research", agent_run=run)
    first = written(item, None, draft_seconds=60, mail_seconds=60)
    record_reply(item=item, body="I am away.")
    email = written(item, make_trigger(item, "follow_up"), draft_seconds=-1, mail_seconds=-1)
    email.made_from += [research.pk, first.pk]
    email.save()
    assert why_not_send(item, email) == ""


def test_an_answer_is_not_kept_back_by_the_reply_it_answers(item: Item) -> None:
    reply = record_reply(item=item, body="Tell me more.")
    email = written(item, reply, draft_seconds=60, mail_seconds=60)
    assert why_not_send(item, email) == ""
    record_reply(item=item, body="No, do not.")
    assert why_not_send(item, email) == REPLIED


def test_what_a_person_wrote_after_the_reply_may_be_sent(item: Item) -> None:
    email = written(item, None, draft_seconds=60, mail_seconds=60)
    record_reply(item=item, body="Tell me more.")
    Output.objects.filter(pk=email.pk).update(is_current=False)
    edited = make_output(item, "email", origin="edited", made_from=email.made_from, number=2)
    assert why_not_send(item, edited) == ""


def test_what_goes_to_the_crm_heeds_neither_list_nor_replies(item: Item) -> None:
    update = make_output(item, "crm_update", trigger=make_trigger(item, "decision"))
    record_reply(item=item, body="Stop, please.")
    Item.objects.update(tags=["suppressed"])
    assert why_not_send(Item.objects.get(pk=item.pk), update) == ""
