"""The model API misbehaves: every fault the simulator can make, singly and as a random mix."""

from __future__ import annotations

import time
from collections import Counter

from django.db.models import Q, QuerySet

from agents.models import Agent, Department
from runs.models import AgentRun, Item, ModelCall, PipelineRun, Review
from tests.faults import scripts
from tests.faults.case import SUITE, Bench, audited
from tests.faults.site import Site, wait_for
from tests.faults.table import Row
from tests.faults.work import add_lead, is_settled, retry_seconds, wait_settled

SEED = 20_261_120
CALLS_PER_LEAD = 6
FEWEST_KINDS = 10
ABOUT_FAILURES = (Review.Kind.FAILURE, Review.Kind.REFUSAL, Review.Kind.DEGRADED, Review.Kind.INCIDENT)


@SUITE.add()
def model_faults(bench: Bench) -> list[Row]:
    """Each fault strikes a lead of its own; it heals by a retry or ends degraded with a review."""
    faults = [*scripts.ONCE, *(f for f in scripts.FOR_GOOD if bench.form.is_full or not f.is_slow)]
    row = Row(f"{len(faults)} model faults, one lead each")
    with bench.site(latency_ms=20, KONTOR_RETRY_AFTER_CAP_SECONDS="5") as place:
        _set_timeouts(5)
        # Every worker's first connections are slow, too.
        rules = [fault.rule(_marker(number)) for number, fault in enumerate(faults)]
        place.simulator.faults([scripts.SLOW_CONNECT, *rules])
        place.start_worker()
        with audited(row, place):
            leads = [add_lead(_marker(number)) for number, _ in enumerate(faults)]
            wait_settled(limit_seconds=420)
            row.heal_seconds = retry_seconds()
            fired = place.simulator.fired()[1:]
            for fault, lead, times in zip(faults, leads, fired, strict=True):
                row.tried += 1
                _check(row, fault, lead.item, times)
    return [row]


def _marker(number: int) -> str:
    return f"Marker {number:03} GmbH"


def _set_timeouts(seconds: int) -> None:
    Agent.objects.update(timeout_seconds=seconds)


def _check(row: Row, fault: scripts.Fault, item: Item, fired: int) -> None:
    """Whether the fault struck, and the lead ended as it had to."""
    run = PipelineRun.objects.filter(item=item).order_by("-pk").first()
    status = run.status if run is not None else "never routed"
    wanted = PipelineRun.Status.COMPLETED if fault.heals else PipelineRun.Status.DEGRADED
    if not fired:
        row.findings.untrue.append(f"{fault.name}: the fault did not strike")
    if status != wanted:
        (row.findings.lost if fault.heals else row.findings.untrue).append(f"{fault.name}: the lead is {status}")
    is_asked = _questions(item).filter(status=Review.Status.OPEN).exists()
    if is_asked == fault.heals:
        row.findings.untrue.append(f"{fault.name}: {'a' if is_asked else 'no'} review of a failure")


def _questions(item: Item) -> QuerySet[Review]:
    """Reviews about failures on the item: its own, and incidents of one cause on many items, which name none."""
    return Review.objects.filter(Q(item=item) | Q(pk__in=item.agent_runs.values("incident")), kind__in=ABOUT_FAILURES)


@SUITE.add()
def random_mix(bench: Bench) -> list[Row]:
    """15 % of all requests are struck, seeded; every lead ends completed, or degraded with a review."""
    row = Row(f"random mix, {bench.form.mixed_calls} calls, 15 % faults")
    with bench.site(latency_ms=20, seed=SEED, KONTOR_RETRY_AFTER_CAP_SECONDS="5") as place:
        _set_timeouts(5)
        place.simulator.faults(scripts.mix(SEED))
        place.start_worker()
        with audited(row, place):
            while ModelCall.objects.count() < bench.form.mixed_calls:
                missing = bench.form.mixed_calls - ModelCall.objects.count()
                for number in range(max(1, missing // CALLS_PER_LEAD)):
                    add_lead(f"Mixed {number} Ltd")
                wait_settled(limit_seconds=900 if bench.form.is_full else 240)
            row.tried = ModelCall.objects.count()
            row.heal_seconds = retry_seconds()
            _check_mix(row, place)
    return [row]


def _check_mix(row: Row, place: Site) -> None:
    ended = Counter(PipelineRun.objects.values_list("status", flat=True))
    unknown = set(ended) - {PipelineRun.Status.COMPLETED, PipelineRun.Status.DEGRADED}
    row.findings.lost += [f"{ended[status]} pipeline runs are {status}" for status in unknown]
    struck = sum(1 for count in place.simulator.fired() if count)
    if struck < FEWEST_KINDS:
        row.findings.untrue.append(f"only {struck} kinds of fault struck")
    for run in PipelineRun.objects.filter(status=PipelineRun.Status.DEGRADED).select_related("item"):
        if not _questions(run.item).exists():
            row.findings.untrue.append(f"pipeline run {run.pk} is degraded, and nobody is asked")


@SUITE.add()
def key_refused(bench: Bench) -> list[Row]:
    """401, 402, 403 stop one department's line; it is probed once a minute and goes on by itself; others work on."""
    row = Row("401, 402, 403: the line stops and goes on", limit_seconds=80 * len(_statuses(bench)))
    statuses = _statuses(bench)
    with bench.site(latency_ms=20) as place:
        place.simulator.faults(
            [
                # Requests are counted for each agent; the first one of a lead is refused, and the probes after it.
                {"match": {"contains": "Refused", "agent": "intake", "nth": n}, "what": {"kind": "status", "status": s}}
                for n, s in statuses
            ]
        )
        place.start_worker()
        with audited(row, place):
            began = time.time()
            refused = [add_lead("Refused 0 AG", department="other")]
            office = Department.objects.filter(slug="other")
            wait_for(lambda: office.exclude(stopped_by_error="").exists(), "the line stops")
            refused += [add_lead(f"Refused {n} AG", department="other") for n in (1, 2)]
            neighbours = [add_lead(f"Neighbour {n} AG").item_id for n in range(3)]
            wait_settled(neighbours, 30)
            if is_settled([lead.item_id for lead in refused]):
                row.findings.untrue.append("the line stands still, and its leads were done")
            wait_settled(limit_seconds=80 * len(statuses) + 30)
            row.heal_seconds.append(time.time() - began)
            row.tried = len(statuses)
            if office.exclude(stopped_by_error="").exists():
                row.findings.untrue.append("the department still says that its line stands still")
            calls = ModelCall.objects.filter(department__slug="other", cause="account").count()
            if calls > len(statuses):
                row.findings.duplicated.append(f"{calls} calls with a key that is refused")
            if AgentRun.objects.exclude(failures=0).exists():
                row.findings.untrue.append("an agent run was charged with the key's failure")
    return [row]


def _statuses(bench: Bench) -> list[tuple[int, int]]:
    """Which request gets which status. In the short form one is refused: each further one takes a minute."""
    return list(enumerate((401, 402, 403), start=1)) if bench.form.is_full else [(1, 401)]
