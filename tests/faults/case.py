"""What every case has: how far it goes, a fresh database, an installation, and an audit at its end."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from tests.faults.audit import Watch, audit
from tests.faults.databases import Databases
from tests.faults.site import LATENCY_MS, Site, TooLate, site, wait_for
from tests.faults.table import Row


@dataclass(frozen=True, slots=True)
class Form:
    """How far the cases go. Times in seconds."""

    is_full: bool
    tries: int
    lease_seconds: int
    agent_timeout_seconds: int
    mixed_calls: int
    many_runs: int
    long_call_seconds: int
    frozen_latency_ms: int
    """How long each call takes of which one freezes: long enough to freeze all that were started together."""

    @property
    def heal_seconds(self) -> float:
        """The most that may pass from a kill until all is done that the killed process held."""
        return self.lease_seconds + 10.0


FLOW_SECONDS = 10.0
"""The most that may pass from the kill of somebody who holds no work until new work is done."""
FULL = Form(True, 20, 30, 30, 5_000, 20_000, 200, 4_000)
SHORT = Form(False, 2, 3, 5, 300, 1_000, 15, 1_500)


@dataclass(slots=True)
class Bench:
    """Where cases are carried out."""

    databases: Databases
    form: Form

    @contextmanager
    def site(self, *, latency_ms: int = LATENCY_MS, seed: int = 1, **more: str) -> Iterator[Site]:
        """A fresh installation; ``more`` are environment variables."""
        env = {"LEASE_SECONDS": str(self.form.lease_seconds), **more}
        with self.databases.fresh() as url, site(url, latency_ms=latency_ms, seed=seed, more=env) as place:
            yield place


Case = Callable[[Bench], list[Row]]


@dataclass(slots=True)
class Suite:
    """The cases by name, in their order. ``databases`` names those a case is about."""

    cases: dict[str, tuple[Case, tuple[str, ...]]] = field(default_factory=dict)

    def add(self, *databases: str) -> Callable[[Case], Case]:
        """Register a function as a case, by its own name."""

        def register(case: Case) -> Case:
            self.cases[case.__name__] = (case, databases or ("sqlite", "postgres"))
            return case

        return register


SUITE = Suite()


@contextmanager
def audited(row: Row, place: Site | None = None, *, is_watched: bool = True) -> Iterator[None]:
    """Whatever happens inside, the whole database is looked through afterwards and the row says what was found."""
    watch = Watch()
    try:
        if is_watched:
            with watch:
                yield
        else:
            yield
    except Exception as error:
        row.broken = f"{type(error).__name__}: {error}"
        if not isinstance(error, (TooLate, AssertionError)):
            row.broken += "".join(traceback.format_tb(error.__traceback__)[-2:])
    row.findings.untrue += watch.stop()
    served = None
    if place is not None:
        simulator = place.simulator
        wait_for(lambda: simulator.in_flight() == 0, "the simulator has answered everybody", 90)
        served = simulator.calls()
        row.findings.untrue += [f"in the log: {line[:300]}" for line in place.complaints()]
    row.findings += audit(served)
