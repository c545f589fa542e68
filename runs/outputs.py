"""The one way to replace an output: inject, edit, correct, send back and rerun all come through here.

Under the item's lock it retires the key for its occasion and every agent-made output that was made from it, takes
the token from active runs of those keys, clears their failures, and withdraws what was asked about them and what
was to be sent of them. What a person wrote stays, marked stale; what has left the house stays as it was.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from django.contrib.auth.models import User
from django.db.models import Max, Q, QuerySet

from agents.models import Agent
from agents.spec import ITEM, AgentSpec, DepartmentSpec
from runs import log
from runs.calls import abandon_calls
from runs.failure_reviews import RETRY, answer_run
from runs.inputs import schema_version
from runs.models import AgentRun, Item, LogEntry, Message, OutboxMessage, Output, Review, Trigger
from runs.staff import Desk
from runs.wording import in_words

Node = tuple[str, int | None]
"""An output key at an occasion: the trigger's id, None for the item itself."""
_COUNTING = (*AgentRun.ACTIVE, AgentRun.Status.FAILED)


@dataclass(slots=True)
class Replacement:
    """What goes and what stays when one output is replaced. A plan; nothing is changed by making one."""

    node: Node
    replaced: Output | None = None
    retired: list[Output] = field(default_factory=list)
    """Outputs of agents that were made from it, directly or not."""
    stale: list[Output] = field(default_factory=list)
    """Outputs of people that were made from it: they stay, marked."""
    has_left: bool = False
    """Whether the replaced output itself has left the house, or may have: then it must not be replaced."""
    sent: list[Output] = field(default_factory=list)
    """Outputs that have left the house, or may have: they stay as they were."""
    active: list[AgentRun] = field(default_factory=list)
    failed: list[AgentRun] = field(default_factory=list)

    @property
    def outputs(self) -> list[Output]:
        """Everything that is no longer current afterwards."""
        return [*([self.replaced] if self.replaced else []), *self.retired]

    @property
    def occasions(self) -> set[int]:
        """The triggers for which something is to be made again."""
        nodes = [self.node[1], *(o.trigger_id for o in self.outputs), *(r.trigger_id for r in self.runs)]
        return {trigger_id for trigger_id in nodes if trigger_id is not None}

    @property
    def runs(self) -> list[AgentRun]:
        """The runs that end by it."""
        return [*self.active, *self.failed]


def plan_replacement(item: Item, desk: Desk, key: str, trigger_id: int | None) -> Replacement:
    """What replacing the output of this key and occasion would retire, and what would stay; four queries."""
    plan = Replacement((key, trigger_id))
    outputs = list(item.outputs.filter(is_current=True).select_related("trigger", "agent_run").order_by("pk"))
    runs = list(item.agent_runs.filter(status__in=_COUNTING).select_related("agent", "trigger").order_by("pk"))
    rows: list[Output | AgentRun] = [*outputs, *runs]
    gone = _left_the_house(outputs)
    spent = _spent(outputs, gone, desk)
    left = gone | spent.keys()
    takers: dict[Node, list[Output | AgentRun]] = {}
    for row in rows:
        agent = _agent_of(row, desk)
        for taken in (*agent.needs, *agent.uses) if agent else ():
            takers.setdefault(_source(desk, taken, row.trigger), []).append(row)
    seen: set[Node] = set()
    _mark(plan, plan.node, [row for row in rows if _node(row) == plan.node], left, is_first=True)
    plan.has_left = plan.replaced is not None and plan.replaced.pk in gone
    nodes = [plan.node]
    while nodes:
        node = nodes.pop()
        if node in seen:
            continue
        seen.add(node)
        nodes += _mark(plan, node, [row for row in takers.get(node, ()) if _node(row) not in seen], left)
    kept = {spent.get(output.pk, output.pk) for output in plan.sent}
    plan.sent = [output for output in outputs if output.pk in kept]
    return plan


