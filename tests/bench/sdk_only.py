"""The yardstick: the same calls through the SDK alone, same transport, same server, no database, no engine.

``python -m tests.bench.sdk_only BASE_URL IN_FLIGHT CALLS REQUESTS_FILE iterate|read`` prints one JSON object.
``iterate`` takes the SDK's typed events; ``read`` takes its bytes and parses each event, as the engine does.
"""

from __future__ import annotations

import asyncio
import json
import resource
import sys
import time
from pathlib import Path
from typing import Any

import anthropic
import httpx2
import uvloop


async def measure(
    base_url: str, in_flight: int, calls: int, requests: list[dict[str, Any]], how: str
) -> dict[str, float]:
    """Keep ``in_flight`` streamed calls going until ``calls`` have ended. The rate is that after the first wave."""
    limits = httpx2.Limits(max_connections=1_000, max_keepalive_connections=1_000)
    http = anthropic.DefaultAioHttpClient(limits=limits)
    client = anthropic.AsyncAnthropic(api_key="bench", base_url=base_url, max_retries=0, http_client=http)
    call = _iterate if how == "iterate" else _read
    ended: list[float] = []
    left = calls

    async def work() -> None:
        nonlocal left
        while left > 0:
            left -= 1
            json.loads(await call(client, requests[left % len(requests)]))
            ended.append(time.monotonic())

    cpu = _cpu()
    await asyncio.gather(*(work() for _ in range(in_flight)))
    cpu = _cpu() - cpu
    await http.aclose()
    seconds = ended[-1] - ended[in_flight - 1]
    return {"calls_per_second": (calls - in_flight) / seconds, "cpu_ms_per_call": 1000 * cpu / calls}


async def _iterate(client: anthropic.AsyncAnthropic, request: dict[str, Any]) -> str:
    parts = []
    async for event in await client.messages.create(**request, stream=True):
        if event.type == "content_block_delta" and event.delta.type == "text_delta":
            parts.append(event.delta.text)
    return "".join(parts)


async def _read(client: anthropic.AsyncAnthropic, request: dict[str, Any]) -> str:
    parts, rest = [], b""
    async with client.messages.with_streaming_response.create(**request, stream=True) as response:
        async for chunk in response.iter_bytes():
            *lines, rest = (rest + chunk).split(b"\n")
            events = [json.loads(line[5:]) for line in lines if line.startswith(b"data:")]
            parts += [e["delta"]["text"] for e in events if e.get("delta", {}).get("type") == "text_delta"]
    return "".join(parts)


def _cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    url, in_flight, calls, file, how = sys.argv[1:]
    print(json.dumps(uvloop.run(measure(url, int(in_flight), int(calls), json.loads(Path(file).read_text()), how))))
