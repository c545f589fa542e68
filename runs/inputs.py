"""What agents are given: gathered for many agent runs in a fixed number of queries."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from pydantic import BaseModel

from agents import prompts
from agents.llm import api_schema
from agents.models import Agent, Soul
from agents.statements import Among, Statement
from agents.tools import tool_definitions
from runs.gates import Choice
from runs.models import AgentRun, Message, Output, Review, SendBack
from runs.staff import Desk

LAST_MESSAGES = 3
LAST_NOTES = 5
FOR_PEOPLE = "reasoning_summary"
"""The key of an output that is for people: what decided it. Later agents work on the output itself."""
Node = tuple[int, str, int | None]
"""An item, an output key, and the occasion: the trigger's id, None for the item itself."""
_OUTPUTS = Statement(
    lambda: Output.objects.filter(Among("item_id", "items"), is_current=True).values_list(
        "pk", "item_id", "key", "trigger_id", "payload"
    )
)
_MESSAGES = Statement(lambda: Message.objects.filter(Among("item_id", "items")).order_by("at", "pk"))
_SENT_BACK = Statement(
    lambda: (
        SendBack.objects.filter(Among("item_id", "items"))
        .order_by("pk")
        .values_list("item_id", "key", "trigger_id", "note", "review__reason_code", "output__payload")
    )
)


@dataclass(frozen=True, slots=True)
class Prepared:
    """The material of one agent run: what the model gets, what it was made from, and its fingerprint."""

    data: prompts.AgentInput
    made_from: tuple[int, ...]
    fingerprint: str


def gather_inputs(runs: Sequence[AgentRun], desks: Mapping[int, Desk]) -> dict[int, Prepared]:
    """The inputs of every run: ``{run id: Prepared}``. Runs need ``trigger`` selected, their departments a desk."""
    item_ids = {run.item_id for run in runs}
    outputs: dict[Node, tuple[int, Any]] = {}
    for pk, item_id, key, trigger_id, payload in _OUTPUTS.rows(items=item_ids):
        outputs[item_id, key, trigger_id] = (pk, payload)
    messages: dict[int, list[Message]] = {}
    for message in _MESSAGES.objects(items=item_ids):
        messages.setdefault(message.item_id, []).append(message)
    rounds: dict[Node, list[tuple[str, str, Any]]] = {}
    for item_id, key, trigger_id, *told in _SENT_BACK.rows(items=item_ids):
        rounds.setdefault((item_id, key, trigger_id), []).append(tuple(told))
    fields = _load_fields(runs, desks)
    return {
        run.pk: _prepare(run, desks[run.department_id], outputs, fields[run.item_id], messages, rounds) for run in runs
    }


def build_params(agent: Agent, soul: Soul, desk: Desk, data: prompts.AgentInput, choice: Choice) -> dict[str, Any]:
    """The Messages API parameters of the first request of an agent run."""
    settings = prompts.settings_text(desk.department.settings, tuple(agent.settings_keys))
    config: dict[str, Any] = {"format": {"type": "json_schema", "schema": api_schema(desk.agent_spec(agent).schema)}}
    if agent.effort:
        config["effort"] = agent.effort
    params: dict[str, Any] = {
        "model": choice.model,
        "max_tokens": agent.max_tokens,
        "system": prompts.system_blocks(
            soul.text, agent.writes, settings, has_tools=bool(agent.tools), fallback_note=choice.fallback_note
        ),
        "messages": [{"role": "user", "content": prompts.user_message(data, agent.writes)}],
        "output_config": config,
    }
    if agent.tools:
        params["tools"] = tool_definitions(agent.tools)
    return params


@cache
def schema_version(model: type[BaseModel]) -> str:
    """A short name for one shape of an output: it changes when the schema does."""
    return hashlib.sha256(json.dumps(model.model_json_schema(), sort_keys=True).encode()).hexdigest()[:12]


def conversation(messages: Sequence[Message], limit: int) -> dict[str, Any]:
    """A summary and the last three messages, each of at most ``limit`` characters. Notes are not part of it."""
    mails = [message for message in messages if message.direction != Message.Direction.NOTE]
    earlier = mails[:-LAST_MESSAGES]
    summary = "No earlier messages."
    if earlier:
        subjects = ", ".join(dict.fromkeys(m.subject for m in earlier if m.subject)) or "none"
        received = sum(m.direction == Message.Direction.IN for m in earlier)
        summary = (
            f"{len(earlier)} earlier messages from {earlier[0].at:%Y-%m-%d} to {earlier[-1].at:%Y-%m-%d}, "
            f"{received} received and {len(earlier) - received} sent; subjects: {subjects[:500]}."
        )
    last = [
        {
            "direction": m.get_direction_display(),
            "at": f"{m.at:%Y-%m-%d %H:%M}",
            "subject": m.subject,
            "body": _capped(m.body, limit),
        }
        for m in mails[-LAST_MESSAGES:]
    ]
    return {"summary": summary, "messages": last}


