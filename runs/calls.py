"""The accounts of model calls: reserved and written down before the request goes out, settled by what was reported.

Called inside a transaction that has locked the agent runs or try-outs; locks budgets last.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import uuid4

from django.db.models import Case, F, QuerySet, Value, When

from agents.budgets import Ask, Refused, Settlement, reserve, settle
from agents.models import Agent, ModelPrice
from agents.pricing import PriceBook, UnknownPrice, Usage, billed_usd, cost_usd
from agents.reading import storable, storable_json
from agents.replies import ModelReply, ModelRequest
from agents.statements import Among, Statement
from runs.database import increase_rows, insert_rows, update_rows
from runs.models import AgentRun, ModelCall, ModelCallBody, ToolCall
from runs.staff import Staff
from runs.work import OpenCall, SeenCall, ToolUse

LATE = "The answer came after its run had been taken away, and was not used."
UNUSED = "The answer was not used: its attempt ended without an output."
_ZERO = Decimal(0)
_UNSETTLED = Statement(
    lambda: (
        ModelCall.objects.filter(Among("pk", "calls"))
        .exclude(status=ModelCall.Status.FINISHED)
        .select_for_update()
        .order_by("pk")
        .values_list("pk", "status", "reserved_in")
    )
)
_SETTLED = [
    "status",
    "model_used",
    "input_tokens",
    "cache_write_5m_tokens",
    "cache_write_1h_tokens",
    "cache_read_tokens",
    "output_tokens",
    "thinking_tokens",
    "price",
    "cost_usd",
    "is_estimate",
    "cause",
    "error",
    "http_status",
    "stop_reason",
    "request_id",
    "ended_at",
    "latency_ms",
    "first_token_ms",
]


@dataclass(frozen=True, slots=True)
class CallAsk:
    """A request that wants to go out, for the agent run that holds ``attempt``.

    With ``try_out_id`` it is that try-out's, and ``run`` is the unsaved agent run that the try-out stands for. A check
    (``runs.checks``) has an unsaved run too, without an item.
    """

    run: AgentRun
    agent: Agent
    soul_id: int | None
    """None: a draft, which is not kept as it was."""
    api_key_env: str
    attempt: int
    number: int
    params: dict[str, Any]
    try_out_id: int | None = None
    is_check: bool = False

    @property
    def owner(self) -> dict[str, int]:
        """Whose call it is, by the columns of the call; a check is nobody's."""
        if self.is_check:
            return {}
        return {"agent_run_id": self.run.pk} if self.try_out_id is None else {"try_out_id": self.try_out_id}


def open_calls(asks: Sequence[CallAsk], staff: Staff, *, now: datetime, worker: str) -> dict[int, OpenCall | Refused]:
    """Reserve the worst case of every request and write its ModelCall as ``started``.

    Returns ``{run id: OpenCall | Refused}``. A model without a price is refused with that sentence.
    """
    answers: dict[int, OpenCall | Refused] = {}
    bounds: dict[int, tuple[Decimal, int]] = {}
    for ask in asks:
        try:
            bounds[ask.run.pk] = bound_of(ask.params, staff.prices, now.date())
        except UnknownPrice as error:
            answers[ask.run.pk] = Refused(str(error), now + timedelta(minutes=1))
    granted = reserve(
        [
            Ask(ask.run.pk, ask.run.department_id, ask.agent.pk, ask.params["model"], *bounds[ask.run.pk])
            for ask in asks
            if ask.run.pk in bounds
        ],
        now=now,
    )
    calls, opened = [], []
    for ask in asks:
        grant = granted.get(ask.run.pk)
        if grant is None:
            continue
        if isinstance(grant, Refused):
            answers[ask.run.pk] = grant
            continue
        calls.append(_call_row(ask, bounds[ask.run.pk], grant.period_ids, now, worker))
        opened.append(ask)
    insert_rows(calls)
    insert_rows(_body(call, ask) for call, ask in zip(calls, opened, strict=True))
    for call, ask in zip(calls, opened, strict=True):
        answers[ask.run.pk] = _open_call(call, ask)
    return answers


def bound_of(params: dict[str, Any], prices: PriceBook, day: date) -> tuple[Decimal, int]:
    """The most that a request can cost, in US dollars and tokens; UnknownPrice if its model has none on the day."""
    size = len(json.dumps(params, ensure_ascii=False, separators=(",", ":")).encode())
    return prices.reservation(params["model"], day, size, params["max_tokens"])


def find_open(ask: CallAsk) -> OpenCall | None:
    """The call of this number that is open already: it was written, and the answer that it was did not arrive."""
    call = ModelCall.objects.filter(
        **ask.owner, attempt=ask.attempt, number=ask.number, status=ModelCall.Status.STARTED
    ).first()
    return _open_call(call, ask) if call is not None else None


