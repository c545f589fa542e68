"""What must be so for every department and every item that hypothesis can think of."""

from __future__ import annotations

from dataclasses import replace
from random import Random
from typing import Any, Literal

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agents.spec import Facts, OutputFact, RunFact, TriggerFact
from runs.plan import AgentView, Graph, find_cycles
from runs.router import Router, RuleView
from tests.runs.routing import started, work

KEYS = tuple("abcdefg")
KINDS = ("reply", "follow_up", "decision")
OCCASIONS = (None, 1, 2, 3)

# No time limits: the tests must not fail because the machine is busy.
patiently = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
long = settings(patiently, max_examples=200)

keys = st.lists(st.sampled_from(KEYS), max_size=3, unique=True).map(tuple)
serves = st.one_of(
    st.just(()), st.lists(st.sampled_from(("item", *KINDS)), min_size=1, max_size=2, unique=True).map(tuple)
)
facets = st.dictionaries(st.sampled_from(("tier", "flag")), st.sampled_from(("Hot", True, 1)), max_size=1)
clauses = st.fixed_dictionaries(
    {},
    optional={
        "status": st.lists(st.sampled_from(("new", "old")), min_size=1, max_size=2),
        "has": st.lists(st.sampled_from(KEYS), min_size=1, max_size=2),
        "lacks": st.lists(st.sampled_from(KEYS), min_size=1, max_size=2),
        "failed": st.lists(st.sampled_from(KEYS), min_size=1, max_size=1),
        "trigger": st.lists(st.sampled_from(KINDS), min_size=1, max_size=2, unique=True),
        "facet": st.dictionaries(st.sampled_from(("tier", "flag")), st.just(["Hot", True]), min_size=1, max_size=1),
    },
)
only_triggers: st.SearchStrategy[dict[str, Any]] = st.one_of(
    st.just({}), st.lists(st.sampled_from(KINDS), min_size=1, max_size=2, unique=True).map(lambda k: {"trigger": k})
)


@st.composite
def teams(draw: st.DrawFn, *, may_cycle: bool = True) -> list[AgentView]:
    """Up to nine agents; without circles, each takes only keys that stand before its own."""
    team = []
    for number in range(draw(st.integers(1, 9))):
        writes = draw(st.sampled_from(KEYS))
        earlier = KEYS if may_cycle else KEYS[: KEYS.index(writes)]
        takes = st.lists(st.sampled_from(earlier), max_size=3, unique=True).map(tuple) if earlier else st.just(())
        team.append(
            AgentView(
                f"{writes}{number}",
                writes,
                draw(takes),
                draw(takes),
                draw(st.sampled_from(("item", "occasion"))),
                draw(serves),
                draw(st.integers(0, 5)) > 0,
            )
        )
    return team


@st.composite
def rule_books(draw: st.DrawFn, when: st.SearchStrategy[dict[str, Any]] = clauses) -> list[RuleView]:
    """Up to five rules."""
    wants = st.lists(st.sampled_from(KEYS), min_size=1, max_size=3, unique=True).map(tuple)
    return [RuleView(f"rule {n}", draw(when), draw(wants)) for n in range(draw(st.integers(0, 5)))]


@st.composite
def items(draw: st.DrawFn, team: list[AgentView]) -> Facts:
    """An item somewhere in its life: some outputs, some runs, some open triggers."""
    nodes = st.lists(st.tuples(st.sampled_from(KEYS), st.sampled_from(OCCASIONS)), max_size=6, unique=True)
    slugs = st.sampled_from([agent.slug for agent in team])
    runs = st.lists(st.tuples(slugs, st.sampled_from(OCCASIONS)), max_size=3, unique=True)
    states: st.SearchStrategy[Literal["active", "failed"]] = st.sampled_from(("active", "failed"))
    numbers = draw(st.lists(st.sampled_from((1, 2, 3)), max_size=3, unique=True))
    return Facts(
        draw(st.sampled_from(("new", "old", "else"))),
        tuple(OutputFact(key, at, draw(facets)) for key, at in draw(nodes)),
        tuple(RunFact(slug, at, draw(states)) for slug, at in draw(runs)),
        tuple(TriggerFact(n, draw(st.sampled_from(KINDS)), draw(st.integers(0, 3)) > 0) for n in numbers),
    )


def shuffled(facts: Facts, random: Random) -> Facts:
    """The same facts in another order."""
    return replace(
        facts,
        outputs=tuple(random.sample(facts.outputs, len(facts.outputs))),
        runs=tuple(random.sample(facts.runs, len(facts.runs))),
        triggers=tuple(random.sample(facts.triggers, len(facts.triggers))),
    )


def made(facts: Facts) -> set[tuple[str, int | None]]:
    """The current outputs."""
    return {(output.key, output.occasion) for output in facts.outputs}


@patiently
@given(st.data(), st.randoms(use_true_random=False))
def test_the_same_facts_in_any_order_make_the_same_decision(data: st.DataObject, random: Random) -> None:
    team, rules = data.draw(teams()), data.draw(rule_books())
    facts = data.draw(items(team))
    router = Router(rules, team)
    decision = router.decide(facts)
    assert router.decide(shuffled(facts, random)) == decision
    assert Router(rules, team).decide(facts) == decision


