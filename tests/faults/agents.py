"""Each of the ten agents failing for good, in turn and in pairs: who still worked, and on what.

``python -m tests.faults.agents [--singles]`` prints the table and ends with 1 if anything that could go on did not,
a run with a failure did not end degraded, a failure is unasked, or a step was done twice. It runs shifts in this
process against the simulator, in a scratch database that is dropped at the end.
"""

from __future__ import annotations

import argparse
import itertools
import os
import sys
import tempfile
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import django

if __name__ == "__main__":
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
    os.environ.setdefault("ANTHROPIC_API_KEY", "test-key")
    os.environ.setdefault("SQLITE_SYNCHRONOUS", "OFF")
    os.environ.setdefault("DEBUG", "1")
    django.setup()

from django.conf import settings
from django.contrib.auth.models import User
from django.db import connection
from django.test.utils import setup_databases, teardown_databases
from django.utils import timezone

from agents.models import Department
from leads.department import AGENTS
from leads.schemas import SalesSettings
from runs import reviews
from runs.database import now as database_now
from runs.models import AgentRun, Item, Output, PipelineRun, Review, Trigger
from runs.triggers import record_decision, record_reply
from runs.wording import in_words
from tests.engine import drain, make_due, make_office
from tests.factories import make_lead, make_message, make_trigger, make_user
from tests.simulator_fixture import SimulatorServer

SLUGS = tuple(agent.slug for agent in AGENTS)
NEEDS = {agent.slug: agent.needs for agent in AGENTS}
REPLY = "Yes, that sounds good. What does it cost for 1,200 consignments a month?"
LIMIT_SECONDS = 300.0
Step = tuple[str, str]
"""An agent and the kind of occasion it worked for."""


@dataclass
class Case:
    """One department in which ``broken`` agents refuse everything, with its leads and what became of them."""

    broken: tuple[str, ...]
    marker: str
    department: Department
    items: list[Item] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def runs(self, *statuses: str) -> Iterable[AgentRun]:
        """Agent runs of the department with these statuses, in the order of their ends."""
        rows = AgentRun.objects.filter(department=self.department, status__in=statuses)
        return rows.select_related("agent", "trigger", "pipeline_run", "incident").order_by("ended_at", "pk")

    def steps(self, *statuses: str) -> set[Step]:
        """The steps of those runs."""
        return {(run.agent.slug, run.trigger.kind if run.trigger else "item") for run in self.runs(*statuses)}


def combinations(*, pairs: bool) -> list[tuple[str, ...]]:
    """Nobody broken, which is what the others are compared with; then each agent; then each pair."""
    singles: list[tuple[str, ...]] = [(), *((slug,) for slug in SLUGS)]
    return singles + (list(itertools.combinations(SLUGS, 2)) if pairs else [])


def play(simulator: SimulatorServer, broken: Sequence[tuple[str, ...]], leads: int = 1) -> list[Case]:
    """Take leads of every case through first mail, follow-up, reply and decision, and look at what is there."""
    cases = [_make_case(number, slugs, leads) for number, slugs in enumerate(broken)]
    user = make_user("person")
    refusals = [
        {"match": {"agent": slug, "contains": case.marker}, "what": {"kind": "refusal"}}
        for case in cases
        for slug in case.broken
    ]
    simulator.faults(refusals)
    items = [item for case in cases for item in case.items]
    make_due(*items)
    drain(limit_seconds=LIMIT_SECONDS)
    for item in items:
        _contact(item, user)
    drain(limit_seconds=LIMIT_SECONDS)
    for item in items:
        record_reply(item=Item.objects.get(pk=item.pk), body=REPLY, subject="Re: Your freight invoices")
    drain(limit_seconds=LIMIT_SECONDS)
    baseline = next(case for case in cases if not case.broken)
    for case in cases:
        judge(case, baseline.steps("done"))
    return cases


def able(broken: Collection[str], baseline: Collection[Step]) -> set[Step]:
    """Of the steps of a department in which nothing fails, those that can be done all the same.

    Who is broken cannot; who needs what nobody can write for that occasion cannot; where neither Intake nor the
    Qualifier can say what came in, no mail is written to it.
    """
    found = {step for step in baseline if step[0] not in broken}
    if {"intake", "qualifier"} <= set(broken):
        found = {step for step in found if step[1] != "item"} | {s for s in found if s[0] in ("intake", "qualifier")}
    while True:
        writes = {(next(a.writes for a in AGENTS if a.slug == slug), kind) for slug, kind in found}
        kept = {(slug, kind) for slug, kind in found if all((key, kind) in writes for key in NEEDS[slug])}
        if kept == found:
            return kept
        found = kept


