"""The rival: a LangGraph graph of six nodes a lead, each one streamed call, checkpointed in PostgreSQL.

Runs in an environment of its own (``requirements.txt``) and imports nothing of the project:
``python graph.py BASE_URL POSTGRES_URL IN_FLIGHT LEADS REQUESTS_FILE`` prints one JSON object.
"""

from __future__ import annotations

import asyncio
import json
import resource
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypedDict

import anthropic
import httpx2
import uvloop
from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver
from langgraph.graph import END, START, StateGraph
from psycopg.rows import dict_row
from psycopg_pool import AsyncConnectionPool

CONNECTIONS = 20


class State(TypedDict, total=False):
    """What a lead has so far: one output a node."""

    first: dict[str, Any]
    second: dict[str, Any]
    third: dict[str, Any]
    fourth: dict[str, Any]
    fifth: dict[str, Any]
    sixth: dict[str, Any]


def make_node(
    client: anthropic.AsyncAnthropic, key: str, request: dict[str, Any], ended: list[float]
) -> Callable[[State], Awaitable[State]]:
    """One agent: its call through the SDK, its answer under its key."""

    async def node(state: State) -> State:
        parts = []
        async for event in await client.messages.create(**request, stream=True):
            if event.type == "content_block_delta" and event.delta.type == "text_delta":
                parts.append(event.delta.text)
        answer = json.loads("".join(parts))
        ended.append(time.monotonic())
        return {key: answer}  # type: ignore[misc]

    return node


async def measure(
    base_url: str, database: str, in_flight: int, leads: int, requests: list[dict[str, Any]]
) -> dict[str, float]:
    """Work ``leads`` through the graph, ``in_flight`` at a time. The rate is that after the first wave of calls."""
    limits = httpx2.Limits(max_connections=1_000, max_keepalive_connections=1_000)
    http = anthropic.DefaultAioHttpClient(limits=limits)
    client = anthropic.AsyncAnthropic(api_key="bench", base_url=base_url, max_retries=0, http_client=http)
    ended: list[float] = []
    options = {"autocommit": True, "prepare_threshold": 0, "row_factory": dict_row}
    async with AsyncConnectionPool(database, min_size=CONNECTIONS, max_size=CONNECTIONS, kwargs=options) as pool:
        saver = AsyncPostgresSaver(pool)
        await saver.setup()
        builder = StateGraph(State)
        keys = list(State.__annotations__)
        for before, key, request in zip([START, *keys], keys, requests, strict=False):
            builder.add_node(f"agent_{key}", make_node(client, key, request, ended))
            builder.add_edge(before if before == START else f"agent_{before}", f"agent_{key}")
        builder.add_edge(f"agent_{keys[-1]}", END)
        graph = builder.compile(checkpointer=saver)
        numbers = iter(range(leads))

        async def work() -> None:
            for number in numbers:
                await graph.ainvoke({}, {"configurable": {"thread_id": str(number)}})

        cpu = _cpu()
        await asyncio.gather(*(work() for _ in range(in_flight)))
        finished, cpu = time.monotonic(), _cpu() - cpu
    await http.aclose()
    calls = leads * len(keys)
    if len(ended) != calls:
        raise RuntimeError(f"{len(ended)} calls instead of {calls}.")
    return {
        "calls": calls,
        "calls_per_second": (calls - in_flight) / (finished - ended[in_flight - 1]),
        "cpu_ms_per_call": 1000 * cpu / calls,
        "memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def _cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    url, database, in_flight, leads, file = sys.argv[1:]
    wanted = json.loads(Path(file).read_text())
    print(json.dumps(uvloop.run(measure(url, database, int(in_flight), int(leads), wanted))))
