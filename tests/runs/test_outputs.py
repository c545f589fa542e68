"""Replacing an output: what goes with it, what stays, and what has left the house."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import transaction

from agents.causes import Cause
from agents.models import Department
from runs import outputs
from runs.commits import commit, lock_items
from runs.database import now as database_now
from runs.models import AgentRun, Item, LogEntry, ModelCall, Output, Review, Trigger
from runs.outputs import Replacement, plan_replacement, replace
from runs.staff import Desk, load_staff
from tests.engine import (
    answered,
    assert_accounts_agree,
    broken_off,
    claim,
    in_threads,
    keys_of,
    make_office,
    run_of,
)
from tests.factories import (
    PAYLOADS,
    make_agent_run,
    make_lead,
    make_message,
    make_outbox,
    make_output,
    make_review,
    make_trigger,
    make_user,
)

pytestmark = pytest.mark.django_db
WRITERS = {
    "intake": "intake",
    "qualification": "qualifier",
    "research": "researcher",
    "strategy": "strategist",
    "draft": "writer",
    "fact_check": "fact_checker",
    "email": "formatter",
}
BY_PERSON = {"origin": Output.Origin.INJECTED}


@pytest.fixture(autouse=True)
def office() -> Department:
    return make_office()


@pytest.fixture
def item() -> Item:
    return make_lead().item


def made(item: Item, key: str, trigger: Trigger | None = None, agent: str = "", **fields: Any) -> Output:
    """An output with the done run of the agent that wrote it."""
    run = make_agent_run(item, agent or WRITERS[key], status="done", trigger=trigger)
    return make_output(item, key, trigger=trigger, agent_run=run, **fields)


def made_all(item: Item) -> dict[str, Output]:
    """Everything up to the first mail."""
    return {key: made(item, key) for key in WRITERS}


def desk_of(item: Item) -> Desk:
    return load_staff().desks[item.department_id]


def plan(item: Item, key: str, trigger: Trigger | None = None) -> Replacement:
    return plan_replacement(item, desk_of(item), key, trigger.pk if trigger else None)


def do_replace(
    item: Item, key: str, trigger: Trigger | None = None, *, author: User | None = None, **options: Any
) -> tuple[Output | None, list[LogEntry]]:
    """Plan and carry out, as a service does under the item's lock."""
    locked = lock_items({item.pk})[item.pk]
    desk = desk_of(locked)
    found = plan_replacement(locked, desk, key, trigger.pk if trigger else None)
    options.setdefault("why", "Because.")
    return replace(found, locked, desk, now=database_now(), author=author, **options)


def keys(rows: list[Output]) -> set[str]:
    return {row.key for row in rows}


# --- The plan -------------------------------------------------------------------------------------------------


def test_everything_made_from_it_goes_through_needs_and_uses(item: Item) -> None:
    made_all(item)
    found = plan(item, "research")
    assert found.replaced is not None
    assert found.replaced.key == "research"
    # The strategist uses it, the writer and the fact-checker too, the formatter needs what the writer wrote.
    assert keys(found.retired) == {"strategy", "draft", "fact_check", "email"}
    assert (found.stale, found.sent, found.active, found.failed) == ([], [], [], [])
    assert not found.has_left


def test_what_comes_last_takes_nothing_with_it(item: Item) -> None:
    made_all(item)
    found = plan(item, "email")
    assert (keys(found.outputs), found.retired) == ({"email"}, [])


def test_it_goes_over_to_what_was_made_for_occasions(item: Item) -> None:
    made_all(item)
    follow_up = make_trigger(item, "follow_up", status="handled")
    made(item, "draft", follow_up, "followup_writer")
    made(item, "email", follow_up)
    found = plan(item, "strategy")
    assert {(row.key, row.trigger_id) for row in found.retired} == {
        ("draft", None),
        ("fact_check", None),
        ("email", None),
        ("draft", follow_up.pk),
        ("email", follow_up.pk),
    }
    assert found.occasions == {follow_up.pk}