def replace(
    plan: Replacement,
    item: Item,
    desk: Desk,
    *,
    why: str,
    now: datetime,
    payload: Mapping[str, Any] | None = None,
    author: User | None = None,
    origin: str = Output.Origin.INJECTED,
) -> tuple[Output | None, list[LogEntry]]:
    """Carry the plan out on the locked item: the new output, None without a ``payload``, and unsaved log lines.

    The caller makes the plan under the same lock, stores its Action, and routes the item, which is due.
    """
    cancelled, entries = _end_runs(plan, author, why, now)
    Output.objects.filter(pk__in=[output.pk for output in plan.outputs]).update(is_current=False, retired_why=why[:200])
    Output.objects.filter(pk__in=[output.pk for output in plan.stale]).update(is_stale=True)
    gone = [output.pk for output in plan.outputs]
    Review.objects.filter(output__in=gone, status=Review.Status.OPEN).update(
        status=Review.Status.WITHDRAWN, answer_note=why, answered_at=now
    )
    keep_silent(gone, why, now, cancelled)
    OutboxMessage.objects.filter(output__in=gone, status=OutboxMessage.Status.PENDING).update(
        status=OutboxMessage.Status.WITHDRAWN, reason=why[:300], waiting_for=""
    )
    # What was handled is open again, or no rule would want for it what is now missing.
    Trigger.objects.filter(pk__in=plan.occasions, status=Trigger.Status.HANDLED).update(
        status=Trigger.Status.OPEN, settled_at=None, settled_note=""
    )
    if not item.agent_runs.filter(status=AgentRun.Status.FAILED).exists():
        item.flag = ""
    item.route_due_at = now
    item.save(update_fields=["flag", "route_due_at", "changed_at"])
    if plan.retired:
        keys = ", ".join(dict.fromkeys(in_words(output.key) for output in plan.retired))
        entries.append(log.item_entry(item, "retired", f"No longer current: {keys}. {why}", at=now))
    if payload is None:
        return None, entries
    output = _write(plan, item, desk, payload, author, origin, now)
    text = f"{author or 'Somebody'} wrote {in_words(output.key)} {output.number}. {why}"
    return output, [*entries, log.item_entry(item, "output", text, at=now)]


def keep_silent(output_ids: Sequence[int], why: str, now: datetime, cancelled: Sequence[int] = ()) -> None:
    """Tell no agent any more that these outputs were approved: they are taken back before they have left.

    ``cancelled``: runs that have ended already, whose calls are settled with those of who is at work on the news.
    """
    about = Q(output__in=output_ids) | Q(edited__in=output_ids)
    approved = Review.objects.filter(about, status=Review.Status.ANSWERED, answer__in=Review.APPROVALS)
    news = [f"review:{pk}" for pk in approved.values_list("pk", flat=True)]
    told = Trigger.objects.filter(kind=Trigger.Kind.DECISION, source__in=news)
    take_back_news(told, why, now, cancelled)


def take_back_news(triggers: QuerySet[Trigger], why: str, now: datetime, cancelled: Sequence[int] = ()) -> None:
    """What these triggers tell is no longer so: nobody is told, who is at work on it stops, nothing leaves of it.

    ``cancelled`` as in ``keep_silent``.
    """
    ids = list(triggers.values_list("pk", flat=True))
    told = AgentRun.objects.filter(trigger__in=ids, status__in=AgentRun.ACTIVE).select_related("agent")
    runs = list(told.select_for_update(of=("self",)).order_by("pk"))
    log.write([cancel_run(run, why, now) for run in runs])
    # All at once: budgets are locked after all runs, and in id order, whichever run reserved in which.
    if ended := [*cancelled, *(run.pk for run in runs)]:
        abandon_calls(ended, now=now, error=why)
    if not ids:
        return
    Trigger.objects.filter(pk__in=ids, status=Trigger.Status.OPEN).update(
        status=Trigger.Status.NOTED, settled_at=now, settled_note=why[:300]
    )
    OutboxMessage.objects.filter(trigger__in=ids, status=OutboxMessage.Status.PENDING).update(
        status=OutboxMessage.Status.WITHDRAWN, reason=why[:300], waiting_for=""
    )


def writer_of(spec: DepartmentSpec, key: str, occasion_kind: str) -> AgentSpec:
    """The declaration of the agent that writes a key for a kind of occasion; LookupError if nobody does."""
    agent = spec.writer(key, occasion_kind)
    if agent is None:
        raise LookupError(f"No agent writes {key!r} for the occasion {occasion_kind!r}.")
    return agent


def _agent_of(row: Output | AgentRun, desk: Desk) -> Agent | None:
    """Whose work it is; of what a person wrote, the agent that would have written it for this occasion."""
    made_by = row.agent_run if isinstance(row, Output) else row
    if made_by is not None:
        return desk.agents.get(made_by.agent_id)
    occasion = row.trigger.kind if row.trigger else ITEM
    writers = (agent for agent in desk.agents.values() if isinstance(row, Output) and agent.writes == row.key)
    return next((agent for agent in writers if agent.works_for(occasion)), None)


def _source(desk: Desk, key: str, trigger: Trigger | None) -> Node:
    """Where an agent at work for this occasion finds the key."""
    is_of_item = trigger is None or desk.router.is_of_item(key, trigger.kind)
    return key, None if is_of_item or trigger is None else trigger.pk


def _node(row: Output | AgentRun) -> Node:
    return (row.key if isinstance(row, Output) else row.agent.writes), row.trigger_id