def judge(case: Case, baseline: Collection[Step]) -> None:
    """Write down in the case what is not as it must be."""
    done, failed = case.steps("done"), case.steps("failed")
    expected = able(case.broken, baseline)
    # What is made once for the item is made when it is first wanted, which may be later than usual.
    late = {agent.slug for agent in AGENTS if agent.scope == "item"}
    missing = {s for s in expected - done if not (s[0] in late and any(slug == s[0] for slug, _ in done))}
    if both := {"intake", "qualifier"} <= set(case.broken):
        missing = {step for step in missing if step[0] not in late}
    if missing:
        case.problems.append(f"did not go on: {sorted(missing)}")
    if extra := {s for s in done - expected if not (both and s[0] in late)}:
        case.problems.append(f"not expected: {sorted(extra)}")
    if {slug for slug, _ in failed} != set(case.broken):
        case.problems.append(f"failed: {sorted(failed)}")
    for run in case.runs("failed"):
        _judge_failure(case, run)
    twice = Counter((run.item_id, run.agent_id, run.trigger_id) for run in case.runs(*AgentRun.Status.values))
    case.problems += [f"twice: {key}" for key, count in twice.items() if count > 1]
    case.problems += [f"tried again: {run.agent.slug}" for run in case.runs("done") if run.attempt != 1]
    unended = PipelineRun.objects.filter(item__department=case.department, status=PipelineRun.Status.ACTIVE).count()
    if unended:
        case.problems.append(f"{unended} pipeline runs have not ended")


def _judge_failure(case: Case, run: AgentRun) -> None:
    pipeline = run.pipeline_run
    if pipeline.status != PipelineRun.Status.DEGRADED or in_words(run.agent.writes) not in pipeline.missing:
        case.problems.append(f"{run.agent.slug}: its run is {pipeline.status}, missing {pipeline.missing!r}")
    if run.incident is None or run.incident.status != Review.Status.OPEN:
        case.problems.append(f"{run.agent.slug}: nobody is asked")


def describe(case: Case) -> list[str]:
    """The case as lines of the table: who worked, for what, and on what."""
    lines = [f"{' + '.join(case.broken) or 'nobody'} fails: {'; '.join(case.problems) or 'as it must be'}"]
    outputs = {output.pk: output for output in Output.objects.filter(item__department=case.department)}
    seen: set[str] = set()
    for run in case.runs("done"):
        made = next((output for output in outputs.values() if output.agent_run_id == run.pk), None)
        inputs = [outputs[pk].key for pk in made.made_from if pk in outputs] if made else []
        kind = run.trigger.kind if run.trigger else "item"
        line = f"    {run.agent.slug:16} {kind:10} on {', '.join(inputs) or 'the lead alone'}"
        if line not in seen:
            seen.add(line)
            lines.append(line)
    missing = PipelineRun.objects.filter(item__department=case.department).exclude(missing="")
    return lines + sorted({f"    → {run.missing}" for run in missing})


def _make_case(number: int, broken: tuple[str, ...], leads: int) -> Case:
    marker = f"Werk{number:03d}"
    values: dict[str, Any] = SalesSettings(company_name=f"Tallyport {marker}").model_dump(mode="json")
    values["brand_guide"] += f" Client {marker}."
    department = make_office(f"case-{number}", settings=values)
    items = [make_lead(department, company=f"Weber {marker}").item for _ in range(leads)]
    return Case(broken, marker, department, items)


def _contact(item: Item, user: User) -> None:
    """A person sends the first mail, the department's own where it has one, and a follow-up and a decision are due."""
    item = Item.objects.get(pk=item.pk)
    review = item.reviews.filter(kind=Review.Kind.DRAFT, status=Review.Status.OPEN).first()
    if review is not None and review.output is not None:
        assert reviews.approve(review=review, user=user)
        assert reviews.mark_sent(output=review.output, user=user)
        # The decision waits until it cannot be taken back, the follow-up for days: nobody waits here.
        item.triggers.filter(kind__in=(Trigger.Kind.FOLLOW_UP, Trigger.Kind.DECISION)).update(due_at=timezone.now())
    else:
        make_message(item, "out", subject="Hello", body="Written by hand.")
        make_trigger(item, Trigger.Kind.FOLLOW_UP, payload={"number": 1})
        record_decision(item=item, payload={"answer": "approve", "key": "email", "note": "By hand."}, user=user)
    Item.objects.filter(pk=item.pk).update(route_due_at=database_now())


def main() -> int:
    """Print the table; 1 if something is not as it must be."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.agents", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--singles", action="store_true", help="each agent in turn, without the pairs")
    options = parser.parse_args()
    settings.TOOLS_NETWORK, settings.SHIFTS = False, 1
    with tempfile.TemporaryDirectory() as folder, SimulatorServer() as simulator:
        settings.ANTHROPIC_BASE_URL = simulator.base_url
        name = Path(folder, "agents.sqlite3") if connection.vendor == "sqlite" else f"kontor_agents_{os.getpid()}"
        connection.settings_dict["TEST"]["NAME"] = str(name)
        databases = setup_databases(verbosity=0, interactive=False)
        try:
            cases = play(simulator, combinations(pairs=not options.singles))
            for case in cases:
                print("\n".join(describe(case)))
        finally:
            teardown_databases(databases, verbosity=0)
    bad = sum(bool(case.problems) for case in cases)
    print(f"{len(cases)} cases, {bad} not as they must be.")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