@patiently
@given(st.data())
def test_it_never_starts_what_is_current_active_failed_or_disabled(data: st.DataObject) -> None:
    team = data.draw(teams())
    facts = data.draw(items(team))
    decision = Router(data.draw(rule_books()), team).decide(facts)
    by_slug = {agent.slug: agent for agent in team}
    nodes = started(decision)
    coming = {(by_slug[one.agent].writes, one.occasion) for one in facts.runs if one.state == "active"}
    assert len(nodes) == len(decision.start), "one agent is started twice for one occasion"
    for slug, occasion in nodes:
        assert by_slug[slug].is_enabled
        assert (by_slug[slug].writes, occasion) not in coming, "another agent is writing it already"
        assert (by_slug[slug].writes, occasion) not in made(facts)
        assert (slug, occasion) not in {(run.agent, run.occasion) for run in facts.runs}
        assert occasion is None or by_slug[slug].scope == "occasion"


@patiently
@given(st.data())
def test_what_starts_has_all_it_needs_and_waits_for_nothing_on_its_way(data: st.DataObject) -> None:
    team = data.draw(teams(may_cycle=False))
    facts = data.draw(items(team))
    decision = Router(data.draw(rule_books()), team).decide(facts)
    by_slug = {agent.slug: agent for agent in team}
    kinds: dict[int | None, str] = {trigger.id: trigger.kind for trigger in facts.triggers}
    on_its_way = started(decision) | {(one.agent, one.occasion) for one in decision.waiting}
    on_its_way |= {(run.agent, run.occasion) for run in facts.runs if run.state == "active"}
    graph = Graph(team, KINDS)
    for slug, occasion in started(decision):
        agent = by_slug[slug]
        for key in (*agent.needs, *agent.uses):
            step = graph.step(key, kinds.get(occasion, "item"))
            at = None if step is None or step.is_item else occasion
            there = (key, at) in made(facts) or (step is None and (key, occasion) in made(facts))
            assert there or key not in agent.needs
            assert there or step is None or (step.slug, at) not in on_its_way


@patiently
@given(st.data())
def test_every_wait_has_something_under_way(data: st.DataObject) -> None:
    team = data.draw(teams())
    facts = data.draw(items(team))
    decision = Router(data.draw(rule_books()), team).decide(facts)
    assert not decision.waiting or decision.start or any(run.state == "active" for run in facts.runs)
    assert decision.finished == (
        not decision.start and not decision.handled and all(run.state == "failed" for run in facts.runs)
    )


@long
@given(st.data(), st.randoms(use_true_random=False))
def test_it_always_finishes_whatever_fails_and_in_whatever_order(data: st.DataObject, random: Random) -> None:
    team, rules = data.draw(teams()), data.draw(rule_books())
    facts = data.draw(items(team))
    router = Router(rules, team)
    last = work(router, team, facts, random.randrange, lambda _: random.random() < 0.3, limit=100)
    assert router.decide(last).finished


@long
@given(st.data(), st.randoms(use_true_random=False))
def test_every_order_of_completions_leads_to_the_same_outputs(data: st.DataObject, random: Random) -> None:
    team, rules = data.draw(teams(may_cycle=False)), data.draw(rule_books(only_triggers))
    facts = data.draw(items(team))
    router = Router(rules, team)
    first = work(router, team, facts, lambda _: 0)
    last = work(router, team, facts, lambda count: count - 1)
    mixed = work(router, team, facts, random.randrange)
    assert made(first) == made(last) == made(mixed)
    assert {one.id for one in first.triggers} == {one.id for one in last.triggers}


@long
@given(st.data(), st.sets(st.sampled_from(KEYS)), st.randoms(use_true_random=False))
def test_every_order_leads_to_the_same_wanted_outputs_though_agents_fail(
    data: st.DataObject, lost: set[str], random: Random
) -> None:
    team, rules = data.draw(teams(may_cycle=False)), data.draw(rule_books(only_triggers))
    facts = data.draw(items(team))
    wanted = {key for rule in rules for key in rule.want}
    router = Router(rules, team)

    def fails(run: RunFact) -> bool:
        return run.agent[0] in lost

    first = work(router, team, facts, lambda _: 0, fails)
    mixed = work(router, team, facts, random.randrange, fails)
    assert {one for one in made(first) if one[0] in wanted} == {one for one in made(mixed) if one[0] in wanted}


@patiently
@given(st.data())
def test_the_trace_tells_the_decision(data: st.DataObject) -> None:
    team = data.draw(teams())
    facts = data.draw(items(team))
    router = Router(data.draw(rule_books()), team)
    decision = router.decide(facts)
    told: dict[str, set[tuple[str, int | None]]] = {}
    for agent in decision.trace["agents"]:
        told.setdefault(agent["state"], set()).add((agent["agent"], agent["occasion"]))
    assert told.get("starts", set()) == started(decision)
    assert told.get("waits", set()) == {(one.agent, one.occasion) for one in decision.waiting}
    assert told.get("skipped", set()) == {(one.agent, one.occasion) for one in decision.skipped}
    assert told.get("active", set()) >= {(run.agent, run.occasion) for run in facts.runs if run.state == "active"}
    held = [(rule["name"], rule["occasion"]) for rule in decision.trace["rules"] if rule["holds"]]
    assert held == [(rule.name, occasion) for rule, occasion in router.matching(facts)]
    assert all(not rule["failed_by"] for rule in decision.trace["rules"] if rule["holds"])
    assert all(rule["failed_by"] for rule in decision.trace["rules"] if not rule["holds"])


@patiently
@given(teams(may_cycle=False))
def test_a_team_without_circles_has_none(team: list[AgentView]) -> None:
    assert find_cycles(team) == []
