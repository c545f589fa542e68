"""What the verdict rests on, read from the database: every fault is seen, and only what a person may see."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from django_q.models import OrmQ
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agents.models import Department, Installation, ModelState
from agents.statements import Statement
from runs import departures, traffic_signs
from runs.models import AgentRun, Alert, Channel, Item, LogEntry, ModelCall, OutboxMessage, ShiftSlot
from runs.signs import read_signs
from runs.verdict import FAILING_CALLS, FRESH, CallSigns, Line, Verdict, judge
from tests import factories

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def one_shift(settings: Any) -> None:
    settings.SHIFTS = 1


@pytest.fixture
def desk() -> Department:
    """A department of which everything is known, and all is well."""
    department = factories.make_department()
    now = timezone.now()
    ShiftSlot.objects.create(number=1, token=uuid4(), worker="host:1", started_at=now, heartbeat_at=now)
    item = factories.make_lead(department).item
    run = factories.make_agent_run(item, "intake", status="done")
    factories.make_model_call(run, ended_at=now)
    Channel.objects.create(department=department, kind="email")
    factories.make_outbox(item, status="sent", sent_at=now, ended_at=now, channel="email")
    return department


def verdict_of(department: Department) -> Verdict:
    """The verdict now."""
    return judge(read_signs([department], Installation.read(), now=timezone.now()))


def line_of(department: Department, part: str) -> Line:
    """One line of it."""
    return next(line for line in verdict_of(department).lines if line.part == part)


def test_a_desk_that_is_well_is_said_to_be_well(desk: Department) -> None:
    assert verdict_of(desk).headline == "Kontor, the model, the mail and the database are well."


def _silent(desk: Department) -> None:
    ShiftSlot.objects.update(heartbeat_at=timezone.now() - timedelta(minutes=2))


def _stuck_task(desk: Department) -> None:
    OrmQ.objects.create(key="kontor", payload="x", lock=timezone.now() - timedelta(minutes=1))


def _waiting_item(desk: Department) -> None:
    Item.objects.update(route_due_at=timezone.now() - timedelta(minutes=5))


def _lost_step(desk: Department) -> None:
    item = factories.make_lead(desk, name="Otto", email="otto@example.com").item
    factories.make_agent_run(item, status="running", lease_expires_at=timezone.now() - timedelta(minutes=2))


def _stopped(desk: Department) -> None:
    Department.objects.filter(pk=desk.pk).update(state="stopped", state_since=timezone.now())


def _refused_key(desk: Department) -> None:
    Department.objects.filter(pk=desk.pk).update(
        stopped_by_error="Invalid key.", next_probe_at=timezone.now() + timedelta(seconds=30)
    )


def _breaker(desk: Department) -> None:
    until = timezone.now() + timedelta(seconds=25)
    ModelState.objects.create(model="claude-x", breaker="open", closed_until=until, reason="Server error.")


def _busy(desk: Department) -> None:
    until = timezone.now() + timedelta(seconds=25)
    ModelState.objects.create(model="claude-x", closed_until=until, reason="429.")


def _failing_calls(desk: Department) -> None:
    run = AgentRun.objects.first()
    assert run is not None
    for number in range(2, 9):
        factories.make_model_call(run, number=number, cause="timeout", error="Slow.", ended_at=timezone.now())


def _unfit_answers(desk: Department) -> None:
    """The API has answered each, so that the calls name no cause."""
    run = factories.make_agent_run(factories.make_lead(desk).item, "writer", status="failed", cause="invalid")
    for number in range(1, 7):
        factories.make_model_call(run, number=number, error="subject: Field required", ended_at=timezone.now())


def _alert(key: str, text: str) -> Callable[[Department], None]:
    def make(desk: Department) -> None:
        now = timezone.now()
        Alert.objects.create(department=desk, key=key, kind="system", text=text, first_at=now, last_at=now)

    return make


def _pending(**fields: Any) -> Callable[[Department], None]:
    def make(desk: Department) -> None:
        item = factories.make_lead(desk, name="Otto", email="otto@example.com").item
        factories.make_outbox(item, **fields)

    return make


def _late(**fields: Any) -> dict[str, Any]:
    return {"status": "pending", "release_at": timezone.now() - timedelta(minutes=10), **fields}


def _holding(desk: Department) -> None:
    Department.objects.filter(pk=desk.pk).update(state="holding_sends", state_reason="Numbers look odd.")


@pytest.mark.parametrize(
    ("fault", "part", "section", "says"),
    [
        (_silent, "us", "no-worker-is-at-work", "no worker is at work."),
        (_stuck_task, "us", "the-queue-stands-still", "nobody fetches it"),
        (_waiting_item, "us", "items-wait-too-long", "items wait"),
        (_lost_step, "us", "lost-steps-are-not-recovered", "1 lost step"),
        (_stopped, "us", "somebody-has-switched-it-off", "Sales"),
        (_alert("undecided:KeyError", "Items cannot be decided on."), "us", "items-cannot-be-decided-on", "cannot be"),
        (_refused_key, "model", "the-line-stands-still", "Invalid key."),
        (_breaker, "model", "the-breaker-is-open", "claude-x is not working. Server error."),
        (_busy, "model", "the-model-is-busy", "claude-x takes no calls for a moment. 429."),
        (_failing_calls, "model", "model-calls-fail", "7 of the last 8 calls failed, most of them for: no answer"),
        (
            *(_unfit_answers, "model", "cause-answer-does-not-fit-the-schema"),
            "failed, most of them for: answer does not fit the schema",
        ),
        (_holding, "mail", "sending-is-held", "Numbers look odd."),
        (_alert("channel:email", "Nothing can leave."), "mail", "a-channel-does-not-work", "Nothing can leave."),
        (_alert("unusual_sends", "9 of 20 came back."), "mail", "unusual-sends", "9 of 20 came back."),
        (_pending(**_late(error="450 later", waiting_for="450 later")), "mail", "the-mail-server-refuses", "450 later"),
        (_pending(**_late()), "mail", "nobody-sends-what-is-due", "1 message due"),
        (_pending(status="unknown"), "mail", "a-send-is-unsure", "1 message may"),
    ],
)
def test_each_fault_is_seen_in_its_line_alone(
    desk: Department, fault: Callable[[Department], None], part: str, section: str, says: str
) -> None:
    fault(desk)
    desk.refresh_from_db()
    verdict = verdict_of(desk)
    troubled = [line for line in verdict.lines if line.state in ("warning", "bad")]
    assert [line.part for line in troubled] == [part]
    assert troubled[0].section == section
    assert says in troubled[0].says


def test_an_alert_says_since_when_a_breaker_is_open(desk: Department) -> None:
    _breaker(desk)
    since = timezone.now() - timedelta(minutes=40)
    Alert.objects.create(
        department=desk, key="breaker:claude-x", kind="breaker", text="x", first_at=since, last_at=since
    )
    assert line_of(desk, "model").since == since


def test_a_model_that_no_step_asks_for_is_not_said_to_be_tried_now(desk: Department) -> None:
    _breaker(desk)
    now = timezone.now()
    for closed_until, state, says in (
        (now + timedelta(minutes=3), "bad", "claude-x is not working."),
        (now - timedelta(minutes=3), "warning", "claude-x was not working when it was tried last."),
    ):
        ModelState.objects.update(closed_until=closed_until)
        line = line_of(desk, "model")
        assert (line.state, line.next_at) == (state, closed_until if state == "bad" else None)
        assert line.says.startswith(says)


def test_since_when_mail_is_refused_is_read_from_the_log(desk: Department) -> None:
    item = factories.make_lead(desk).item
    other = factories.make_outbox(item, status="sending")
    message = factories.make_outbox(item, status="sending", key="follow-up", purpose="follow-up", output=other.output)
    factories.make_log_entry(item, kind="outbox", level="warning", text="Not sent again: the follow-up was sent.")
    later = timezone.now() + timedelta(minutes=5)
    assert departures.put_back(other, why="451 busy", until=later)
    OutboxMessage.objects.filter(pk=other.pk).update(status="sent", error="", sent_at=timezone.now())
    OutboxMessage.objects.filter(pk=message.pk).update(status="pending", error="450 later", waiting_for="450 later")
    assert line_of(desk, "mail").since is None
    for _ in range(2):
        message.status = OutboxMessage.Status.SENDING
        message.save()
        assert departures.put_back(message, why="450 later", until=later)
    line = line_of(desk, "mail")
    assert line.since == LogEntry.objects.filter(item=item, text__contains="450 later").order_by("pk")[0].at
    assert line.says.startswith("1 message could not be handed over. 450 later.")


def test_nothing_measured_is_not_well() -> None:
    fresh = factories.make_department()
    lines = {line.part: line for line in verdict_of(fresh).lines}
    assert lines["us"].says == "no worker was ever at work here."
    assert lines["model"].says == "no call was ever made."
    assert lines["mail"].says == "no channel is entered and switched on, so nothing can leave."
    assert lines["model"].state == lines["mail"].state == "unknown"


def test_trouble_of_another_department_is_not_told(desk: Department) -> None:
    other = factories.make_department(slug="other", api_key_env="OTHER_KEY")
    Department.objects.filter(pk=other.pk).update(stopped_by_error="Invalid key.")
    ModelState.objects.create(model="claude-x", api_key_env="OTHER_KEY", breaker="open")
    _alert("channel:email", "Secret.")(other)
    factories.make_outbox(factories.make_lead(other).item, status="unknown")
    assert not verdict_of(desk).is_trouble


def test_calls_of_another_department_say_nothing_of_ours(desk: Department) -> None:
    ModelCall.objects.all().delete()
    other = factories.make_department(slug="other")
    run = factories.make_agent_run(factories.make_lead(other).item, "intake", status="done")
    factories.make_model_call(run, ended_at=timezone.now())
    assert line_of(desk, "model").says == "no call was ever made."


def test_calls_fail_since_the_first_that_failed_after_the_last_answer(desk: Department) -> None:
    now = timezone.now()
    ModelCall.objects.all().delete()
    for minutes, cause in [(9, "timeout"), (8, ""), *((7 - n, "timeout") for n in range(6))]:
        _call(desk, now - timedelta(minutes=minutes), cause)
    signs = traffic_signs.read_calls([desk.pk], now=now)
    assert (signs.ended, signs.failed) == (8, 7)
    assert signs.last_good_at == now - timedelta(minutes=8)
    assert signs.failing_since == now - timedelta(minutes=7)
    assert signs.last_at == now - timedelta(minutes=2)
    _call(desk, now)
    assert traffic_signs.read_calls([desk.pk], now=now).failing_since == now - timedelta(minutes=9)


def test_nothing_is_answered_for_longer_than_what_is_recent(desk: Department) -> None:
    """The first of the failures in a row is found, though it is hours old; while some are answered, the recent one."""
    now = timezone.now()
    ModelCall.objects.all().delete()
    for minutes in [200, 150, 20, 7, 6, 5, 3, 1]:
        _call(desk, now - timedelta(minutes=minutes), "timeout")
    assert traffic_signs.read_calls([desk.pk], now=now).failing_since == now - timedelta(minutes=200)
    _call(desk, now - timedelta(minutes=4))
    assert traffic_signs.read_calls([desk.pk], now=now).failing_since == now - timedelta(minutes=7)


def _call(department: Department, ended_at: datetime, cause: str = "") -> None:
    """A call that took five seconds."""
    run = AgentRun.objects.filter(department=department).first() or factories.make_agent_run(
        factories.make_lead(department).item, "writer"
    )
    factories.make_model_call(run, cause=cause, started_at=ended_at - timedelta(seconds=5), ended_at=ended_at)


@pytest.fixture
def few_looked_at(monkeypatch: pytest.MonkeyPatch) -> int:
    """How many of the newest calls are looked at."""
    monkeypatch.setattr(traffic_signs, "RECENT_CALLS", 6)
    monkeypatch.setattr(traffic_signs, "_BEGINS", Statement(traffic_signs._begins))
    return 6


def test_failures_are_seen_behind_ids_of_no_call_and_calls_of_others(desk: Department, few_looked_at: int) -> None:
    """Ids that a rollback has burnt, other departments, and calls under way take no call of ours out of sight."""
    ModelCall.objects.all().delete()
    now, other = timezone.now(), factories.make_department(slug="other")
    ours, theirs, under_way = (
        factories.make_agent_run(factories.make_lead(one).item, "writer") for one in (desk, other, desk)
    )
    for number in range(1, few_looked_at + 1):
        pk = number * 1_000
        factories.make_model_call(ours, pk=pk, number=number, cause="timeout", ended_at=now)
        factories.make_model_call(theirs, number=number, ended_at=now)
    for number in range(1, few_looked_at + 1):
        factories.make_model_call(under_way, number=number, status="started", ended_at=None, started_at=now)
    assert "6 of the last 6 calls failed" in line_of(desk, "model").says


def _calls(department: Department, minutes: Iterable[float], cause: str = "") -> None:
    """Calls that ended so many minutes ago."""
    for ago in minutes:
        _call(department, timezone.now() - timedelta(minutes=ago), cause)


def test_a_busy_department_does_not_hide_a_small_one_whose_calls_all_fail(desk: Department, few_looked_at: int) -> None:
    ModelCall.objects.all().delete()
    small = factories.make_department(slug="small", name="Support", api_key_env="SMALL_KEY")
    _calls(desk, [0.1] * few_looked_at * 4)
    _calls(small, [9.5, 9.4, 9.3, 9.2, 9.1], cause="account")
    verdict = judge(read_signs([desk, small], Installation.read(), now=timezone.now()))
    line = next(line for line in verdict.lines if line.part == "model")
    assert line.says.startswith("5 of the last 5 calls of Support failed, most of them for: ")
    assert line.state == "warning"
    # One department alone is the one that is shown, so it is not named.
    assert line_of(small, "model").says.startswith("5 of the last 5 calls failed")
    assert line_of(desk, "model").says == "the last calls were answered."


def test_the_department_whose_calls_fail_most_speaks_and_counts_the_others(desk: Department) -> None:
    ModelCall.objects.all().delete()
    worst, other = (factories.make_department(slug=slug, name=slug.title()) for slug in ("worst", "other"))
    _calls(desk, [1] * 30)
    _calls(worst, [2] * 5, cause="timeout")
    _calls(other, [3] * 7, cause="timeout")
    _calls(other, [3])
    signs = traffic_signs.read_calls([desk.pk, worst.pk, other.pk], now=timezone.now())
    assert (signs.department, signs.ended, signs.failed, signs.others) == ("Worst", 5, 5, 1)


def test_a_few_failures_in_each_of_several_departments_add_up(desk: Department) -> None:
    ModelCall.objects.all().delete()
    other = factories.make_department(slug="other")
    _calls(desk, [30, 20, 2, 1], cause="timeout")
    _calls(other, [40, 4, 3, 2], cause="timeout")
    now = timezone.now()
    signs = traffic_signs.read_calls([desk.pk, other.pk], now=now)
    assert (signs.department, signs.ended, signs.failed, signs.is_failing) == ("", 5, 5, True)
    assert signs.failing_since is not None
    assert round((now - signs.failing_since) / timedelta(minutes=1)) == 40


def test_an_outage_is_told_from_its_begin_behind_all_that_is_looked_at(desk: Department, few_looked_at: int) -> None:
    ModelCall.objects.all().delete()
    minutes = [400, 390, *range(1, few_looked_at * 3)]
    _calls(desk, minutes, cause="timeout")
    _calls(desk, [395])
    signs = traffic_signs.read_calls([desk.pk], now=timezone.now())
    first = ModelCall.objects.filter(ended_at__gt=timezone.now() - timedelta(minutes=392)).order_by("ended_at").first()
    assert first is not None
    assert (signs.ended, signs.failing_since) == (few_looked_at, first.ended_at)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    calls=st.lists(
        st.tuples(
            st.integers(0, 40), st.integers(1, 300), st.sampled_from(["", "", "timeout", "invalid"]), st.integers(0, 2)
        ),
        max_size=24,
    )
)
def test_what_is_known_of_calls_equals_what_a_look_at_all_of_them_finds(
    desk: Department, few_looked_at: int, calls: list[tuple[int, int, str, int]]
) -> None:
    """``calls``: minutes since they ended, seconds they took, cause, whose; several departments at once."""
    now = timezone.now()
    with transaction.atomic():
        ModelCall.objects.all().delete()
        others = [Department.objects.filter(slug=slug).first() or factories.make_department(slug=slug) for slug in "ab"]
        runs = [factories.make_agent_run(factories.make_lead(one).item, "writer") for one in (desk, *others)]
        for number, (minutes, seconds, cause, whose) in enumerate(calls):
            ended_at = now - timedelta(minutes=minutes, microseconds=number)
            values = {"cause": cause, "ended_at": ended_at, "started_at": ended_at - timedelta(seconds=seconds)}
            factories.make_model_call(runs[whose], number=number, **values)
        pks = [run.department_id for run in runs]
        for ids in ([pks[0]], pks[:2], pks):
            signs = traffic_signs.read_calls(ids, now=now)
            every = {pk: list(ModelCall.objects.filter(department=pk).order_by("started_at")) for pk in ids}
            _check(signs, every, few_looked_at, now - FRESH)
        transaction.set_rollback(True)


def _check(signs: CallSigns, every: dict[int, list[ModelCall]], most: int, fresh: datetime) -> None:
    """``every``: all calls of each department in the order in which they began."""
    seen = {pk: calls[max(len(calls) - most, 0) :] for pk, calls in every.items()}
    counts = {pk: _counted(calls, fresh) for pk, calls in seen.items()}
    failing = {pk: (bad / ended, bad) for pk, (ended, bad) in counts.items() if bad >= 5 and bad / ended >= 0.2}
    worst = [pk for pk, share in failing.items() if share == max(failing.values())]
    # Of two that are as bad either may speak.
    whose = [[pk] for pk in worst] if failing else [list(every)]
    assert signs.others == max(len(failing) - 1, 0)
    assert signs in [_expected(seen, every, pks, fresh, signs) for pks in whose]


def _counted(calls: Sequence[ModelCall], fresh: datetime) -> tuple[int, int]:
    recent = [call for call in calls if _end(call) > fresh]
    return len(recent), sum(bool(call.cause) for call in recent)


def _end(call: ModelCall) -> datetime:
    assert call.ended_at is not None
    return call.ended_at


def _expected(
    seen: dict[int, list[ModelCall]], every: dict[int, list[ModelCall]], pks: list[int], fresh: datetime, signs: Any
) -> CallSigns:
    """What is to be known of these departments' calls."""
    calls = [call for pk in pks for call in seen[pk]]
    ended, failed = _counted(calls, fresh)
    since = min((_end(call) for call in calls if call.cause and _end(call) > fresh), default=None)
    if failed >= 5 and failed / ended >= 0.2:
        began = sorted((call for pk in pks for call in every[pk]), key=lambda call: call.started_at)
        good = [number for number, call in enumerate(began) if not call.cause]
        in_a_row = began[max(good, default=-1) + 1 :]
        since = _end(in_a_row[0]) if len(in_a_row) >= FAILING_CALLS else since
    return CallSigns(
        last_at=max(map(_end, calls), default=None),
        last_good_at=max((_end(call) for call in calls if not call.cause), default=None),
        ended=ended,
        failed=failed,
        causes=signs.causes,
        failing_since=since,
        department=calls[0].department.name if len(every) > 1 and len(pks) == 1 else "",
        others=signs.others,
    )


def test_the_number_of_queries_does_not_grow(desk: Department) -> None:
    read_signs([desk], Installation(), now=timezone.now())
    with CaptureQueriesContext(
        connection,
    ) as few:
        read_signs([desk], Installation(), now=timezone.now())
    departments = [desk]
    for number in range(4):
        department = factories.make_department(slug=f"more-{number}")
        departments.append(department)
        Channel.objects.create(department=department, kind="email")
        _pending(status="unknown")(department)
        _alert("channel:email", "x")(department)
    assert OutboxMessage.objects.filter(status="unknown").count() == 4
    with CaptureQueriesContext(connection) as many:
        read_signs(departments, Installation(), now=timezone.now())
    assert len(many) == len(few)