def _mark(
    plan: Replacement, node: Node, rows: Sequence[Output | AgentRun], left: set[int], *, is_first: bool = False
) -> list[Node]:
    """Sort these rows into the plan; the nodes whose takers are next. What stays passes nothing on."""
    following = []
    for row in rows:
        if isinstance(row, AgentRun):
            known = plan.failed if row.status == AgentRun.Status.FAILED else plan.active
        elif is_first:
            plan.replaced = row
            continue
        elif row.pk in left:
            known = plan.sent  # type: ignore[assignment]
        elif row.is_by_person:
            known = plan.stale  # type: ignore[assignment]
        else:
            known = plan.retired  # type: ignore[assignment]
        if row not in known:
            known.append(row)  # type: ignore[arg-type]
        if isinstance(row, AgentRun) or row in plan.retired:
            following.append(_node(row))
    return following


def _left_the_house(outputs: Iterable[Output]) -> set[int]:
    ids = [output.pk for output in outputs]
    written = Message.objects.filter(output__in=ids, direction=Message.Direction.OUT)
    underway = OutboxMessage.objects.filter(output__in=ids, status__in=OutboxMessage.LEFT)
    return {pk for rows in (written, underway) for pk in rows.values_list("output_id", flat=True) if pk is not None}


def _spent(outputs: Sequence[Output], gone: Iterable[int], desk: Desk) -> dict[int, int]:
    """What was made for the same occasion as something that has left, which is made from it: that occasion is over.

    ``{id: id of what has left}``. A draft whose mail was sent is not written again, nor a reply that was answered
    read again. What is made once for the item goes on to serve other occasions.
    """
    by_pk = {output.pk: output for output in outputs}
    found: dict[int, int] = {}
    left = [(pk, pk) for pk in gone]
    while left:
        made_pk, sent_pk = left.pop()
        made = by_pk[made_pk]
        for pk in made.made_from:
            source = by_pk.get(pk)
            if source is None or pk in found or source.trigger_id != made.trigger_id:
                continue
            agent = _agent_of(source, desk)
            if agent is not None and agent.scope == Agent.Scope.OCCASION:
                found[pk] = sent_pk
                left.append((pk, sent_pk))
    return found


def _end_runs(plan: Replacement, author: User | None, why: str, now: datetime) -> tuple[list[int], list[LogEntry]]:
    """Take the token from active runs and clear failures: what they were about is no longer so.

    Returns the ids of those that were active, whose calls the caller settles, and unsaved log lines.
    """
    ids = sorted(run.pk for run in plan.runs)
    rows = AgentRun.objects.filter(pk__in=ids, status__in=_COUNTING).select_related("agent", "department")
    entries = []
    ended = list(rows.select_for_update(of=("self",)).order_by("pk"))
    # Questions about failures are locked by agent and cause: everybody in the same order.
    ended.sort(key=lambda run: (run.department_id, run.agent.slug, run.cause))
    for run in ended:
        if run.status == AgentRun.Status.FAILED:
            answer_run(run, answer=RETRY, user=author, now=now, note=why)
            run.status = AgentRun.Status.SUPERSEDED
            run.save(update_fields=["status"])
            continue
        entries.append(cancel_run(run, why, now))
    return [run.pk for run in ended if run.status == AgentRun.Status.CANCELLED], entries


def cancel_run(run: AgentRun, why: str, now: datetime) -> LogEntry:
    """Take the token from a locked active run. The caller settles its open calls; the shift closes its stream."""
    run.status, run.ended_at, run.error = AgentRun.Status.CANCELLED, now, why
    run.lease_token = run.lease_expires_at = run.waiting_since = None
    run.waiting_for = ""
    run.save(
        update_fields=[
            *("status", "ended_at", "error", "lease_token", "lease_expires_at", "waiting_since", "waiting_for")
        ]
    )
    return log.run_entry(run, "cancelled", f"{run.agent.title} was stopped. {why}", at=now)


def _write(
    plan: Replacement,
    item: Item,
    desk: Desk,
    payload: Mapping[str, Any],
    author: User | None,
    origin: str,
    now: datetime,
) -> Output:
    key, trigger_id = plan.node
    trigger = Trigger.objects.get(pk=trigger_id) if trigger_id is not None else None
    spec = writer_of(desk.spec, key, trigger.kind if trigger else ITEM)
    newest = item.outputs.filter(key=key).aggregate(newest=Max("number"))["newest"] or 0
    return Output.objects.create(
        item=item,
        key=key,
        trigger=trigger,
        number=newest + 1,
        payload=payload,
        facets={name: payload[name] for name in spec.facets if name in payload},
        schema_version=schema_version(spec.schema),
        made_from=plan.replaced.made_from if plan.replaced else [],
        author=author,
        origin=origin,
        replaces=plan.replaced,
    )
