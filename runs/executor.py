"""Carries out one claimed agent run on the event loop: calls, tools, repairs. Touches no database.

What must be written down before the next request goes out passes through ``Books``, which the shift implements
on its database thread.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Protocol

from django.conf import settings
from pydantic import BaseModel, ValidationError

from agents.budgets import Refused
from agents.causes import Cause
from agents.llm import ModelClient
from agents.prompts import repair_message
from agents.reading import storable, storable_json
from agents.replies import ModelReply
from agents.tools import ToolContext, ToolResult, run_tool, tool
from runs.work import CutOff, Finished, OpenCall, SeenCall, ToolUse, Work

logger = logging.getLogger(__name__)
MAX_REPAIRS = 2
MAX_TOOL_ROUNDS = 4
MAX_TOOLS_A_ROUND = 4
LARGEST_ANSWER = 64_000
"""No answer gets more room than this, whatever it was cut at: the smallest maximum of the current models."""


class Books(Protocol):
    """What the executor needs written down between two requests of one run."""

    async def next_call(
        self, work: Work, seen: SeenCall, number: int, params: dict[str, Any]
    ) -> OpenCall | Refused | None:
        """Settle the call that was seen and open the next; None if the run is no longer ours."""

    async def in_database(self, job: Callable[[], Any]) -> Any:
        """Run a tool that reads the database on the database thread."""


async def execute(
    work: Work, *, client: ModelClient, books: Books, on_event: Callable[[], None]
) -> Finished | CutOff | None:
    """Work until the agent has answered or cannot. None: the run was taken away meanwhile.

    Never raises: what goes wrong here becomes a ``Finished`` with a cause. A task that is cancelled closes its
    stream and ends with what the open call had shown by then, because that costs too.
    """
    session = _Session(work, client, books, on_event)
    try:
        return await session.run()
    except asyncio.CancelledError:
        return CutOff(tuple(session.unsettled or [session.cut_off()]))
    except Exception as error:
        logger.exception("agent run %s failed inside Kontor", work.run_id)
        text = f"{type(error).__name__}: {error}"
        # A call that is open costs what it has reserved: nobody will see its end.
        session.unsettled = session.unsettled or [session.broken_off(Cause.INTERNAL, text)]
        return session.failed(Cause.INTERNAL, text)


class _Session:
    """One attempt: the open call, the conversation with the model so far, and what was used up."""

    def __init__(self, work: Work, client: ModelClient, books: Books, on_event: Callable[[], None]) -> None:
        self.work, self.client, self.books, self.on_event = work, client, books, on_event
        self.call = work.first_call
        self.params: dict[str, Any] = dict(work.first_call.request.params)
        self.number = 1
        self.reply = ModelReply()
        """Of the open call, filled as it comes."""
        self.unsettled: list[SeenCall] = []
        self.repairs = self.tool_rounds = self.trespasses = 0
        self.has_doubled = False

    async def run(self) -> Finished | None:
        while True:
            self.reply = ModelReply()
            reply = await self.client.call(self.call.request, self.on_event, into=self.reply)
            self.unsettled = [SeenCall(self.call, reply)]
            done = await self._judge(reply)
            if done is not None:
                return done
            self.number += 1
            opened = await self.books.next_call(self.work, self.unsettled[0], self.number, self.params)
            self.unsettled = []
            if opened is None:
                return None
            if isinstance(opened, Refused):
                return self.failed(Cause.NONE, opened.reason, waiting_until=opened.until)
            self.call = opened

    def cut_off(self) -> SeenCall:
        """The open call of a run that was taken away."""
        return self.broken_off(Cause.CUT_OFF, "The stream was closed: the run was taken away.")

    def broken_off(self, cause: Cause, error: str) -> SeenCall:
        """The open call as far as it got. Its usage is no final one, so it is priced as an estimate."""
        self.reply.cause, self.reply.error = cause, error
        return SeenCall(self.call, self.reply)

    def failed(
        self,
        cause: Cause,
        error: str,
        *,
        retry_after_seconds: float | None = None,
        waiting_until: datetime | None = None,
    ) -> Finished:
        return Finished(
            self.work,
            cause=cause,
            error=error,
            retry_after_seconds=retry_after_seconds,
            waiting_until=waiting_until,
            trespasses=self.trespasses,
            unsettled=self.unsettled,
        )

    async def _judge(self, reply: ModelReply) -> Finished | None:
        """The end of the attempt, or None where ``params`` now hold the next request."""
        if reply.cause is Cause.TRUNCATED and not self.has_doubled:
            self.has_doubled = True
            self.params = {**self.params, "max_tokens": min(2 * self.params["max_tokens"], LARGEST_ANSWER)}
            return None
        if reply.cause:
            return self.failed(reply.cause, reply.error, retry_after_seconds=reply.retry_after_seconds)
        if reply.tool_uses:
            return await self._use_tools(reply)
        try:
            payload = _validate(self.work.schema, reply.text)
        except ValidationError as error:
            return self._repair(reply, error)
        return Finished(self.work, payload=payload, trespasses=self.trespasses, unsettled=self.unsettled)

    def _repair(self, reply: ModelReply, error: ValidationError) -> Finished | None:
        """Show the model its error, at most twice."""
        if any(detail["type"] == "extra_forbidden" for detail in error.errors()):
            self.trespasses += 1
        text = describe(error)
        self.unsettled = [SeenCall(self.call, reply, remark=text)]
        if self.repairs >= MAX_REPAIRS:
            return self.failed(Cause.INVALID, text)
        self.repairs += 1
        self._go_on(reply, repair_message(text))
        return None

    async def _use_tools(self, reply: ModelReply) -> Finished | None:
        if self.tool_rounds >= MAX_TOOL_ROUNDS:
            return self.failed(Cause.TOOLS, f"It asked for tools {self.tool_rounds + 1} times without an answer.")
        if len(reply.tool_uses) > MAX_TOOLS_A_ROUND:
            asked = len(reply.tool_uses)
            return self.failed(Cause.TOOLS, f"It asked for {asked} tools at once; {MAX_TOOLS_A_ROUND} are allowed.")
        self.tool_rounds += 1
        uses = await asyncio.gather(*(self._use_tool(block) for block in reply.tool_uses))
        self.unsettled = [SeenCall(self.call, reply, tools=tuple(uses))]
        results = [
            {
                "type": "tool_result",
                "tool_use_id": block["id"],
                "content": use.result.content,
                "is_error": use.result.is_error,
            }
            for block, use in zip(reply.tool_uses, uses, strict=True)
        ]
        self._go_on(reply, results)
        return None

    async def _use_tool(self, block: dict[str, Any]) -> ToolUse:
        started, began = datetime.now(UTC), time.monotonic()
        name, arguments = storable(str(block["name"])), storable_json(block["input"])
        if name in self.work.agent.tools:
            context = ToolContext(self.work.department_id, self.work.prepared.data.item, settings.TOOLS_NETWORK)
            result = await run_tool(tool(name), context, arguments, self.books.in_database)
        else:
            self.trespasses += 1
            result = ToolResult(f"There is no tool {name!r}.", is_error=True)
        self.on_event()
        latency = round((time.monotonic() - began) * 1000)
        return ToolUse(self.call.pk, name, arguments, result, started, latency)

    def _go_on(self, reply: ModelReply, answer: Any) -> None:
        """Append the model's whole turn, thinking included, and ours."""
        turns = [{"role": "assistant", "content": reply.content}, {"role": "user", "content": answer}]
        self.params = {**self.params, "messages": [*self.params["messages"], *turns]}


def _validate(schema: type[BaseModel], text: str) -> dict[str, Any]:
    """The answer as JSON values. Raises ValidationError for anything that does not fit, JSON or not."""
    answer: dict[str, Any] = storable_json(schema.model_validate_json(text).model_dump(mode="json"))
    return answer


def describe(error: ValidationError) -> str:
    """What did not fit, one line a field, without the values: they may be anything."""
    lines = [f"{'.'.join(map(str, detail['loc'])) or 'answer'}: {detail['msg']}" for detail in error.errors()[:20]]
    return "\n".join(lines)