def test_what_one_occasion_brought_does_not_touch_another(item: Item) -> None:
    made_all(item)
    reply = make_trigger(item, "reply", status="handled")
    made(item, "draft", reply, "reply_handler")
    made(item, "email", reply)
    found = plan(item, "draft", reply)
    assert {(row.key, row.trigger_id) for row in found.outputs} == {("draft", reply.pk), ("email", reply.pk)}


def test_what_a_person_wrote_stays_marked_and_passes_nothing_on(item: Item) -> None:
    made(item, "strategy")
    mine = make_output(item, "draft", **BY_PERSON)
    made(item, "fact_check")
    found = plan(item, "strategy")
    assert found.stale == [mine]
    assert found.retired == [], "the check is one of the draft, which stays"


def test_what_a_person_wrote_for_an_occasion_is_judged_by_the_agent_of_that_occasion(item: Item) -> None:
    # The reply handler does not read the strategy, whoever writes drafts for other occasions.
    made(item, "strategy")
    reply = make_trigger(item, "reply")
    follow_up = make_trigger(item, "follow_up")
    make_output(item, "draft", trigger=reply, **BY_PERSON)
    planned = make_output(item, "draft", trigger=follow_up, **BY_PERSON)
    assert plan(item, "strategy").stale == [planned]


@pytest.mark.parametrize("how", ["message", "sending", "sent", "unknown"])
def test_what_has_left_the_house_stays(item: Item, how: str) -> None:
    rows = made_all(item)
    if how == "message":
        make_message(item, "out", output=rows["email"])
    else:
        make_outbox(item, output=rows["email"], status=how)
    found = plan(item, "draft")
    assert keys(found.retired) == {"fact_check"}
    assert found.sent == [rows["email"]]
    assert plan(item, "email").has_left


def test_what_a_sent_mail_was_made_from_stays_with_it_and_what_serves_other_mails_is_made_again(item: Item) -> None:
    rows = made_all(item)
    chain = {"draft": ["strategy"], "fact_check": ["draft"], "email": ["draft", "fact_check"]}
    for key, sources in chain.items():
        rows[key].made_from = [rows[source].pk for source in sources]
        rows[key].save(update_fields=["made_from"])
    make_message(item, "out", output=rows["email"])
    reply = make_trigger(item, "reply")
    answer = made(item, "draft", reply, agent="reply_handler")
    found = plan(item, "qualification")
    # The first mail is over. The strategy serves later ones, and the answer to the reply has not been sent.
    assert found.sent == [rows["email"]]
    assert not {rows["draft"].pk, rows["fact_check"].pk} & {output.pk for output in found.retired}
    assert "strategy" in keys(found.retired)
    assert answer in found.retired
    assert found.occasions == {reply.pk}


@pytest.mark.parametrize("status", ["pending", "failed", "withdrawn"])
def test_what_has_not_left_does_not_count_as_sent(item: Item, status: str) -> None:
    rows = made_all(item)
    make_outbox(item, output=rows["email"], status=status)
    found = plan(item, "email")
    assert (found.has_left, found.sent) == (False, [])


def test_runs_at_work_on_it_or_from_it_end(item: Item) -> None:
    made(item, "research")
    working = make_agent_run(item, "strategist", status="running")
    waiting = make_agent_run(item, "writer")
    failed = make_agent_run(item, "fact_checker", status="failed")
    apart = make_agent_run(item, "intake", status="running")
    found = plan(item, "research")
    assert (found.active, found.failed) == ([working, waiting], [failed])
    assert apart not in found.runs


def test_a_plan_changes_nothing(item: Item) -> None:
    made_all(item)
    before = list(Output.objects.values_list("pk", "is_current", "is_stale"))
    plan(item, "intake")
    assert list(Output.objects.values_list("pk", "is_current", "is_stale")) == before


# --- Carrying it out ------------------------------------------------------------------------------------------


