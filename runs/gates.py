"""What may keep a claimed run from starting now: a line that stands still, a model that takes no calls.

Called inside the claiming transaction. Locks departments first, then model states, each in the order of their
keys, as commits do.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from django.db.models import Count, Q

from agents.causes import Cause
from agents.model_state import FULL_CAP, Key, is_broken, is_closed, load_states, start_probe
from agents.models import Department, ModelState
from agents.statements import Among, Statement
from runs.database import update_rows
from runs.failures import BUSY, LINE_STANDS, PROBE_SECONDS
from runs.models import AgentRun, ModelCall
from runs.staff import Staff

CROWDED = timedelta(seconds=1)
STANDS_IN = "You stand in for"
"""How the note begins that a fallback model finds in its prompt."""
WAITING = ["due_at", "waiting_for", "waiting_since", "cause"]
_FIGURES = re.compile(r"[\d:.,]+")
_HALTED = Statement(
    lambda: (
        Department.objects.filter(Among("pk", "departments"))
        .exclude(stopped_by_error="")
        .values_list("pk", "next_probe_at")
    )
)


@dataclass(frozen=True, slots=True)
class Choice:
    """The model a run uses now, and what it is told when that is not its own."""

    model: str
    fallback_note: str = ""
    line_probe: str = ""
    """The key whose line stands still, where this run is the minute's one attempt."""
    model_probe: int = 0
    """The state of the model, where this run is to find out whether it works again."""


@dataclass(frozen=True, slots=True)
class _Wait:
    until: datetime
    reason: str
    causes: frozenset[Cause] = BUSY
    """Of attempts that ended for the same reason."""


def lock_departments(keys: Iterable[str]) -> None:
    """Lock the departments that use these keys, before several are changed and before model states are locked."""
    # Without the key: whoever writes a row of the department need not wait.
    rows = Department.objects.filter(api_key_env__in=set(keys)).order_by("api_key_env", "pk")
    list(rows.select_for_update(no_key=True).values_list("pk"))


def give_back_probes(choices: Iterable[Choice], now: datetime) -> None:
    """What runs were let through for that do not start after all is for somebody else to find out, at once.

    Their departments and states are locked since they were let through.
    """
    lines = {choice.line_probe for choice in choices if choice.line_probe}
    states = {choice.model_probe for choice in choices if choice.model_probe}
    if lines:
        Department.objects.filter(api_key_env__in=lines).exclude(stopped_by_error="").update(next_probe_at=now)
    if states:
        ModelState.objects.filter(pk__in=states).update(breaker=ModelState.Breaker.OPEN, closed_until=now)


def let_through(runs: Sequence[AgentRun], staff: Staff, now: datetime) -> dict[int, Choice]:
    """The runs that may start, each with its model: ``{run id: Choice}``.

    The others stay queued; each says what it waits for and is due again when that may be over.
    """
    passed, waiting, probes = _past_the_line(runs, staff, now)
    choices: dict[int, Choice] = {}
    states = load_states()
    in_flight = count_in_flight(states)
    # By model, because probes lock its state; runs of one model stay in the order of their urgency.
    for run in sorted(passed, key=lambda run: _key(run, staff)):
        desk = staff.desks[run.department_id]
        agent, env = desk.agents[run.agent_id], desk.department.api_key_env
        # The model that a person chose for a run is not stood in for: the run waits for it.
        fallbacks = () if run.pinned_model else tuple(agent.fallback_models)
        answer = _choose(run.pinned_model or agent.model, fallbacks, env, states, in_flight, now)
        if isinstance(answer, Choice):
            choices[run.pk] = replace(answer, line_probe=probes.pop(run.pk, ""))
            in_flight[answer.model, env] += 1
        else:
            waiting.append((run, answer))
    give_back_probes([Choice("", line_probe=key) for key in probes.values()], now)
    update_rows(
        AgentRun,
        WAITING,
        [waiting_row(run, wait.until, wait.reason, now, wait.causes) for run, wait in waiting],
    )
    return choices


def waiting_row(
    run: AgentRun, until: datetime, reason: str, now: datetime, causes: frozenset[Cause] = frozenset()
) -> tuple[Any, ...]:
    """The values of ``WAITING`` for a run that must wait.

    Another reason begins anew: the day after which a run fails for good must be a day of one trouble. The same are
    attempts that ended with one of ``causes``, and sentences that differ in figures only.
    """
    is_same = run.cause in causes
    if run.cause == Cause.NONE:
        is_same = _FIGURES.sub("", run.waiting_for) == _FIGURES.sub("", reason[:300])
    since = run.waiting_since if run.waiting_since is not None and is_same else now
    return run.pk, until, reason[:300], since, run.cause if run.cause in causes else Cause.NONE


