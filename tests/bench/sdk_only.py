"""The yardstick: the same calls through the SDK alone, same transport, same server, no database, no engine.

Run as ``python -m tests.bench.sdk_only BASE_URL IN_FLIGHT CALLS REQUESTS_FILE``; prints one JSON object.
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


async def measure(base_url: str, in_flight: int, calls: int, requests: list[dict[str, Any]]) -> dict[str, float]:
    """Keep ``in_flight`` streamed calls going until ``calls`` have ended."""
    limits = httpx2.Limits(max_connections=1_000, max_keepalive_connections=1_000)
    http = anthropic.DefaultAioHttpClient(limits=limits)
    client = anthropic.AsyncAnthropic(api_key="bench", base_url=base_url, max_retries=0, http_client=http)
    left = calls

    async def work() -> None:
        nonlocal left
        while left > 0:
            left -= 1
            stream = await client.messages.create(**requests[left % len(requests)], stream=True)
            parts = []
            async for event in stream:
                if event.type == "content_block_delta" and event.delta.type == "text_delta":
                    parts.append(event.delta.text)
            json.loads("".join(parts))

    began, cpu = time.monotonic(), _cpu()
    await asyncio.gather(*(work() for _ in range(in_flight)))
    seconds = time.monotonic() - began
    await http.aclose()
    return {"calls": calls, "seconds": seconds, "cpu_seconds": _cpu() - cpu}


def _cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    url, in_flight, calls, file = sys.argv[1:]
    print(json.dumps(uvloop.run(measure(url, int(in_flight), int(calls), json.loads(Path(file).read_text())))))