def discard_answers(calls: QuerySet[ModelCall]) -> None:
    """Answers that were fine but thrown away, for their attempt ended without an output: each says so, as a failed
    one says why. What the sums of costs hold as used is moved there. The runs or try-outs of the calls are locked."""
    answered = calls.filter(status=ModelCall.Status.FINISHED, cause="", error="")
    done, used = ModelCall.Rolled.DONE, ModelCall.Rolled.USED
    answered.update(error=UNUSED, rolled=Case(When(rolled=done, then=Value(used)), default=F("rolled")))


def settle_calls(seen: Sequence[SeenCall], staff: Staff, *, now: datetime) -> None:
    """Write down what the calls brought and cost, and release what was reserved beyond that. Repeating it is harmless.

    A call that was given up as unseen and answers late replaces its estimate by the actual cost; it is of no use, for
    whoever gave it up has taken its run away.
    """
    if not seen:
        return
    by_pk = {entry.call.pk: entry for entry in seen}
    rows, bodies, settlements, tools, costs = [], [], [], [], []
    for pk, status, reserved_in in _UNSETTLED.rows(calls=by_pk):
        entry = by_pk[pk]
        call = entry.call
        price, cost, is_estimate = _cost(call, entry.reply, staff)
        was_unseen = status == ModelCall.Status.UNSEEN
        # Where the texts of a call are gone, its person may have been erased: nothing of them is written again.
        is_gone = was_unseen and not ModelCallBody.objects.filter(call=pk).exists()
        error = "" if is_gone else entry.reply.error or entry.remark
        rows.append(_settled_row(entry, price, cost, is_estimate, now, error or (LATE if was_unseen else "")))
        bodies.append((pk, storable_json(entry.reply.as_json())))
        # The reservation of a call that was given up is booked as spent: only the difference is left to book.
        if call.run_id is not None:
            costs.append((call.run_id, cost - call.reserved_usd if was_unseen else cost))
        if reserved_in:  # as it is now: a budget that was made meanwhile counts it, too
            settlements.append(_settlement(call, reserved_in, cost, entry.reply, was_unseen))
        tools += [_tool_row(call, use) for use in entry.tools if not is_gone]
    update_rows(ModelCall, _SETTLED, rows)
    update_rows(ModelCallBody, ["response"], bodies)
    increase_rows(AgentRun, "cost_usd", costs)
    insert_rows(tools)
    settle(settlements)


def abandon_calls(
    run_ids: Iterable[int], *, now: datetime, error: str = "The worker was lost before the answer was seen."
) -> None:
    """Runs whose attempt ends without an output: calls whose end nobody saw stand at their reservation, marked as an
    estimate; ``error`` says why. What the attempt was answered before is discarded."""
    owned = ModelCall.objects.filter(agent_run_id__in=list(run_ids))
    calls = abandon_owned(owned, now=now, error=error)
    discard_answers(owned)
    increase_rows(AgentRun, "cost_usd", [(call.agent_run_id, call.reserved_usd) for call in calls])


def abandon_try_outs(try_out_ids: Iterable[int], *, now: datetime, error: str) -> None:
    """The same for try-outs that end without an answer."""
    owned = ModelCall.objects.filter(try_out_id__in=list(try_out_ids))
    abandon_owned(owned, now=now, error=error)
    discard_answers(owned)


def abandon_owned(owned: QuerySet[ModelCall], *, now: datetime, error: str) -> list[ModelCall]:
    """Those of the calls that are under way, booked as ``abandon_calls`` says; their runs are the caller's business."""
    calls = list(owned.filter(status=ModelCall.Status.STARTED).select_for_update(of=("self",)).order_by("pk"))
    update_rows(
        ModelCall,
        ["status", "cost_usd", "is_estimate", "ended_at", "error"],
        [
            (
                c.pk,
                ModelCall.Status.UNSEEN,
                c.reserved_usd,
                True,
                now,
                error,
            )
            for c in calls
        ],
    )
    settle(
        [
            Settlement(tuple(c.reserved_in), c.reserved_usd, c.reserved_tokens, c.reserved_usd, c.reserved_tokens)
            for c in calls
            if c.reserved_in
        ]
    )
    return calls