def _prepare(
    run: AgentRun,
    desk: Desk,
    outputs: dict[Node, tuple[int, Any]],
    fields: dict[str, Any],
    messages: dict[int, list[Message]],
    rounds: dict[Node, list[tuple[str, str, Any]]],
) -> Prepared:
    agent = desk.agents[run.agent_id]
    given: dict[str, Any] = {}
    made_from = []
    for key in (*agent.needs, *agent.uses):
        found = outputs.get((run.item_id, key, run.trigger_id))
        # The first mail's fact check says nothing about an answer: only what is the item's own stands in.
        if found is None and run.trigger is not None and desk.router.is_of_item(key, run.trigger.kind):
            found = outputs.get((run.item_id, key, None))
        if found:
            made_from.append(found[0])
            given[key] = {name: value for name, value in found[1].items() if name != FOR_PEOPLE}
    mails = messages.get(run.item_id, [])
    notes = [_capped(m.body, agent.field_chars) for m in mails if m.direction == Message.Direction.NOTE][-LAST_NOTES:]
    data = prompts.AgentInput(
        item={name: _capped(fields[name], agent.field_chars) for name in agent.fields if fields.get(name)},
        outputs=given,
        trigger=_trigger(run, agent, mails),
        conversation=conversation(mails, agent.field_chars) if agent.conversation else None,
        notes=tuple(notes),
        sent_back=_sent_back(rounds.get((run.item_id, agent.writes, run.trigger_id), ()), agent.field_chars),
    )
    soul = desk.souls.get(agent.pk)
    chosen: list[Any] = [run.pinned_soul_id or (soul.pk if soul else None)]
    if run.pinned_model:
        chosen.append(run.pinned_model)
    stable = json.dumps([data.as_json(), *chosen], sort_keys=True, default=str)
    return Prepared(data, tuple(made_from), hashlib.sha256(stable.encode()).hexdigest())


def _sent_back(rounds: Sequence[tuple[str, str, Any]], limit: int) -> tuple[dict[str, Any], ...]:
    """Every round in which a person had this written again: the note, and what it was about."""
    return tuple(
        {
            "round": number,
            "note": _capped(note, limit),
            **({"reason": str(Review.ReasonCode(code).label)} if code else {}),
            "what_was_sent_back": {
                name: _capped(value, limit) for name, value in (payload or {}).items() if name != FOR_PEOPLE
            },
        }
        for number, (note, code, payload) in enumerate(rounds, start=1)
    )


def _trigger(run: AgentRun, agent: Agent, messages: Sequence[Message]) -> dict[str, Any] | None:
    """What the agent is told of the occasion; a reply that it reads in the conversation is not said twice."""
    if run.trigger is None:
        return None
    payload = {name: _capped(value, agent.field_chars) for name, value in run.trigger.payload.items()}
    mails = [message for message in messages if message.direction != Message.Direction.NOTE]
    if agent.conversation and any(mail.trigger_id == run.trigger_id for mail in mails[-LAST_MESSAGES:]):
        payload.pop("body", None)
    return {"kind": run.trigger.kind, "payload": payload}


def _capped(value: Any, limit: int) -> Any:
    """A field no longer than its agent may see; what is cut off is said."""
    if isinstance(value, str):
        return value if len(value) <= limit else f"{value[:limit]} … [{len(value) - limit} characters cut]"
    text = json.dumps(value, ensure_ascii=False, default=str)
    return value if len(text) <= limit else f"{text[:limit]} … [{len(text) - limit} characters cut]"


def _load_fields(runs: Sequence[AgentRun], desks: Mapping[int, Desk]) -> dict[int, dict[str, Any]]:
    by_kind: dict[str, list[AgentRun]] = {}
    for run in runs:
        by_kind.setdefault(desks[run.department_id].spec.kind, []).append(run)
    fields: dict[int, dict[str, Any]] = {run.item_id: {} for run in runs}
    for group in by_kind.values():
        spec = desks[group[0].department_id].spec
        fields.update(spec.load_fields({run.item_id for run in group}))
    return fields
