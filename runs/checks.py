"""``manage.py doctor --live``: one small real call per agent. Paid like any other, so in the budgets and accounts too.

A check belongs to no item: on the costs page checks are a row of their own wherever costs are broken down by items.
"""

from __future__ import annotations

import asyncio
import time
from datetime import timedelta
from typing import Any

from django.conf import settings
from django.db import transaction

from agents.budgets import Refused
from agents.causes import Cause
from agents.llm import ModelClient, api_schema
from agents.models import Agent
from agents.replies import ModelReply
from runs.calls import CallAsk, abandon_owned, open_calls, settle_calls
from runs.database import now as database_now
from runs.health import Finding
from runs.models import AgentRun, ModelCall
from runs.shift import worker_name
from runs.staff import Desk, Staff
from runs.work import OpenCall, SeenCall

MAX_TOKENS = 1_024
LOST_AFTER = timedelta(minutes=15)
"""So long after its start nobody waits for a check any more: longer than any agent's time-out."""
_TEXT = "This is a test. Answer as briefly as the schema allows."


def check_agents(staff: Staff) -> list[Finding]:
    """Whether each agent can be called: key, model, schema, price, budget. One call after the other."""
    return [_check(desk, agent, staff) for desk in staff.desks.values() for agent in desk.agents.values()]


def abandon_checks() -> int:
    """Each minute: checks whose command was ended midway stand at what they had reserved. Returns how many."""
    now = database_now()
    lost = ModelCall.objects.filter(item=None, status=ModelCall.Status.STARTED, started_at__lt=now - LOST_AFTER)
    with transaction.atomic():
        return len(abandon_owned(lost, now=now, error="The check was ended before its answer was seen."))


def _check(desk: Desk, agent: Agent, staff: Staff) -> Finding:
    name, params = f"{desk.department.slug}/{agent.slug}", _params(desk, agent)
    with transaction.atomic():
        opened = _open(desk, agent, params, staff)
    if isinstance(opened, Refused):
        return Finding(name, False, f"{agent.model} was not called: {opened.reason}")
    began = time.monotonic()
    reply = asyncio.run(_call(opened))
    seconds = time.monotonic() - began
    with transaction.atomic():
        settle_calls([SeenCall(opened, reply)], staff, now=database_now())
    # An answer that was cut has come all the same: the API took key, model and schema.
    is_well = reply.cause in (Cause.NONE, Cause.TRUNCATED)
    text = f"{agent.model} answered in {seconds:.1f} s." if is_well else f"{agent.model}: {reply.error}"
    return Finding(name, is_well, text)


def _params(desk: Desk, agent: Agent) -> dict[str, Any]:
    schema = api_schema(desk.agent_spec(agent).schema)
    return {
        "model": agent.model,
        "max_tokens": MAX_TOKENS,
        "messages": [{"role": "user", "content": _TEXT}],
        "output_config": {"format": {"type": "json_schema", "schema": schema}},
    }


def _open(desk: Desk, agent: Agent, params: dict[str, Any], staff: Staff) -> OpenCall | Refused:
    run = AgentRun(pk=agent.pk, department_id=desk.department.pk, agent_id=agent.pk)  # never saved
    ask = CallAsk(run, agent, None, desk.department.api_key_env, 1, 1, params, is_check=True)
    return open_calls([ask], staff, now=database_now(), worker=worker_name())[run.pk]


async def _call(opened: OpenCall) -> ModelReply:
    client = ModelClient(settings.ANTHROPIC_BASE_URL)
    try:
        return await client.call(opened.request)
    finally:
        await client.close()
