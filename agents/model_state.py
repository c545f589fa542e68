"""What all workers know of each model at each key: its breaker, until when it takes no calls, how many at once.

The breaker opens after transient failures in a row, lets one probe through when its time is up, and closes on the
first success. While it is open, fallback models are used. A rate limit closes the model for as long as the API
says, without opening the breaker, and lowers how many calls may be in flight; successes let that grow again.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.db.models import Q

from agents.models import ModelState
from agents.statements import Statement

OPEN_AFTER = 5
"""Transient failures in a row."""
FIRST_PAUSE = timedelta(seconds=30)
LONGEST_PAUSE = timedelta(minutes=5)
PROBE_TIMEOUT = timedelta(minutes=5)
"""A probe that is never heard of again gives its place to another one."""
FULL_CAP = 1_000
SMALLEST_CAP = 1
Key = tuple[str, str]
"""Model and the name of the variable that holds the key."""
_WORKING = Q(breaker=ModelState.Breaker.CLOSED, closed_until=None, in_flight_cap__gte=FULL_CAP, failures=0)
_UNSOUND = Statement(lambda: ModelState.objects.exclude(_WORKING))


@dataclass(frozen=True, slots=True)
class Change:
    """What became of a breaker, for the log and for alerts."""

    model: str
    api_key_env: str
    text: str
    is_opening: bool


def pause_after(failures: int) -> timedelta:
    """How long the breaker stays open: 30 s, then twice as long for every further failure, at most 5 minutes."""
    doublings = min(max(failures - OPEN_AFTER, 0), 10)
    wanted: timedelta = FIRST_PAUSE * 2**doublings
    return min(wanted, LONGEST_PAUSE)


def is_closed(state: ModelState | None, now: datetime) -> bool:
    """Whether no call may start now: rate limit, overload, an open breaker, or a probe under way."""
    return state is not None and state.closed_until is not None and state.closed_until > now


def is_broken(state: ModelState | None) -> bool:
    """Whether the breaker is not closed, so that fallback models are used where there are any."""
    return state is not None and state.breaker != ModelState.Breaker.CLOSED


def load_states(keys: Collection[Key] | None = None) -> dict[Key, ModelState]:
    """The states of models that are not simply working, in one query."""
    states = {(s.model, s.api_key_env): s for s in _UNSOUND.objects()}
    return states if keys is None else {key: state for key, state in states.items() if key in keys}


def start_probe(state: ModelState, now: datetime) -> bool:
    """Let one call through an open breaker whose pause is over. False: another worker was first."""
    return bool(
        ModelState.objects.filter(Q(closed_until=None) | Q(closed_until__lte=now), pk=state.pk)
        .exclude(breaker=ModelState.Breaker.CLOSED)
        .update(breaker=ModelState.Breaker.PROBING, closed_until=now + PROBE_TIMEOUT)
    )


def lock_states(keys: Collection[Key]) -> None:
    """Lock the states of these keys in the order of their names: before several are changed in one transaction."""
    for key in sorted(set(keys)):
        _locked(key)


def record_failures(keys: Sequence[Key], reason: str, now: datetime) -> list[Change]:
    """Count transient failures, one for each entry of ``keys``; returns the breakers that opened or stay open."""
    changes = []
    for key in dict.fromkeys(sorted(keys)):
        state = _locked(key)
        state.failures += keys.count(key)
        was_probing = state.breaker == ModelState.Breaker.PROBING
        opens = state.breaker == ModelState.Breaker.CLOSED and state.failures >= OPEN_AFTER
        if opens or was_probing:
            state.breaker, state.closed_until = ModelState.Breaker.OPEN, now + pause_after(state.failures)
            state.reason = reason[:300]
            found = "The probe failed" if was_probing else f"{state.failures} failures in a row"
            text = f"{key[0]} takes no calls until {state.closed_until:%H:%M:%S} UTC. {found}: {reason}"
            changes.append(Change(*key, text, is_opening=opens))
        state.save(update_fields=["failures", "breaker", "closed_until", "reason", "changed_at"])
    return changes


def record_busy(key: Key, *, until: datetime, reason: str, now: datetime) -> None:
    """The API wants us to slow down: no call starts before ``until``, and half as many are in flight afterwards."""
    state = _locked(key)
    # Of the many calls that were in flight only the first halves the cap: the others find the model closed.
    if not is_closed(state, now):
        state.in_flight_cap = max(min(state.in_flight_cap, FULL_CAP) // 2, SMALLEST_CAP)
    if state.closed_until is None or state.closed_until < until:
        state.closed_until, state.reason = until, reason[:300]
    state.save(update_fields=["closed_until", "reason", "in_flight_cap", "changed_at"])


def record_successes(keys: Sequence[Key]) -> list[Change]:
    """Close breakers and let caps grow by one for every success; returns the breakers that closed."""
    changes = []
    for model, env in sorted(load_states(set(keys))):
        state = _locked((model, env))
        if state.breaker != ModelState.Breaker.CLOSED:
            changes.append(Change(model, env, f"{model} works again.", is_opening=False))
            state.closed_until, state.reason = None, ""
        state.breaker, state.failures = ModelState.Breaker.CLOSED, 0
        state.in_flight_cap = min(state.in_flight_cap + list(keys).count((model, env)), FULL_CAP)
        state.save(update_fields=["breaker", "failures", "closed_until", "reason", "in_flight_cap", "changed_at"])
    return changes


def _locked(key: Key) -> ModelState:
    state, _ = ModelState.objects.get_or_create(model=key[0], api_key_env=key[1])
    return ModelState.objects.select_for_update().get(pk=state.pk)
