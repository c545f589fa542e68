"""Random walks: short ones in every test run, longer ones by ``KONTOR_WALKS=500 KONTOR_STEPS=60``.

A walk that fails is printed step by step. ``KONTOR_SHRINK=1`` looks for a shorter one, which takes minutes.
"""

from __future__ import annotations

import os

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.stateful.machine import REACHED, OfficeWalk, make_world

PHASES = (Phase.generate, Phase.shrink) if os.environ.get("KONTOR_SHRINK") else (Phase.generate,)
WALKS, STEPS = int(os.environ.get("KONTOR_WALKS", "0")), int(os.environ.get("KONTOR_STEPS", "25"))


@pytest.mark.django_db
def test_whatever_happens_in_whatever_order_the_invariants_hold() -> None:
    profile = settings(
        max_examples=WALKS or 30,
        stateful_step_count=STEPS,
        deadline=None,
        phases=PHASES,
        # The same walks in every ordinary run; other ones whenever somebody asks for many.
        derandomize=not WALKS,
        database=None,
        print_blob=True,
        suppress_health_check=list(HealthCheck),
    )
    OfficeWalk.world = make_world()
    run_state_machine_as_test(OfficeWalk, settings=profile)
    print(sorted(REACHED.items()))
    assert REACHED["send:sent"], "mails left"
    assert REACHED.total() > 50, "most was refused, so little was tried"
