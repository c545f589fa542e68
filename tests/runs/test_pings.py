"""The dead man's ping, against a real server on loopback."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest

from runs import pings
from runs.health import Finding


class Watchdog(HTTPServer):
    """Notes the paths that were called and answers with ``status``."""

    status = 200

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Answer)
        self.heard: list[str] = []


class _Answer(BaseHTTPRequestHandler):
    server: Watchdog

    def do_GET(self) -> None:
        self.server.heard.append(self.path)
        self.send_response(self.server.status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Nothing on the screen."""


@pytest.fixture
def watchdog(settings: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Watchdog]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(pings, "READY", [lambda: Finding("shifts", True, "2 alive.")])
    with Watchdog() as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        settings.PING_URL = f"http://127.0.0.1:{server.server_port}/secret-path"
        yield server
        server.shutdown()
        thread.join()


def test_it_calls_the_address_while_all_is_well(watchdog: Watchdog) -> None:
    assert pings.send_ping()
    assert watchdog.heard == ["/secret-path"]


def test_it_is_silent_when_something_is_wrong(
    watchdog: Watchdog, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(pings, "READY", [lambda: Finding("shifts", False, "0 of 2 are alive.")])
    assert not pings.send_ping()
    assert watchdog.heard == []
    assert "0 of 2 are alive." in caplog.text


def test_an_answer_that_is_no_success_is_logged(watchdog: Watchdog, caplog: pytest.LogCaptureFixture) -> None:
    watchdog.status = 500
    assert not pings.send_ping()
    assert "answered with 500" in caplog.text


@pytest.mark.parametrize("url", ["http://127.0.0.1:9/secret-path", "http://[bad/secret-path"])
def test_a_call_that_fails_is_logged_without_the_address(
    watchdog: Watchdog, settings: Any, url: str, caplog: pytest.LogCaptureFixture
) -> None:
    settings.PING_URL = url
    assert not pings.send_ping()
    assert "the ping failed" in caplog.text
    assert "secret-path" not in caplog.text


def test_without_an_address_nothing_is_called(watchdog: Watchdog, settings: Any) -> None:
    settings.PING_URL = ""
    assert not pings.send_ping()
    assert watchdog.heard == []
