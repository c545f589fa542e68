"""Doing a step anew, also one that succeeded: first what it would mean, then the doing.

What would be made again is found out by the pure router, on the facts as they would be.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime

from django.contrib.auth.models import User
from django.db import transaction

from agents.models import Agent, Soul
from agents.pricing import PriceBook, load_price_book
from agents.spec import Facts, OutputFact, TriggerFact
from runs import dispatch, log, outputs
from runs.allowed import YES, Allowed, can_rerun, no
from runs.commits import lock_items
from runs.control import act, queue_again
from runs.database import now as database_now
from runs.facts import load_facts
from runs.models import AgentRun, Item, Output, Trigger
from runs.outputs import Node, Replacement
from runs.staff import Desk, load_staff
from runs.wording import in_words

CHANGED = "What it means has changed since you looked. This is how it stands now: look again, then start it."
ROUNDS = 60
"""More decisions than any item needs until nothing is wanted: a guard, not a limit."""


@dataclass(frozen=True, slots=True)
class Preview:
    """What doing a step anew would mean. Nodes are ``(key, trigger id)``, outputs are current ones."""

    again: tuple[Output, ...]
    """Outputs that would be made again, the step's own first."""
    dropped: tuple[Output, ...]
    """Outputs that would go, and that no rule wants any more as the item stands."""
    new: tuple[Node, ...]
    """What would be made for the first time: the rules want it then."""
    stays: tuple[Output, ...]
    """People's outputs: they stay, marked as out of date."""
    sent: tuple[Output, ...]
    """What has left the house, or may have: it stays, and is not sent again."""
    stopped: tuple[AgentRun, ...]
    """Steps that wait or are under way and would be stopped."""

    @property
    def runs(self) -> int:
        """How many steps there will be."""
        return len(self.again) + len(self.new)

    @property
    def fingerprint(self) -> str:
        """A short name for all of it: another one means that something else would happen."""
        rows = (self.again, self.dropped, self.stays, self.sent, self.stopped)
        told = [*(sorted(row.pk for row in group) for group in rows), sorted(self.new, key=repr)]
        return hashlib.sha256(json.dumps(told).encode()).hexdigest()[:16]


def souls_for(agent: Agent) -> list[Soul]:
    """The SOULs a person may choose: every number that was ever published, the newest first."""
    return list(agent.souls.exclude(status=Soul.Status.DRAFT).order_by("-number"))


def models_for(agent: Agent, prices: PriceBook | None = None) -> list[str]:
    """The models a person may choose: those that have a price, the agent's own first."""
    return sorted((prices or load_price_book()).models, key=lambda model: (model != agent.model, model))


def preview(run: AgentRun, *, now: datetime) -> Preview:
    """What doing this step anew would mean; nothing is changed."""
    desk = load_staff(only=run.department_id).desks[run.department_id]
    plan = outputs.plan_replacement(run.item, desk, run.agent.writes, run.trigger_id)
    made = _made_again(run.item, desk, plan, now)
    gone = {(output.key, output.trigger_id): output for output in plan.outputs}
    return Preview(
        again=tuple(output for node, output in gone.items() if node in made or node == plan.node),
        dropped=tuple(output for node, output in gone.items() if node not in made and node != plan.node),
        new=tuple(node for node in made if node not in gone),
        stays=tuple(plan.stale),
        sent=tuple(plan.sent),
        stopped=tuple(plan.active),
    )