def _cost(call: OpenCall, reply: ModelReply, staff: Staff) -> tuple[ModelPrice | None, Decimal, bool]:
    """The price row, the cost, and whether it is an estimate.

    An honest server answers with the model that was asked (a fallback is a request of its own), so the cost stays
    within the reservation. One that names a dearer model is booked at that price, as its invoice would be: the budget
    may then be passed by this call, and nothing starts any more.
    """
    if reply.has_unpriced_fees:
        return None, call.reserved_usd, True
    usage, day, asked = reply.usage, call.started_at.date(), call.request.params["model"]
    # A server may name the model differently: then it is priced as the one we asked for.
    for model in (reply.model, asked):
        try:
            price = staff.prices.price_for(model, day, usage.prompt_tokens)
            break
        except UnknownPrice:
            continue
    else:
        return (None, call.reserved_usd, True) if reply.was_sent else (None, _ZERO, False)
    if reply.is_usage_final or not reply.was_sent:
        return price, billed_usd(usage, price, reply.cause), False
    return price, cost_usd(_used(call, reply), price) if usage.total_tokens else call.reserved_usd, True


def _used(call: OpenCall, reply: ModelReply) -> Usage:
    """What a call has used: as reported; of one whose end was not seen, the prompt as reported and the output that was
    shown. Where a model may have thought that can only be bounded, by all the room it had: no budget may be overrun."""
    if reply.is_usage_final or not reply.was_sent:
        return reply.usage
    room, seen = int(call.request.params["max_tokens"]), reply.seen_usage
    if seen is None:
        return replace(reply.usage, output_tokens=max(reply.usage.output_tokens, room))
    return replace(seen, output_tokens=max(reply.usage.output_tokens, min(seen.output_tokens, room)))


def _tokens(call: OpenCall, reply: ModelReply) -> int:
    """What counts against a budget in tokens."""
    is_known = reply.is_usage_final or not reply.was_sent or reply.usage.total_tokens
    return _used(call, reply).total_tokens if is_known else call.reserved_tokens


def _settlement(
    call: OpenCall, reserved_in: Sequence[int], cost: Decimal, reply: ModelReply, was_unseen: bool
) -> Settlement:
    # What is not billed, a request that was refused before any output, counts in no budget, in tokens either.
    tokens, periods = _tokens(call, reply) if cost else 0, tuple(reserved_in)
    if was_unseen:
        return Settlement(periods, _ZERO, 0, cost - call.reserved_usd, tokens - call.reserved_tokens)
    return Settlement(periods, call.reserved_usd, call.reserved_tokens, cost, tokens)


def _settled_row(
    entry: SeenCall, price: ModelPrice | None, cost: Decimal, is_estimate: bool, now: datetime, error: str
) -> tuple[Any, ...]:
    reply, usage = entry.reply, _used(entry.call, entry.reply)
    # A bound is no count.
    is_counted = reply.is_usage_final or reply.seen_usage is not None
    output_tokens = usage.output_tokens if is_counted else reply.usage.output_tokens
    return (
        entry.call.pk,
        ModelCall.Status.FINISHED,
        reply.model,
        usage.input_tokens,
        usage.cache_write_5m_tokens,
        usage.cache_write_1h_tokens,
        usage.cache_read_tokens,
        output_tokens,
        usage.thinking_tokens,
        price.pk if price else None,
        cost,
        is_estimate,
        reply.cause,
        storable(error),
        reply.http_status,
        reply.stop_reason,
        reply.request_id,
        now,
        reply.latency_ms,
        reply.first_token_ms,
    )


def _call_row(
    ask: CallAsk, bound: tuple[Decimal, int], period_ids: Sequence[int], now: datetime, worker: str
) -> ModelCall:
    return ModelCall(
        department_id=ask.run.department_id,
        item_id=ask.run.item_id,
        agent_id=ask.agent.pk,
        **ask.owner,
        soul_id=ask.soul_id,
        call_id=uuid4(),
        attempt=ask.attempt,
        number=ask.number,
        worker=worker,
        model_asked=ask.params["model"],
        reserved_usd=bound[0],
        reserved_tokens=bound[1],
        reserved_in=list(period_ids),
        started_at=now,
    )


def _body(call: ModelCall, ask: CallAsk) -> ModelCallBody:
    # A first request is made of what is stored already; later ones hold what the model said.
    return ModelCallBody(call=call, request=storable_json(ask.params) if ask.number > 1 else ask.params)


def _open_call(call: ModelCall, ask: CallAsk) -> OpenCall:
    request = ModelRequest(call.call_id, ask.agent.slug, ask.api_key_env, ask.params, ask.agent.timeout_seconds)
    return OpenCall(
        pk=call.pk,
        run_id=ask.owner.get("agent_run_id"),
        request=request,
        reserved_usd=call.reserved_usd,
        reserved_tokens=call.reserved_tokens,
        started_at=call.started_at,
    )


def _tool_row(call: OpenCall, use: ToolUse) -> ToolCall:
    return ToolCall(
        agent_run_id=call.run_id,
        model_call_id=call.pk,
        name=use.name,
        arguments=use.arguments,
        result=use.result.content,
        is_error=use.result.is_error,
        detail=use.result.detail,
        started_at=use.started_at,
        latency_ms=use.latency_ms,
    )
