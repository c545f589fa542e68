"""What finished attempts leave behind: one transaction for many of them, in the lock order of the design.

Items first, then agent runs, then budgets, each in id order. Whoever lost the token leaves nothing but its costs.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Collection, Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from django.conf import settings
from django.db import InterfaceError, OperationalError, transaction
from django.db.models import Max, Q, prefetch_related_objects

from agents.causes import Cause
from agents.model_state import Key, load_states, lock_states, record_busy, record_failures, record_successes
from agents.models import Department
from agents.replies import ModelReply
from agents.spec import OutputEvent
from agents.statements import Among, Statement
from runs import dispatch, log, tracing
from runs.budget_waits import hold_moved_budgets
from runs.calls import discard_answers, settle_calls
from runs.database import insert_rows, update_rows
from runs.database import now as database_now
from runs.failure_reviews import open_failure
from runs.failures import BUSY, LINE_STANDS, PROBE_SECONDS, busy_seconds, judge
from runs.gate_alerts import tell_budgets, tell_gates
from runs.gates import lock_departments
from runs.inputs import schema_version
from runs.models import AgentRun, Item, LogEntry, ModelCall, Output
from runs.outputs import cancel_run
from runs.staff import Staff
from runs.wording import field_label, in_words, say_value
from runs.work import Finished, SeenCall

logger = logging.getLogger(__name__)
_spread = random.Random()
# Without the key: who claims a run of the item writes a call of it, and must not wait for us while we wait for the run.
_ITEMS = Statement(lambda: Item.objects.filter(Among("pk", "items")).select_for_update(no_key=True).order_by("pk"))
_HELD = Statement(
    lambda: (
        AgentRun.objects.filter(Among("lease_token", "tokens"), status=AgentRun.Status.RUNNING)
        .select_for_update(of=("self",))
        .order_by("pk")
    )
)
_NEWEST = Statement(
    lambda: (
        Output.objects.filter(Among("item_id", "items"))
        .order_by()
        .values("item_id", "key")
        .annotate(newest=Max("number"))
        .values_list("item_id", "key", "newest")
    )
)
# All that an attempt changes but the costs: the settlement has added to those since the run was read.
_ATTEMPT = [
    *("status", "due_at", "cause", "error", "waiting_for", "waiting_since", "failures", "lost_leases", "trespasses"),
    *("lease_token", "lease_expires_at", "ended_at"),
]


def commit(finished: Sequence[Finished], staff: Staff) -> None:
    """Write down what every attempt brought and route its item again.

    A group that fails is redone one by one, so that one bad result cannot hold up the others. Raises
    OperationalError and InterfaceError: the database is away, and the caller keeps the results.
    """
    if not finished:
        return
    try:
        _commit_group(finished, staff)
    except (OperationalError, InterfaceError):
        raise
    except Exception:
        logger.exception("could not write down agent runs %s together", [one.work.run_id for one in finished])
        for one in finished:
            _commit_alone(one, staff)


def _commit_alone(one: Finished, staff: Staff) -> None:
    """Write down one attempt whose group failed: as much of it as can be, so that nothing is paid for twice.

    In turn: everything; all but the routing, which the item is put off for; a failure of ours instead of the output;
    the same without what the server told, its calls at what they had reserved; at the least what its calls cost, and
    then the run is taken up again when its lease runs out.
    """
    error = ""
    failed = replace(one, payload=None, cause=Cause.INTERNAL)
    for attempt in (one, failed, replace(failed, unsettled=[_untold(seen) for seen in one.unsettled])):
        if attempt is not one:
            attempt.error = error
        undecided = ""
        for _ in range(2):
            try:
                _commit_group([attempt], staff, undecided=undecided)
                return
            except (OperationalError, InterfaceError):
                raise
            except Exception as raised:
                logger.exception("could not write down an agent run", extra=tracing.ids_of(one.work))
                undecided = undecided or f"{type(raised).__name__}: {raised}"
                error = f"{type(raised).__name__}: {raised}"
    settle_apart(one.unsettled, staff)


def settle_apart(seen: Sequence[SeenCall], staff: Staff) -> None:
    """Book what calls cost of whose attempts nothing else is written down. Settling one twice is harmless.

    What cannot be stored of one is left out: it stands at its reservation as soon as its run is taken back.
    """
    try:
        _settle(seen, staff)
    except (OperationalError, InterfaceError):
        raise
    except Exception:
        logger.exception("could not settle the calls %s", [each.call.pk for each in seen])
        if len(seen) > 1:
            for each in seen:
                settle_apart([each], staff)


def _settle(seen: Sequence[SeenCall], staff: Staff) -> None:
    with transaction.atomic():
        # In the order of the design: agent runs, then calls, then budgets.
        runs = AgentRun.objects.filter(pk__in={each.call.run_id for each in seen}).order_by("pk")
        list(runs.select_for_update().values_list("pk"))
        settle_calls(seen, staff, now=database_now())


def _untold(seen: SeenCall) -> SeenCall:
    """A call without what the server told about it, which may be what cannot be stored."""
    return SeenCall(seen.call, ModelReply(cause=Cause.INTERNAL, error="What the server told could not be stored."))


def _commit_group(finished: Sequence[Finished], staff: Staff, *, undecided: str = "") -> None:
    """Everything in one transaction. ``undecided``: why the items cannot be routed; they are put off instead."""
    with tracing.step("commit", agent_runs=len(finished)), transaction.atomic():
        now = database_now()
        items = lock_items({one.work.item_id for one in finished})
        held = {run.lease_token: run for run in _HELD.objects(tokens=[one.work.token for one in finished])}
        prefetch_related_objects([run for run in held.values() if run.trigger_id], "trigger")
        ours = [(one, held[one.work.token]) for one in finished if one.work.token in held]
        entries = _end_replaced([(one, run) for one, run in ours if one.payload is not None], staff, now)
        told = _tell_gates(ours, staff, now)
        refused = [run for one, run in ours if one.waiting_until is not None]
        # Budgets are held before the calls, which the settlement locks.
        moved = hold_moved_budgets({run.department_id: run.started_at for run in refused}) if refused else set()
        settle_calls([seen for one in finished for seen in one.unsettled], staff, now=now)
        if lost := [run.pk for one, run in ours if one.payload is None]:
            discard_answers(ModelCall.objects.filter(agent_run__in=lost))
        done = [(one, run) for one, run in ours if one.payload is not None]
        entries += _end_failed([(one, run) for one, run in ours if one.payload is None], items, moved, now)
        events = _write_outputs(done, items, staff, now)
        entries += _end_done(done, now)
        touched = [items[pk] for pk in sorted({run.item_id for _, run in ours})]
        if undecided:
            entries += dispatch.put_off(touched, staff, undecided, now=now, events=events)
        else:
            entries += dispatch.route(touched, staff, now=now, events=events)
        log.write(told + entries)


def lock_items(item_ids: set[int]) -> dict[int, Item]:
    """The items, locked in id order: the first step of every transaction that changes what the router reads."""
    return {item.pk: item for item in _ITEMS.objects(items=item_ids)}


def fail_run(run: AgentRun, item: Item, cause: Cause, error: str, now: datetime) -> list[LogEntry]:
    """The run has failed for good: it says why, the item is flagged, a person is asked, the chain of command told.

    The item must be locked.

    Returns the log lines, not yet written; the caller routes the item again.
    """
    run.status, run.cause, run.error = AgentRun.Status.FAILED, cause, error
    run.lease_token = run.lease_expires_at = None
    run.waiting_for, run.waiting_since, run.ended_at = "", None, now
    title = run.agent.title
    item.flag = f"{title} failed: {cause.label}."[:300]
    item.route_due_at = now
    item.save(update_fields=["flag", "route_due_at", "changed_at"])
    open_failure(run, item, now)
    run.save(update_fields=[*_ATTEMPT, "incident"])
    text = f"{title} failed for good: {cause.label}. {error}"
    return [log.run_entry(run, "failed", text, at=now, level=LogEntry.Level.ERROR)]


def _end_replaced(done: Sequence[tuple[Finished, AgentRun]], staff: Staff, now: datetime) -> list[LogEntry]:
    """What is written now, no other agent need write: its run waits since the agent was switched off, and would begin
    as soon as somebody switches it on. Before departments and budgets are locked, as who claims a run does."""
    entries = []
    for one, run in done:
        mine, others = one.work.agent, staff.desks[run.department_id].others_who_write(run)
        if not others:
            continue
        rows = AgentRun.objects.filter(item=run.item_id, trigger=run.trigger_id, agent__in=others)
        rows = rows.filter(status=AgentRun.Status.QUEUED).select_related("agent", "department")
        for replaced in rows.select_for_update(of=("self",)).order_by("pk"):
            entries.append(cancel_run(replaced, f"{mine.title} wrote the {in_words(mine.writes)} instead.", now))
    return entries


def _write_outputs(
    done: Sequence[tuple[Finished, AgentRun]], items: dict[int, Item], staff: Staff, now: datetime
) -> list[tuple[Item, Output, OutputEvent]]:
    """Store the outputs and tell what happened to each, for the kind to say what it implies."""
    if not done:
        return []
    newest = {(item_id, key): number for item_id, key, number in _NEWEST.rows(items={run.item_id for _, run in done})}
    outputs, events = [], []
    for one, run in done:
        key = one.work.agent.writes
        number = newest[run.item_id, key] = newest.get((run.item_id, key), 0) + 1
        output = Output(
            item_id=run.item_id,
            key=key,
            trigger_id=run.trigger_id,
            number=number,
            payload=one.payload,
            facets=one.facets,
            schema_version=schema_version(one.work.schema),
            fingerprint=one.work.prepared.fingerprint,
            made_from=list(one.work.prepared.made_from),
            agent_run_id=run.pk,
        )
        outputs.append(output)
        settings_ = staff.desks[run.department_id].department.settings
        events.append((items[run.item_id], output, dispatch.output_event("written", output, run.trigger, settings_)))
    insert_rows(outputs)
    return events


def _end_done(done: Sequence[tuple[Finished, AgentRun]], now: datetime) -> list[LogEntry]:
    update_rows(
        AgentRun,
        ["status", "lease_token", "lease_expires_at", "ended_at", "cause", "error", "waiting_since", "trespasses"],
        [
            (
                run.pk,
                AgentRun.Status.DONE,
                None,
                None,
                now,
                Cause.NONE,
                "",
                None,
                run.trespasses + one.trespasses,
            )
            for one, run in done
        ],
    )
    entries = []
    for one, run in done:
        fields, facets = one.work.schema.model_fields, one.facets.items()
        said = [(field_label(name, fields.get(name)), value) for name, value in facets if value not in ("", None)]
        found = ", ".join(f"{label} {say_value(value)}" for label, value in said)
        text = f"{one.work.agent.title} wrote {in_words(one.work.agent.writes)}{': ' + found if found else ''}."
        entries.append(log.run_entry(run, "output", text, at=now))
    return entries


def _end_failed(
    failed: Sequence[tuple[Finished, AgentRun]], items: dict[int, Item], moved: Collection[int], now: datetime
) -> list[LogEntry]:
    """``moved``: the departments whose budgets have changed since their runs were refused."""
    entries: list[LogEntry] = []
    tell_budgets(
        (run.department_id, one.error)
        for one, run in failed
        if one.waiting_until is not None and run.department_id not in moved
    )
    # Questions about failures are locked by agent and cause: everybody in the same order.
    for one, run in sorted(failed, key=lambda pair: (pair[1].department_id, pair[0].work.agent.slug, pair[0].cause)):
        run.trespasses += one.trespasses
        if one.waiting_until is not None:
            until = now if run.department_id in moved else one.waiting_until
            entries.append(_requeue(run, one, until, one.error, now))
            continue
        verdict = judge(
            one.cause,
            failures=run.failures,
            waiting_since=_waiting_since(run, one.cause, now),
            retry_after_seconds=one.retry_after_seconds,
            cap_seconds=settings.RETRY_AFTER_CAP_SECONDS,
            now=now,
            spread=_spread,
        )
        run.failures += verdict.is_counted
        if verdict.due_at is None:
            entries += fail_run(run, items[run.item_id], one.cause, one.error, now)
        else:
            entries.append(_requeue(run, one, verdict.due_at, verdict.waiting_for, now))
    return entries


def _requeue(run: AgentRun, one: Finished, due_at: datetime, waiting_for: str, now: datetime) -> LogEntry:
    run.status, run.due_at, run.waiting_for = AgentRun.Status.QUEUED, due_at, waiting_for[:300]
    run.waiting_since = _waiting_since(run, one.cause, now)
    run.cause, run.error = one.cause, one.error
    run.lease_token = run.lease_expires_at = None
    run.save(update_fields=_ATTEMPT)
    text = f"{one.work.agent.title}: {one.error or one.cause.label} {waiting_for}"
    return log.run_entry(run, "waiting", text, at=now, level=LogEntry.Level.WARNING)


def _waiting_since(run: AgentRun, cause: Cause, now: datetime) -> datetime:
    """Since when it waits for what it waits for: another reason begins anew."""
    is_same = run.cause == cause or {run.cause, cause} <= BUSY
    return run.waiting_since if run.waiting_since and is_same else now


def _tell_gates(ours: Sequence[tuple[Finished, AgentRun]], staff: Staff, now: datetime) -> list[LogEntry]:
    """What these attempts say about keys and models, for all workers. Before budgets are locked, as in claims."""
    done = [one for one, _ in ours if one.payload is not None]
    busy = {_key(one): one for one, _ in ours if one.cause in BUSY}
    broken = [one for one, _ in ours if one.cause in (Cause.TRANSIENT, Cause.TIMEOUT)]
    stopped = {one.work.api_key_env: one.error for one, _ in ours if one.cause is Cause.ACCOUNT}
    reopened = _move_lines(done, stopped, staff, now)
    if concerned := {*busy, *map(_key, broken)}:
        lock_states(concerned | set(load_states(set(map(_key, done)))))
    for key, one in busy.items():
        until = now + timedelta(seconds=busy_seconds(one.retry_after_seconds, settings.RETRY_AFTER_CAP_SECONDS))
        record_busy(key, until=until, reason=f"{one.cause.label}: {one.error}", now=now)
    changes = record_successes([_key(one) for one in done])
    if changes:
        # Whoever waited for the model need not sit out its pause.
        models = Q()
        for change in changes:
            models |= Q(waiting_for__startswith=f"{change.model} takes no calls")
        _wake(models, now)
    if broken:
        changes += record_failures([_key(one) for one in broken], f"{broken[-1].cause.label}: {broken[-1].error}", now)
    if changes or stopped or reopened:
        tell_gates(changes=changes, stopped=stopped, reopened=reopened)
    return [
        LogEntry(
            kind="breaker",
            level=LogEntry.Level.WARNING if change.is_opening else LogEntry.Level.INFO,
            text=change.text,
            data={"model": change.model, "api_key_env": change.api_key_env},
            at=now,
        )
        for change in changes
    ]


def _key(one: Finished) -> Key:
    return one.work.model, one.work.api_key_env


def _move_lines(done: Sequence[Finished], stopped: dict[str, str], staff: Staff, now: datetime) -> set[str]:
    """Stop the departments whose keys the API refuses; reopen those whose keys it accepts again, which it returns.

    Every department that uses a refused key stands still but for one probe a minute.
    """
    works = [one.work for one in done if staff.desks[one.work.department_id].department.stopped_by_error]
    reopened = {work.api_key_env for work in works}
    if reopened or stopped:
        lock_departments(reopened | set(stopped))
    if reopened:
        Department.objects.filter(api_key_env__in=reopened).update(stopped_by_error="", next_probe_at=None)
        # Whoever waited for the key need not sit out its minute.
        _wake(Q(department__api_key_env__in=reopened, waiting_for=LINE_STANDS), now)
    for env, error in stopped.items():
        Department.objects.filter(api_key_env=env).update(
            stopped_by_error=error[:1_000], next_probe_at=now + timedelta(seconds=PROBE_SECONDS)
        )
    return reopened


def _wake(which: Q, now: datetime) -> None:
    """Have queued runs of other items taken up now.

    Claims lock runs before departments, we hold departments: whoever is being claimed is left out, not waited for.
    """
    rows = AgentRun.objects.filter(which, status=AgentRun.Status.QUEUED).order_by("pk")
    ids = list(rows.select_for_update(skip_locked=True, of=("self",)).values_list("pk", flat=True))
    AgentRun.objects.filter(pk__in=ids).update(due_at=now, waiting_for="")