def test_a_persons_output_takes_the_place_and_knows_what_it_replaced(item: Item) -> None:
    rows, user = made_all(item), make_user("olga")
    payload = {**PAYLOADS["qualification"], "score": 50, "tier": "Warm"}
    output, entries = do_replace(item, "qualification", author=user, payload=payload, origin=Output.Origin.EDITED)
    assert output is not None
    output.refresh_from_db()
    assert (output.number, output.replaces, output.author, output.origin) == (2, rows["qualification"], user, "edited")
    assert output.facets == {"tier": "Warm", "score": 50}
    assert output.schema_version not in ("", "1")
    assert keys_of(item) == {("intake", "item"), ("qualification", "item")}
    old = Output.objects.get(pk=rows["research"].pk)
    assert (old.is_current, old.retired_why) == (False, "Because.")
    item.refresh_from_db()
    assert item.route_due_at is not None
    texts = [entry.text for entry in entries]
    assert any("olga wrote qualification 2" in text for text in texts)
    assert any("research" in text and "No longer current" in text for text in texts)


def test_without_a_payload_the_place_is_empty(item: Item) -> None:
    made_all(item)
    output, _ = do_replace(item, "draft")
    assert output is None
    assert {key for key, _ in keys_of(item)} == {"intake", "qualification", "research", "strategy"}


def test_an_output_that_was_never_there_can_be_entered(item: Item) -> None:
    output, _ = do_replace(item, "research", payload=PAYLOADS["research"])
    assert output is not None
    assert (output.number, output.replaces, output.made_from) == (1, None, [])
    assert keys_of(item) == {("research", "item")}


def test_numbers_go_on_over_retired_ones_and_occasions(item: Item) -> None:
    reply = make_trigger(item, "reply")
    made(item, "draft", is_current=False, number=1)
    made(item, "draft", reply, "reply_handler", number=2)
    output, _ = do_replace(item, "draft", payload=PAYLOADS["draft"])
    assert output is not None
    assert output.number == 3


def test_a_key_nobody_writes_for_the_occasion_is_refused(item: Item) -> None:
    with pytest.raises(LookupError, match="crm_update"):
        do_replace(item, "crm_update", payload=PAYLOADS["crm_update"])


def test_persons_outputs_are_marked_stale_and_stay_current(item: Item) -> None:
    made(item, "strategy")
    mine = make_output(item, "draft", **BY_PERSON)
    do_replace(item, "strategy")
    mine.refresh_from_db()
    assert (mine.is_current, mine.is_stale) == (True, True)


def test_what_was_sent_is_left_as_it_was(item: Item) -> None:
    rows = made_all(item)
    make_message(item, "out", output=rows["email"])
    do_replace(item, "draft")
    sent = Output.objects.get(pk=rows["email"].pk)
    assert (sent.is_current, sent.is_stale, sent.retired_why) == (True, False, "")


def test_questions_about_what_goes_are_withdrawn_and_others_stay(item: Item) -> None:
    rows = made_all(item)
    asked = make_review(item, output=rows["email"])
    about_intake = make_review(item, output=rows["intake"], kind="low_confidence")
    do_replace(item, "draft")
    asked.refresh_from_db()
    about_intake.refresh_from_db()
    assert (asked.status, asked.answer_note, about_intake.status) == ("withdrawn", "Because.", "open")


def test_what_waits_to_be_sent_is_withdrawn_with_its_reason(item: Item) -> None:
    rows = made_all(item)
    message = make_outbox(item, output=rows["email"], waiting_for="It is night there.")
    do_replace(item, "research")
    message.refresh_from_db()
    assert (message.status, message.reason, message.waiting_for) == ("withdrawn", "Because.", "")


def test_handled_triggers_are_open_again_and_noted_ones_stay_noted(item: Item) -> None:
    made(item, "strategy")
    handled = make_trigger(item, "follow_up", status="handled", settled_note="settled")
    noted = make_trigger(item, "follow_up", status="noted")
    for trigger in (handled, noted):
        made(item, "draft", trigger, "followup_writer")
    do_replace(item, "strategy")
    handled.refresh_from_db()
    noted.refresh_from_db()
    assert (handled.status, handled.settled_at, handled.settled_note) == ("open", None, "")
    assert noted.status == "noted"


