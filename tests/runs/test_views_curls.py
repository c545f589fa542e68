"""The command that sends a request again: a shell runs it, and the simulator answers."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from typing import Any

import pytest

from runs.views.curls import build_curl
from tests.simulator_fixture import SimulatorServer

NASTY = "it's \"quoted\" $HOME `id` $(id) \\n é 漢 \x1b[31m \x7f\nEND_OF_REQUEST\n'; exit 3; '"
SCHEMA = {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"], "additionalProperties": False}
REQUEST: dict[str, Any] = {
    "model": "claude-haiku-5-5",
    "max_tokens": 300,
    "system": [{"type": "text", "text": NASTY}],
    "messages": [{"role": "user", "content": NASTY}],
    "output_config": {"format": {"type": "json_schema", "schema": SCHEMA}},
}


def _run(command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    if shutil.which("curl") is None:
        pytest.skip("needs curl")
    # No proxy between the test and the simulator.
    env = {"PATH": os.environ["PATH"], "HOME": "/nonexistent", "no_proxy": "*", **environment}
    return subprocess.run(["sh"], input=command, capture_output=True, text=True, env=env, timeout=30, check=False)


def test_the_very_command_gets_an_answer_to_the_very_request(simulator: SimulatorServer) -> None:
    command = build_curl(REQUEST, base_url=simulator.base_url, api_key_env="ACME_KEY")
    done = _run(command, ACME_KEY="the-secret")
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert (answer["type"], answer["role"]) == ("message", "assistant"), answer
    (sent,) = [entry for entry in simulator.requests() if entry["path"].endswith("/messages")]
    assert sent["headers"]["x-api-key"] == "the-secret"
    body = sent["body"] if isinstance(sent["body"], dict) else json.loads(sent["body"])
    assert body == REQUEST


def test_the_key_is_not_in_it_but_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACME_KEY", "the-secret")
    command = build_curl(REQUEST, base_url="https://user:word@api.example.com/x/", api_key_env="ACME_KEY")
    assert "the-secret" not in command
    assert "user:word" not in command
    assert '-H "x-api-key: $ACME_KEY"' in command
    assert "curl -sS https://api.example.com/x/v1/messages" in command


@pytest.mark.parametrize("name", ["", "A B", "X;id", "$(id)", "1A", 'A"'])
def test_a_variable_that_no_shell_has_is_the_usual_one(name: str) -> None:
    assert '"x-api-key: $ANTHROPIC_API_KEY"' in build_curl({}, base_url="http://h", api_key_env=name)


def test_an_address_cannot_end_its_argument() -> None:
    command = build_curl({}, base_url="http://h/';id;'", api_key_env="K")
    assert "'\"'\"'" in command


def test_the_body_is_one_line_that_a_terminal_takes_as_text() -> None:
    command = build_curl(REQUEST, base_url="http://h", api_key_env="K")
    lines = command.splitlines()
    assert lines[-1] == "END_OF_REQUEST"
    assert lines[:-1].count("END_OF_REQUEST") == 0
    assert all(" " <= character <= "~" for character in lines[-2])
    assert json.loads(lines[-2]) == REQUEST
