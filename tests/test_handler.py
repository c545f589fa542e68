"""How a request gets through the web process: ``config.asgi`` with no server before it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest
from asgiref.sync import SyncToAsync

from config.asgi import application


def _ask(path: str) -> tuple[int, bytes]:
    """Status and body of what the application sends."""
    sent: list[dict[str, Any]] = []

    async def ask() -> None:
        asked, over = [{"type": "http.request", "body": b"", "more_body": False}], asyncio.Event()

        async def receive() -> dict[str, Any]:
            if not asked:
                await over.wait()
            return asked.pop()

        async def send(message: Mapping[str, Any]) -> None:
            sent.append(dict(message))

        scope = {"type": "http", "http_version": "1.1", "method": "GET", "path": path, "raw_path": path.encode()}
        scope |= {"query_string": b"", "root_path": "", "scheme": "http", "headers": [(b"host", b"localhost")]}
        await application(scope, receive, send)

    asyncio.run(ask())
    return sent[0]["status"], b"".join(message.get("body", b"") for message in sent)


def test_a_page_goes_to_its_thread_once_for_all_middleware_and_the_view(monkeypatch: pytest.MonkeyPatch) -> None:
    ways: list[str] = []
    there = SyncToAsync.__call__

    async def count(self: Any, *args: Any, **kwargs: Any) -> Any:
        ways.append(repr(self.func))
        return await there(self, *args, **kwargs)

    monkeypatch.setattr(SyncToAsync, "__call__", count)
    status, body = _ask("/login/")
    assert (status, b"<form" in body) == (200, True)
    assert len(ways) <= 3, ways  # what begins a request, the page, what ends it


def test_a_view_that_waits_in_the_event_loop_answers_as_well() -> None:
    status, body = _ask("/events/")
    assert (status, body.startswith(b"retry: ")) == (200, True)  # to whom nobody has signed in


def test_an_address_that_there_is_not_is_not_found() -> None:
    assert _ask("/nothing-there/")[0] == 404


def test_a_probe_is_answered() -> None:
    assert _ask("/healthz/live")[0] == 200