def failed_formatter(item: Item) -> AgentRun:
    """A formatter that has failed for good, as commits write it down."""
    run = make_agent_run(item, "formatter")
    work = next(work for work in claim() if work.run_id == run.pk)
    commit([broken_off(work, Cause.REQUEST)], load_staff())
    return run_of(work)


def test_failures_of_what_is_to_be_made_again_are_cleared(item: Item) -> None:
    made(item, "draft")
    failed = failed_formatter(item)
    assert failed.status == "failed"
    item.refresh_from_db()
    assert item.flag
    do_replace(item, "draft")
    failed.refresh_from_db()
    item.refresh_from_db()
    assert (failed.status, item.flag) == ("superseded", "")
    assert not Review.objects.filter(status="open").exists()


def test_a_flag_stays_while_something_else_has_failed(item: Item) -> None:
    Item.objects.filter(pk=item.pk).update(flag="Researcher failed.")
    item.refresh_from_db()
    made(item, "draft")
    make_agent_run(item, "researcher", status="failed")
    make_agent_run(item, "formatter", status="failed")
    do_replace(item, "draft")
    item.refresh_from_db()
    assert item.flag == "Researcher failed."


def test_a_run_whose_input_goes_loses_its_token_and_leaves_only_its_cost(item: Item) -> None:
    made(item, "draft")
    run = make_agent_run(item, "formatter")
    work = next(work for work in claim() if work.run_id == run.pk)
    do_replace(item, "draft", why="olga wrote another draft.")
    run.refresh_from_db()
    assert (run.status, run.lease_token, run.error) == ("cancelled", None, "olga wrote another draft.")
    call = ModelCall.objects.get(agent_run=run)
    assert (call.status, call.is_estimate, call.cost_usd) == ("unseen", True, call.reserved_usd)
    assert call.error == "olga wrote another draft."
    commit([answered(work)], load_staff())
    assert not Output.objects.filter(item=item, key="email").exists()
    call.refresh_from_db()
    run.refresh_from_db()
    assert (call.status, call.is_estimate, run.status) == ("finished", False, "cancelled")
    assert 0 < call.cost_usd < call.reserved_usd
    assert_accounts_agree()


def test_a_queued_run_ends_without_a_cost(item: Item) -> None:
    made(item, "draft")
    run = make_agent_run(item, "formatter")
    do_replace(item, "draft")
    run.refresh_from_db()
    assert run.status == "cancelled"
    assert run.cost_usd == 0
    assert not ModelCall.objects.exists()


def test_a_writer_at_work_does_not_overwrite_what_a_person_enters(item: Item) -> None:
    run = make_agent_run(item, "writer")
    work = next(work for work in claim() if work.run_id == run.pk)
    output, _ = do_replace(item, "draft", payload={**PAYLOADS["draft"], "subject": "Mine"})
    commit([answered(work)], load_staff())
    current = Output.objects.get(item=item, key="draft", is_current=True)
    assert (current, current.payload["subject"]) == (output, "Mine")


@pytest.mark.django_db(transaction=True)
def test_of_two_who_replace_at_once_both_are_kept_in_turn(item: Item) -> None:
    made_all(item)

    def write(number: int) -> None:
        with transaction.atomic():
            do_replace(item, "draft", payload={**PAYLOADS["draft"], "subject": f"By {number}"})

    in_threads(write, 4)
    drafts = Output.objects.filter(item=item, key="draft").order_by("number")
    assert [draft.number for draft in drafts] == [1, 2, 3, 4, 5]
    assert [draft.is_current for draft in drafts] == [False] * 4 + [True]
    assert [draft.replaces_id for draft in drafts][1:] == [draft.pk for draft in drafts][:-1]


def test_who_writes_a_key_depends_on_the_occasion(item: Item) -> None:
    spec = desk_of(item).spec
    assert outputs.writer_of(spec, "draft", "reply").slug == "reply_handler"
    assert outputs.writer_of(spec, "draft", "item").slug == "writer"
    with pytest.raises(LookupError):
        outputs.writer_of(spec, "nothing", "item")
