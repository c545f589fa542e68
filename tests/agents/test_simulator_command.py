"""``manage.py simulator`` as a process, and its control endpoints over HTTP."""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anthropic
import httpx2
import pytest

ROOT = Path(__file__).resolve().parents[2]
HELLO: dict[str, Any] = {
    "model": "claude-haiku-5-5",
    "max_tokens": 500,
    "messages": [{"role": "user", "content": "Hello"}],
}


def start(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "manage.py", "simulator", *arguments],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def address_of(process: subprocess.Popen[str]) -> str:
    """The address the process says it listens on; it prints one line once it does."""
    assert process.stdout is not None
    found = re.search(r"http://[\d.]+:\d+", process.stdout.readline())
    assert found is not None, process.stderr and process.stderr.read()
    return found.group()


@pytest.fixture(scope="module")
def base_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    script = tmp_path_factory.mktemp("simulator") / "faults.json"
    script.write_text(json.dumps([{"match": {"nth": 1}, "what": {"kind": "status", "status": 429}}]))
    process = start("--port", "0", "--latency-ms", "0", "--seed", "3", "--faults", str(script))
    try:
        yield address_of(process)
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0


def client_of(base_url: str) -> anthropic.Anthropic:
    headers = {"x-kontor-call": "call-1", "x-kontor-agent": "writer"}
    return anthropic.Anthropic(api_key="key", base_url=base_url, max_retries=0, default_headers=headers)


def test_script_books_and_recorded_requests_over_http(base_url: str) -> None:
    with pytest.raises(anthropic.RateLimitError):
        client_of(base_url).messages.create(**HELLO)
    message = client_of(base_url).messages.create(**HELLO)
    control = httpx2.Client(base_url=f"{base_url}/_control")
    assert control.get("/faults").json() == {"rules": [{"kind": "status", "fired": 1}]}
    stats = control.get("/stats").json()
    assert stats["outcomes"] == {"fault": 1, "end_turn": 1}
    assert stats["tokens"]["output_tokens"] == message.usage.output_tokens
    assert stats["in_flight"] == 0
    assert stats["max_in_flight"] == 1
    assert "calls" not in stats
    call = control.get("/stats", params={"calls": "1"}).json()["calls"][1]
    assert (call["call_id"], call["agent"], call["model"], call["status"], call["outcome"]) == (
        "call-1",
        "writer",
        "claude-haiku-5-5",
        200,
        "end_turn",
    )
    assert call["request_id"] == message._request_id
    requests = control.get("/requests", params={"last": "1"}).json()
    assert len(requests) == 1
    assert json.loads(requests[0]["body"]) == HELLO
    assert requests[0]["headers"]["authorization"] == "Bearer key"
    assert control.post("/faults", json=[{"what": {"kind": "nonsense"}}]).status_code == 400
    assert control.post("/faults", json=[{"what": {"kind": "text", "text": "Hm."}}]).json() == {"rules": 1}
    assert client_of(base_url).messages.create(**HELLO).content[-1].to_dict()["text"] == "Hm."
    control.post("/reset")
    assert control.get("/stats", params={"calls": "1"}).json()["calls"] == []
    assert control.get("/nothing").status_code == 404


def test_a_port_in_use_is_a_sentence_that_says_what_to_do() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        process = start("--port", str(port))
        _, errors = process.communicate(timeout=30)
    assert process.returncode == 1
    assert errors.strip() == (
        f"CommandError: Port {port} on 127.0.0.1 is in use: stop what runs there or choose another with --port."
    )


def test_a_fault_script_that_is_not_there_is_a_sentence(tmp_path: Path) -> None:
    process = start("--port", "0", "--faults", str(tmp_path / "none.json"))
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 1
    assert "cannot be read" in errors
    assert "Traceback" not in errors


def test_without_recording_no_request_is_kept_and_interrupting_is_clean() -> None:
    process = start("--port", "0", "--latency-ms", "0", "--no-record")
    base_url = address_of(process)
    client_of(base_url).messages.create(**HELLO)
    assert httpx2.get(f"{base_url}/_control/requests").json() == []
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=10)
    assert process.returncode == 0
    assert "Traceback" not in errors