def _past_the_line(
    runs: Sequence[AgentRun], staff: Staff, now: datetime
) -> tuple[list[AgentRun], list[tuple[AgentRun, _Wait]], dict[int, str]]:
    """Where the line stands still, one run a minute is let through as a probe: ``{run id: key}``, the last result."""
    concerned = {run.department_id for run in runs}
    halted = dict(_HALTED.rows(departments=concerned))
    if not halted:
        return list(runs), [], {}
    envs = {run.pk: _key(run, staff)[1] for run in runs}
    lock_departments(envs[run.pk] for run in runs if run.department_id in halted)
    # Again: who was locked here a moment ago may have reopened the line, and has not woken the runs that we hold.
    halted = dict(_HALTED.rows(departments=concerned))
    probed = {env for env in {envs[r.pk] for r in runs if r.department_id in halted} if _take_line_probe(env, now)}
    passed, waiting, probes = [], [], {}
    for run in runs:
        if run.department_id not in halted:
            passed.append(run)
        elif envs[run.pk] in probed:
            probed.remove(envs[run.pk])
            probes[run.pk] = envs[run.pk]
            passed.append(run)
        else:
            again = max(halted[run.department_id] or now, now + CROWDED)
            waiting.append((run, _Wait(again, LINE_STANDS, frozenset({Cause.ACCOUNT}))))
    return passed, waiting, probes


def _key(run: AgentRun, staff: Staff) -> Key:
    desk = staff.desks[run.department_id]
    return desk.agents[run.agent_id].model, desk.department.api_key_env


def _take_line_probe(key: str, now: datetime) -> bool:
    """Whether this minute's probe is ours. Conditional, because several shifts look at the same time."""
    due = Department.objects.filter(Q(next_probe_at=None) | Q(next_probe_at__lte=now), api_key_env=key)
    return bool(due.exclude(stopped_by_error="").update(next_probe_at=now + timedelta(seconds=PROBE_SECONDS)))


def count_in_flight(states: dict[Key, ModelState]) -> Counter[Key]:
    """Calls under way, counted only where a rate limit has lowered how many there may be."""
    capped = [key for key, state in states.items() if state.in_flight_cap < FULL_CAP]
    if not capped:
        return Counter()
    rows = (
        ModelCall.objects.filter(status=ModelCall.Status.STARTED, model_asked__in=[model for model, _ in capped])
        .order_by()
        .values_list("model_asked", "department__api_key_env")
        .annotate(count=Count("pk"))
    )
    return Counter({(model, env): count for model, env, count in rows})


def _choose(
    wanted: str,
    fallbacks: Sequence[str],
    env: str,
    states: dict[Key, ModelState],
    in_flight: Counter[Key],
    now: datetime,
) -> Choice | _Wait:
    """The model that is wanted; while its breaker is open, the first of its fallbacks that works; else a wait."""
    own = states.get((wanted, env))
    if own is None:
        return Choice(wanted)
    if not is_broken(own):
        return _if_free(Choice(wanted), own, in_flight[wanted, env], now)
    if not is_closed(own, now) and start_probe(own, now):
        # Whoever comes next in this transaction finds the probe under way.
        own.closed_until, own.breaker = now + CROWDED, ModelState.Breaker.PROBING
        return Choice(wanted, model_probe=own.pk)
    again = own.closed_until or now + CROWDED
    for model in fallbacks:
        state = states.get((model, env))
        if is_broken(state):
            continue
        note = (
            f"{STANDS_IN} {wanted}, which is not available now. The same rules hold for you. "
            "Where you are less sure than the task asks for, say so."
        )
        answer = _if_free(Choice(model, note), state, in_flight[model, env], now)
        if isinstance(answer, Choice):
            return answer
        again = min(again, answer.until)
    return _Wait(max(again, now + CROWDED), f"{wanted} takes no calls until {again:%H:%M:%S} UTC: {own.reason}")


def _if_free(choice: Choice, state: ModelState | None, in_flight: int, now: datetime) -> Choice | _Wait:
    if state is None:
        return choice
    if is_closed(state, now):
        until = state.closed_until or now
        return _Wait(until, f"{state.model} takes no calls until {until:%H:%M:%S} UTC: {state.reason}")
    if crowded := why_crowded(state, in_flight):
        return _Wait(now + CROWDED, crowded)
    return choice


def why_crowded(state: ModelState | None, in_flight: int) -> str:
    """Why no further call of the model may start while so many are under way; empty if one may."""
    if state is None or in_flight < state.in_flight_cap:
        return ""
    return f"{state.model} takes {state.in_flight_cap} calls at once for now, after a rate limit."