def rerun(
    *,
    run: AgentRun,
    user: User,
    soul: Soul | None = None,
    model: str = "",
    reason: str = "",
    seen: str | None = None,
) -> tuple[Allowed, AgentRun | None]:
    """Do a step anew: its output goes with all that agents made from it, and a new run begins.

    ``soul`` and ``model`` hold for this one run; without them it is as any other. ``seen`` is the fingerprint of the
    preview that the person was shown: nothing is done if it would mean something else by now. Returns the new run.
    """
    with transaction.atomic():
        now = database_now()
        item = lock_items({run.item_id})[run.item_id]
        run = AgentRun.objects.select_for_update(of=("self",)).select_related("agent", "trigger").get(pk=run.pk)
        run.item = item
        staff = load_staff()
        desk = staff.desks[item.department_id]
        if not (answer := _may(run, desk, soul, model)):
            return answer, None
        if seen is not None and preview(run, now=now).fingerprint != seen:
            return no(CHANGED), None
        plan = outputs.plan_replacement(item, desk, run.agent.writes, run.trigger_id)
        chosen = _chosen(soul, model)
        why = f"{user} has it done again{chosen}{f': {reason}' if reason else '.'}"
        _, entries = outputs.replace(plan, item, desk, why=why, now=now, author=user)
        again = queue_again(run, item, why, now, cause="rerun", pinned_soul_id=soul and soul.pk, pinned_model=model)
        before = {"outputs": [output.pk for output in plan.outputs], "ended": [ended.pk for ended in plan.runs]}
        after = {"agent_run": again.pk, "soul": soul.number if soul else None, "model": model}
        act(item, user, "rerun", f"agent_run:{run.pk}", reason=reason, before=before, after=after)
        text = f"{run.agent.title} is done again{chosen}, asked by {user}."
        log.write([*entries, log.run_entry(again, "rerun", text, at=now)])
        log.write(dispatch.route([item], staff, now=now))
    return YES, again


def _may(run: AgentRun, desk: Desk, soul: Soul | None, model: str) -> Allowed:
    if not (answer := can_rerun(run)):
        return answer
    if soul is not None and (soul.agent_id != run.agent_id or soul.status == Soul.Status.DRAFT):
        return no("This SOUL was never published for the agent.")
    if model and model not in load_price_book().models:
        return no(f"There is no price for {model}, so it may not be used.")
    there: set[Node] = set(run.item.outputs.filter(is_current=True).values_list("key", "trigger_id"))
    for key in run.agent.needs:
        if (key, run.trigger_id) in there:
            continue
        is_of_item = run.trigger is not None and desk.router.is_of_item(key, run.trigger.kind)
        if not is_of_item or (key, None) not in there:
            return no(f"It needs the {in_words(key)}, which is not there. Do that step again first.")
    return YES


def _chosen(soul: Soul | None, model: str) -> str:
    parts = [f"with SOUL {soul.number}"] if soul else []
    parts += [f"on {model}"] if model else []
    return f" {' '.join(parts)}" if parts else ""


def _made_again(item: Item, desk: Desk, plan: Replacement, now: datetime) -> list[Node]:
    """What the rules would have made, one decision after the other, once the step itself is done anew."""
    gone = {(output.key, output.trigger_id): output.facets for output in plan.outputs}
    ended = {(run.agent.slug, run.trigger_id) for run in plan.runs}
    facts = load_facts([item], now=now)[item.pk]
    kept = [output for output in facts.outputs if (output.key, output.occasion) not in gone]
    # What is under way elsewhere on the item counts as done: it neither goes nor is made twice.
    left = [run for run in facts.runs if (run.agent, run.occasion) not in ended]
    kept += [OutputFact(*_node(desk, run.agent, run.occasion)) for run in left if run.state == "active"]
    kept.append(OutputFact(*plan.node, facets=gone.get(plan.node, {})))
    facts = replace(
        facts,
        outputs=tuple(kept),
        runs=tuple(run for run in left if run.state == "failed"),
        triggers=_triggers(facts, plan),
        marks=facts.marks - {"awaiting_review"},
    )
    made: list[Node] = []
    for _ in range(ROUNDS):
        facts = replace(facts, status=desk.spec.status(facts))
        decision = desk.router.decide(facts)
        nodes = [_node(desk, start.agent, start.occasion) for start in decision.start]
        made += nodes
        settled = {*decision.handled, *decision.noted}
        if not nodes and not settled:
            break
        facts = replace(
            facts,
            outputs=(*facts.outputs, *(OutputFact(*node, facets=gone.get(node, {})) for node in nodes)),
            triggers=tuple(trigger for trigger in facts.triggers if trigger.id not in settled),
        )
    return made


def _triggers(facts: Facts, plan: Replacement) -> tuple[TriggerFact, ...]:
    """The open ones, and those that would be open again."""
    handled: Iterable[Trigger] = Trigger.objects.filter(pk__in=plan.occasions, status=Trigger.Status.HANDLED)
    again = [TriggerFact(trigger.pk, trigger.kind) for trigger in handled]
    return tuple(sorted((*facts.triggers, *again), key=lambda trigger: trigger.id))


def _node(desk: Desk, agent: str, occasion: int | None) -> Node:
    return desk.agents[desk.agent_ids[agent]].writes, occasion
