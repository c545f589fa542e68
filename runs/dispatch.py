"""Turns the router's decisions into rows: agent runs, pipeline runs, handled triggers, the item's status.

``route`` works on items that are locked; ``route_due`` finds and locks the due ones.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, Literal

from django.db import InterfaceError, OperationalError, transaction
from django.db.models import DateTimeField, QuerySet

from agents.spec import ITEM, Facts, OutputEvent
from agents.statements import Among, Given, Statement
from runs import log, tracing
from runs.closing import wind_up_closed
from runs.database import insert_rows, update_rows
from runs.database import now as database_now
from runs.degraded import close_degraded
from runs.effects import REVIEW_DEADLINE, Happening, apply_effects
from runs.facts import load_facts_and_next
from runs.models import AgentRun, Item, LogEntry, Output, PipelineRun, Review, Trigger
from runs.outcomes import Reached, find_reached, record_outcomes
from runs.router import Decision
from runs.staff import Desk, Staff

logger = logging.getLogger(__name__)
PUT_OFF = timedelta(minutes=1)
MAX_HANDLED = 20
"""So many triggers of one item are settled in one routing; what is left makes it due again."""
UNDECIDED = "Kontor could not decide what is next:"
"""How the flag of an item begins that could not be routed; it goes when the item can be."""
_WANTS_PERSON = (Trigger.Kind.OPERATOR, Trigger.Kind.RESUME)


def _due() -> QuerySet[Item]:
    return Item.objects.filter(
        Among("department_id", "departments"),
        route_due_at__lte=Given("now", DateTimeField()),
        automation=Item.Automation.ACTIVE,
    )


_DUE = Statement(lambda: _due().order_by("priority", "route_due_at", "pk").values_list("pk"))
# Locked in id order, whatever the order of urgency that chose them.
_DUE_LOCKED = Statement(
    lambda: (
        _due()
        .filter(Among("pk", "items"))
        .order_by("pk")
        .select_for_update(skip_locked=True, of=("self",), no_key=True)
    )
)
_ACTIVE = Statement(lambda: PipelineRun.objects.filter(Among("item_id", "items"), status=PipelineRun.Status.ACTIVE))


@dataclass(slots=True)
class _Routing:
    """What one call of ``route`` writes at its end."""

    now: datetime
    entries: list[LogEntry] = field(default_factory=list)
    agent_runs: list[AgentRun] = field(default_factory=list)
    new_pipelines: dict[int, PipelineRun] = field(default_factory=dict)
    settled: list[tuple[int, str, datetime, str]] = field(default_factory=list)
    unclaimed: list[tuple[Item, str]] = field(default_factory=list)
    """Triggers that are due, wait for an answer, and are taken by no rule as the item stands."""
    reached: list[Reached] = field(default_factory=list)


def route_due(limit: int, *, staff: Staff) -> int:
    """Route up to ``limit`` due items in one transaction; returns how many. Items another worker holds are left.

    When one item cannot be routed, the others are routed one by one and that one is put off, with its reason.
    """
    ids = [pk for (pk,) in _DUE.rows(limit=limit, departments=staff.working_ids, now=database_now())]
    if not ids:
        return 0  # found by a look that takes no lock
    try:
        return _route_locked(ids, staff)
    except (OperationalError, InterfaceError):
        raise
    except Exception:
        logger.exception("could not route the items %s together; trying one by one", ids)
    return sum(_route_alone(pk, staff) for pk in ids)


def _route_locked(ids: Sequence[int], staff: Staff) -> int:
    with tracing.step("route", items=len(ids)), transaction.atomic():
        now = database_now()
        items = _DUE_LOCKED.objects(items=ids, departments=staff.working_ids, now=now)
        log.write(route(items, staff, now=now))
    return len(items)


def _route_alone(pk: int, staff: Staff) -> int:
    try:
        return _route_locked([pk], staff)
    except (OperationalError, InterfaceError):
        raise
    except Exception as error:
        logger.exception("item %s cannot be routed", pk, extra={"item": pk})
        text = f"{UNDECIDED} {type(error).__name__}: {error}"[:300]
        later = database_now() + PUT_OFF
        Item.objects.filter(pk=pk).update(route_due_at=later, flag=text)
        return 1


def put_off(
    items: Sequence[Item], staff: Staff, error: str, *, now: datetime, events: Sequence[Happening] = ()
) -> list[LogEntry]:
    """Instead of ``route``, for locked items that it failed on: the effects, the reason, and another look later."""
    entries, _ = apply_effects(_with_facts(events, _look(items, now), staff), now=now)
    for item in items:
        item.route_due_at, item.flag = now + PUT_OFF, f"{UNDECIDED} {error}"[:300]
    _save_items(items, now)
    return entries


def _with_facts(events: Sequence[Happening], facts: Mapping[int, Facts], staff: Staff) -> list[tuple[Happening, Desk]]:
    return [
        ((item, output, replace(event, facts=facts[item.pk])), staff.desks[item.department_id])
        for item, output, event in events
    ]


def output_event(
    what: Literal["written", "approved", "rejected", "sent"],
    output: Output,
    trigger: Trigger | None,
    settings: Mapping[str, Any],
) -> OutputEvent:
    """What the kind is told about something that happened to an output."""
    return OutputEvent(
        what=what,
        key=output.key,
        payload=output.payload,
        occasion=output.trigger_id,
        occasion_kind=trigger.kind if trigger else ITEM,
        occasion_payload=trigger.payload if trigger else {},
        settings=settings,
    )


def route(items: Sequence[Item], staff: Staff, *, now: datetime, events: Sequence[Happening] = ()) -> list[LogEntry]:
    """Decide what is wanted next for items whose rows are locked, and write it. Returns unsaved log lines.

    ``events`` happened to outputs of these items just now; their effects are applied first.
    """
    if not items:
        return []
    routing = _Routing(now)
    facts = _look(items, now)
    if events:
        entries, changed = apply_effects(_with_facts(events, facts, staff), now=now)
        routing.entries += entries
        again = [item for item in items if item.pk in changed]
        if again:
            facts.update(_look(again, now))
    active = {run.item_id: run for run in _ACTIVE.objects(items=[item.pk for item in items])}
    finishing = []
    for item in items:
        if not _route_one(item, facts[item.pk], staff.desks[item.department_id], active.get(item.pk), routing):
            finishing.append(item)
            if item.priority <= Item.Priority.PROSPECT:
                item.priority = Item.Priority.NORMAL  # what somebody waited for is done
    _write(routing)
    _finish([active[item.pk] for item in finishing if item.pk in active], items, facts, staff, routing)
    routing.entries += wind_up_closed(items, now)
    _save_items(items, now)
    return routing.entries


def _look(items: Sequence[Item], now: datetime) -> dict[int, Facts]:
    """The facts; each item is due again at its next future trigger, or not at all.

    Whoever makes an item due in between waits for the item's lock, so nothing is missed.
    """
    facts, coming = load_facts_and_next(items, now=now)
    for item in items:
        item.route_due_at = coming.get(item.pk)
    return facts


def _route_one(item: Item, facts: Facts, desk: Desk, active: PipelineRun | None, routing: _Routing) -> bool:
    """Route one item. Returns whether its pipeline run goes on."""
    if item.flag.startswith(UNDECIDED):
        item.flag = ""
    facts = _with_status(item, facts, desk, routing)
    if item.automation != Item.Automation.ACTIVE or not desk.is_working:
        # A step that was in flight has ended. What is next is decided when item and department go on.
        item.route_due_at = routing.now
        return True
    woken_by = [t for t in facts.triggers if t.is_due]
    for _ in range(MAX_HANDLED):
        decision = desk.router.decide(facts)
        gone = {*decision.handled, *decision.noted}
        _settle_triggers(decision, facts, routing)
        if not gone:
            break
        left = tuple(t for t in facts.triggers if t.id not in gone)
        facts = _with_status(item, replace(facts, triggers=left), desk, routing)
    else:
        item.route_due_at = routing.now
    if decision.start:
        pipeline = active or _new_pipeline(item, woken_by, routing)
        _start(item, decision, desk, pipeline, routing)
        return True
    if any(trigger.kind in _WANTS_PERSON for trigger in woken_by) and active is None:
        text = "Nothing to do: everything that the rules want is there, or waits for a person."
        routing.entries.append(log.item_entry(item, "decision", text, at=routing.now))
    is_active = any(run.state == "active" for run in facts.runs)
    if not is_active and item.route_due_at != routing.now:
        routing.unclaimed += [(item, t.kind) for t in facts.triggers if t.is_due]
    return is_active


def _with_status(item: Item, facts: Facts, desk: Desk, routing: _Routing) -> Facts:
    status = desk.spec.status(facts)
    if status == item.status:
        return facts
    before, after = desk.spec.status_spec(item.status).label, desk.spec.status_spec(status).label
    routing.entries.append(
        log.item_entry(
            item,
            "status",
            f"Status: {before} → {after}.",
            at=routing.now,
            data={"from": item.status, "to": status},
        )
    )
    item.status = status
    routing.reached += find_reached(item, desk.spec, status)
    return replace(facts, status=status)


def _settle_triggers(decision: Decision, facts: Facts, routing: _Routing) -> None:
    kinds = {trigger.id: trigger.kind for trigger in facts.triggers}
    for pk in decision.handled:
        note = "Everything the rules want for it is settled."
        routing.settled.append((pk, Trigger.Status.HANDLED, routing.now, note))
    for pk in decision.noted:
        note = f"No enabled rule asks for anything on {kinds[pk]}."
        routing.settled.append((pk, Trigger.Status.NOTED, routing.now, note))


def _new_pipeline(item: Item, woken_by: Sequence[Any], routing: _Routing) -> PipelineRun:
    kinds = list(dict.fromkeys(trigger.kind for trigger in woken_by))
    cause = ", ".join(Trigger.Kind(kind).label for kind in kinds) or "the rules"
    run = PipelineRun(item=item, cause=cause, started_at=routing.now)
    routing.new_pipelines[item.pk] = run
    return run


def _start(item: Item, decision: Decision, desk: Desk, pipeline: PipelineRun, routing: _Routing) -> None:
    for start in decision.start:
        agent_id = desk.agent_ids[start.agent]
        routing.agent_runs.append(
            AgentRun(
                department_id=item.department_id,
                item=item,
                agent_id=agent_id,
                pipeline_run=pipeline,
                trigger_id=start.occasion,
                why=start.why[:300],
                priority=item.priority,
                due_at=routing.now,
                queued_at=routing.now,
            )
        )


def _write(routing: _Routing) -> None:
    insert_rows(routing.new_pipelines.values())
    for run in routing.agent_runs:
        run.pipeline_run_id = run.pipeline_run.pk  # it has its id only now
    insert_rows(routing.agent_runs)
    routing.entries += [
        log.run_entry(run, "decision", f"Wanted: {run.why}", at=routing.now) for run in routing.agent_runs
    ]
    update_rows(
        Trigger,
        ["status", "settled_at", "settled_note"],
        [(pk, s, at, n) for pk, s, at, n in routing.settled],
    )
    record_outcomes(routing.reached, now=routing.now)
    _ask_about_unclaimed(routing)


def _ask_about_unclaimed(routing: _Routing) -> None:
    """What nobody takes up must not lie there unseen: a person is asked, once for each item."""
    for item, trigger_kind in routing.unclaimed:
        label = Trigger.Kind(trigger_kind).label
        _, is_new = Review.objects.get_or_create(
            item=item,
            kind=Review.Kind.FELL_THROUGH,
            status=Review.Status.OPEN,
            defaults={
                "department_id": item.department_id,
                "ask": f"A {label} of {item.title} is due, but no rule takes it up. What shall happen?"[:500],
                "risk": 2,
                "deadline": routing.now + REVIEW_DEADLINE,
            },
        )
        if is_new:
            text = f"A {label} is due, but no rule takes it up: a person is asked."
            level = LogEntry.Level.WARNING
            routing.entries.append(log.item_entry(item, "review", text, at=routing.now, level=level))


def _finish(
    pipelines: Sequence[PipelineRun],
    items: Sequence[Item],
    facts: Mapping[int, Facts],
    staff: Staff,
    routing: _Routing,
) -> None:
    if not pipelines:
        return
    degraded = set(
        AgentRun.objects.filter(pipeline_run__in=pipelines, status=AgentRun.Status.FAILED).values_list(
            "pipeline_run_id", flat=True
        )
    )
    by_id = {item.pk: item for item in items}
    missing = close_degraded([run for run in pipelines if run.pk in degraded], by_id, facts, staff, routing.now)
    rows = []
    for run in pipelines:
        item = by_id[run.item_id]
        failed = run.pk in degraded
        status = PipelineRun.Status.DEGRADED if failed else PipelineRun.Status.COMPLETED
        rows.append((run.pk, status, routing.now, missing.get(run.pk, "")))
        routing.entries.append(
            log.item_entry(
                item,
                "finished",
                f"Nothing more is wanted. {missing.get(run.pk, '')}".strip(),
                at=routing.now,
                pipeline_run_id=run.pk,
                level=LogEntry.Level.WARNING if failed else LogEntry.Level.INFO,
            )
        )
    update_rows(PipelineRun, ["status", "ended_at", "missing"], rows)


def _save_items(items: Sequence[Item], now: datetime) -> None:
    update_rows(
        Item,
        ["title", "status", "priority", "tags", "flag", "route_due_at", "changed_at"],
        [(i.pk, i.title, i.status, i.priority, i.tags, i.flag, i.route_due_at, now) for i in items],
    )
