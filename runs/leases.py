"""Who holds which agent run: claims, heartbeats, and what becomes of a run whose holder was lost.

A run is held by whoever knows its token until its lease ends. Every write of a worker names the token.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Collection, Sequence
from datetime import datetime, timedelta
from uuid import UUID, uuid4

from django.conf import settings
from django.db import InterfaceError, OperationalError, transaction
from django.db.models import DateTimeField, IntegerField, Q, QuerySet, prefetch_related_objects

from agents.causes import Cause
from agents.models import Agent
from agents.statements import Among, Given, Statement
from runs import log, tracing
from runs.calls import CallAsk, abandon_calls, open_calls
from runs.closing import wind_up_closed
from runs.commits import fail_run
from runs.database import now as database_now
from runs.database import update_rows
from runs.failures import MAX_LOST_LEASES, backoff
from runs.gate_alerts import tell_budgets
from runs.gates import WAITING, Choice, give_back_probes, let_through, waiting_row
from runs.inputs import Prepared, build_params, gather_inputs
from runs.loop_guard import AGAIN, ask_about_loops, find_loops
from runs.models import AgentRun, Item, LogEntry
from runs.staff import Desk, Staff
from runs.wording import in_words
from runs.work import OpenCall, Work

logger = logging.getLogger(__name__)
PUT_OFF = timedelta(minutes=1)
STOOD_STILL = timedelta(hours=1)
MAX_LOST_BEFORE_ALONE = 2
"""After so many lost leases a run is claimed only by a shift that holds nothing else."""
STARVED = timedelta(seconds=10)
"""So long such a run waits for a shift that happens to be empty; then one makes room for it."""
ANY_NUMBER = 2**31 - 1
_URGENCY = ("priority", "due_at", "pk")
_CLAIMED = [
    *("status", "lease_token", "lease_expires_at", "attempt", "worker", "started_at", "soul"),
    *("waiting_for", "waiting_since"),
]


def _due() -> QuerySet[AgentRun]:
    return AgentRun.objects.filter(
        Among("department_id", "departments"),
        status=AgentRun.Status.QUEUED,
        due_at__lte=Given("now", DateTimeField()),
        item__automation=Item.Automation.ACTIVE,
    )


_FIRST = Statement(
    lambda: (
        _due()
        .filter(lost_leases__lt=Given("lost", IntegerField()))
        .order_by(*_URGENCY)
        .values_list("pk", "lost_leases")
    )
)
_POISON = Statement(lambda: _due().filter(lost_leases__gte=MAX_LOST_BEFORE_ALONE).order_by(*_URGENCY).values_list("pk"))
_FIRST_LOCKED = Statement(
    lambda: _due().filter(Among("pk", "runs")).order_by(*_URGENCY).select_for_update(skip_locked=True, of=("self",))
)


def claim(limit: int, *, staff: Staff, worker: str, is_alone: bool) -> list[Work]:
    """Take up to ``limit`` due agent runs: token, budget and ModelCall in one transaction.

    A run that does not fit its budget, or whose model takes no calls now, stays queued and says what it waits for.
    """
    lost = ANY_NUMBER if is_alone else MAX_LOST_BEFORE_ALONE
    # More than wanted: other shifts look at the same ones, and what they have locked is skipped.
    found = _FIRST.rows(limit=2 * limit, departments=staff.working_ids, now=database_now(), lost=lost)
    poison = [pk for pk, lost in found if lost >= MAX_LOST_BEFORE_ALONE]
    return _claim_some(poison[:1] or [pk for pk, _ in found], limit, staff, worker)


def claim_poison(*, staff: Staff, worker: str) -> list[Work]:
    """Take the most urgent run that may only be claimed alone, for a shift that holds nothing else."""
    found = _POISON.rows(limit=1, departments=staff.working_ids, now=database_now())
    return _claim_some([pk for (pk,) in found], 1, staff, worker)


def is_starving(staff: Staff) -> bool:
    """Whether a run that may only be claimed alone is due for long, because every shift is always busy."""
    return bool(_POISON.rows(limit=1, departments=staff.working_ids, now=database_now() - STARVED))


def _claim_some(ids: Sequence[int], limit: int, staff: Staff, worker: str) -> list[Work]:
    if not ids:
        return []  # found by a look that takes no lock
    try:
        return _claim(ids, limit, staff, worker)
    except (OperationalError, InterfaceError):
        raise
    except Exception:
        logger.exception("could not claim together; trying one by one")
    return [work for pk in ids[:limit] for work in _claim_alone(pk, staff, worker)]


def _claim(ids: Sequence[int], limit: int, staff: Staff, worker: str) -> list[Work]:
    with tracing.step("claim", agent_runs=len(ids)), transaction.atomic():
        now = database_now()
        runs = _FIRST_LOCKED.objects(limit=limit, runs=ids, departments=staff.working_ids, now=now)
        prefetch_related_objects([run for run in runs if run.trigger_id], "trigger")
        prefetch_related_objects([run for run in runs if run.pinned_soul_id], "pinned_soul")
        runs = [run for run in runs if not _misses_something(run, staff, now)]
        runs = _without_loops(runs, now)
        choices = let_through(runs, staff, now) if runs else {}
        return _take(runs, choices, staff, now=now, worker=worker) if choices else []


def _claim_alone(pk: int, staff: Staff, worker: str) -> list[Work]:
    """Claim one run; one that cannot even be prepared is put off with its reason, so that it blocks nobody."""
    try:
        return _claim([pk], 1, staff, worker)
    except (OperationalError, InterfaceError):
        raise
    except Exception as error:
        logger.exception("agent run %s cannot be prepared", pk, extra={"agent_run": pk, "worker": worker})
        text = f"Kontor could not prepare its request: {type(error).__name__}: {error}"[:300]
        now = database_now()
        AgentRun.objects.filter(pk=pk, status=AgentRun.Status.QUEUED).update(
            due_at=now + PUT_OFF, waiting_for=text, waiting_since=now
        )
        return []


def heartbeat(tokens: Collection[UUID]) -> None:
    """Renew the leases of runs whose calls still show signs of life."""
    if tokens:
        expires = database_now() + timedelta(seconds=settings.LEASE_SECONDS)
        AgentRun.objects.filter(lease_token__in=tokens, status=AgentRun.Status.RUNNING).update(lease_expires_at=expires)


def still_held(tokens: Collection[UUID]) -> set[UUID]:
    """Those of the tokens that nobody has taken away."""
    if not tokens:
        return set()
    held = AgentRun.objects.filter(lease_token__in=tokens, status=AgentRun.Status.RUNNING)
    return {token for token in held.values_list("lease_token", flat=True) if token is not None}


def release(works: Collection[Work]) -> None:
    """Give runs back unfinished, at once due again: the worker is stopping. Their calls stand as estimates."""
    _requeue_lost([work.run_id for work in works], {w.token for w in works})


def reap() -> int:
    """Queue again every run whose lease ran out; fail those that lost it too often. Returns how many."""
    now = database_now()
    expired = list(AgentRun.objects.filter(_expired(now)).values_list("pk", flat=True)[:500])
    try:
        return _requeue_lost(expired, None) if expired else 0
    except (OperationalError, InterfaceError):
        raise
    except Exception:
        logger.exception("could not take back %s lost runs together; trying one by one", len(expired))
    return sum(_reap_alone(pk) for pk in expired)


def _reap_alone(pk: int) -> int:
    try:
        return _requeue_lost([pk], None)
    except (OperationalError, InterfaceError):
        raise
    except Exception:
        logger.exception("agent run %s is lost and cannot be taken back", pk, extra={"agent_run": pk})
        return 0


def _expired(now: datetime) -> Q:
    # Clocks move: a lease further ahead than its own length was given by a clock that was wrong.
    too_far = now + timedelta(seconds=2 * settings.LEASE_SECONDS)
    return Q(status=AgentRun.Status.RUNNING) & (Q(lease_expires_at__lt=now) | Q(lease_expires_at__gt=too_far))


def _take(runs: list[AgentRun], choices: dict[int, Choice], staff: Staff, *, now: datetime, worker: str) -> list[Work]:
    runs = [run for run in runs if run.pk in choices]
    prepared = gather_inputs(runs, staff.desks)
    asks, caches = [], staff.caches.draft()
    for run in runs:
        desk = staff.desks[run.department_id]
        agent = desk.agents[run.agent_id]
        soul, key = run.pinned_soul or desk.souls[agent.pk], desk.department.api_key_env
        params = build_params(agent, soul, desk, prepared[run.pk].data, choices[run.pk])
        params = caches.apply(params, (agent.pk, soul.pk, params["model"]))
        asks.append(CallAsk(run, agent, soul.pk, key, run.attempt + 1, 1, params))
    opened = open_calls(asks, staff, now=now, worker=worker)
    taken: list[tuple[CallAsk, Work]] = []
    waiting, refused, unused = [], [], []
    for ask in asks:
        answer = opened[ask.run.pk]
        if isinstance(answer, OpenCall):
            taken.append((ask, _work(ask, answer, prepared[ask.run.pk], staff)))
            # Not what a budget refuses: when it is raised, all that has waited would write the cache at once.
            staff.caches.note(ask.params, (ask.agent.pk, ask.soul_id, ask.params["model"]))
        else:
            # A budget that is raised meanwhile is noticed within a minute, and at once when its period turns.
            until = min(answer.until, now + timedelta(minutes=1))
            waiting.append(waiting_row(ask.run, until, answer.reason, now))
            refused.append((ask.run.department_id, answer.reason))
            unused.append(choices[ask.run.pk])
    expires = now + timedelta(seconds=settings.LEASE_SECONDS)
    update_rows(
        AgentRun,
        _CLAIMED,
        [
            (w.run_id, AgentRun.Status.RUNNING, w.token, expires, w.attempt, worker, now, w.soul_id, "", since)
            for w, since in ((work, _waited_since(ask.run, now)) for ask, work in taken)
        ],
    )
    update_rows(AgentRun, WAITING, waiting)
    give_back_probes(unused, now)
    tell_budgets(refused)
    log.write(
        log.run_entry(ask.run, "started", _started(ask.run, work), at=now, data=_waited(ask.run)) for ask, work in taken
    )
    return [work for _, work in taken]


def _waited_since(run: AgentRun, now: datetime) -> datetime | None:
    """Since when the trouble of its last attempt lasts: not if it was due for long (paused, stopped, no worker)."""
    return run.waiting_since if now - run.due_at < STOOD_STILL else None


def _waited(run: AgentRun) -> dict[str, str]:
    """For what it waited until now, which the run itself forgets when it is claimed."""
    return {"waited_for": run.waiting_for} if run.waiting_for else {}


def _started(run: AgentRun, work: Work) -> str:
    on = f" on {work.model}, which stands in for {work.agent.model}" if work.model != work.agent.model else ""
    if run.pinned_model:
        on = f" on {work.model}, which a person chose"
    return f"{work.agent.title} started, attempt {work.attempt}{on}."


def _work(ask: CallAsk, call: OpenCall, prepared: Prepared, staff: Staff) -> Work:
    spec = staff.desks[ask.run.department_id].agent_spec(ask.agent)
    return Work(
        run_id=ask.run.pk,
        item_id=ask.run.item_id,
        pipeline_run_id=ask.run.pipeline_run_id,
        department_id=ask.run.department_id,
        agent=ask.agent,
        schema=spec.schema,
        facets=spec.facets,
        soul_id=ask.soul_id,
        api_key_env=ask.api_key_env,
        token=uuid4(),
        attempt=ask.attempt,
        prepared=prepared,
        first_call=call,
        is_poison=ask.run.lost_leases >= MAX_LOST_BEFORE_ALONE,
    )


def _without_loops(runs: list[AgentRun], now: datetime) -> list[AgentRun]:
    """The runs that do not go round in circles; the others wait for a person, who is asked."""
    held = find_loops(runs, now) if runs else []
    if not held:
        return runs
    update_rows(AgentRun, WAITING, [waiting_row(one.run, now + AGAIN, one.reason, now) for one in held])
    log.write(ask_about_loops(held, now))
    stopped = {one.run.pk for one in held}
    return [run for run in runs if run.pk not in stopped]


def _misses_something(run: AgentRun, staff: Staff, now: datetime) -> bool:
    """Whether the run cannot start as things are configured; it then waits and says for what."""
    desk = staff.desks[run.department_id]
    agent = desk.agents[run.agent_id]
    declared = {spec.slug for spec in desk.spec.agents}
    if agent.slug not in declared:
        problem = f"This release no longer declares the agent {agent.slug}."
    elif agent.pk not in desk.souls and run.pinned_soul_id is None:
        problem = "The agent has no published SOUL. Publish one."
    elif not agent.is_enabled:
        problem = "The agent is switched off. Switch it on, or cancel the run."
    elif writer := _writer_instead(run, desk):
        problem = f"{writer.title} writes the {in_words(agent.writes)} instead. If it shall not, switch it off."
    else:
        return False
    update_rows(AgentRun, WAITING, [waiting_row(run, now + PUT_OFF, problem, now)])
    return True


def _writer_instead(run: AgentRun, desk: Desk) -> Agent | None:
    """Who writes the same just now, or will: an agent that was switched off and is on again beside its replacement.

    Of two that wait the enabled one that comes first writes, as the router has it.
    """
    others = {other.pk: other for other in desk.others_who_write(run)}
    if not others:
        return None
    before = [pk for pk, other in others.items() if other.is_enabled and pk < run.agent_id]
    same = AgentRun.objects.filter(item=run.item_id, trigger=run.trigger_id, agent__in=others)
    writes = Q(status=AgentRun.Status.RUNNING) | Q(status=AgentRun.Status.QUEUED, agent__in=before)
    return others.get(same.filter(writes).values_list("agent", flat=True).first() or 0)


def _requeue_lost(run_ids: Sequence[int], tokens: set[UUID] | None) -> int:
    """Take the token from runs that are lost (``tokens`` None: expired ones) or given back, item locks first."""
    with transaction.atomic():
        now = database_now()
        held = _expired(now) if tokens is None else Q(lease_token__in=tokens, status=AgentRun.Status.RUNNING)
        item_ids = AgentRun.objects.filter(pk__in=run_ids).values("item_id")
        items = {i.pk: i for i in Item.objects.filter(pk__in=item_ids).select_for_update(no_key=True).order_by("pk")}
        rows = AgentRun.objects.filter(held, pk__in=run_ids).select_related("agent", "department")
        runs = list(rows.select_for_update(of=("self",)).order_by("pk"))
        # Questions about failures are locked by agent and cause: everybody in the same order.
        runs.sort(key=lambda run: (run.department_id, run.agent.slug))
        abandon_calls([run.pk for run in runs], now=now)
        entries: list[LogEntry] = []
        for run in runs:
            run.lost_leases += tokens is None
            run.lease_token = run.lease_expires_at = None
            if run.lost_leases >= MAX_LOST_LEASES:
                entries += fail_run(
                    run, items[run.item_id], Cause.LOST, f"It lost its worker {run.lost_leases} times.", now
                )
                continue
            delay = backoff(run.lost_leases, random.Random()) if tokens is None and run.lost_leases > 1 else 0
            run.status, run.due_at = AgentRun.Status.QUEUED, now + timedelta(seconds=delay)
            run.waiting_for = "The worker stopped; taken up again." if tokens is not None else _lost(run)
            entries.append(log.run_entry(run, "lost", run.waiting_for, at=now, level=LogEntry.Level.WARNING))
            run.save(
                update_fields=[
                    "status",
                    "due_at",
                    "waiting_for",
                    "lost_leases",
                    "lease_token",
                    "lease_expires_at",
                ]
            )
        log.write(entries + wind_up_closed(items.values(), now))
    return len(runs)


def _lost(run: AgentRun) -> str:
    how = ", alone on a shift" if run.lost_leases >= MAX_LOST_BEFORE_ALONE else ""
    count = f"{run.lost_leases + 1} of {MAX_LOST_LEASES}"
    return f"Its worker was lost: its lease ran out. Try {count} at {run.due_at:%H:%M:%S} UTC{how}."
