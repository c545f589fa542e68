"""The network side: a small HTTP/1.1 protocol on httptools and uvloop that plays plans.

It is a protocol of its own, and not an ASGI application, because the faults need the bare connection (resets,
bodies that break off, bytes that do not come) and because a benchmark's server must cost little.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
import struct
from collections import deque
from typing import cast

import httptools
import uvloop

from agents.simulator.service import Exchange, Request, Simulator

logger = logging.getLogger(__name__)

BACKLOG = 4_096
_TIMER_SECONDS = 0.001
_BAD_REQUEST = b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"


class Connection(asyncio.Protocol):
    """One client connection: reads requests, plays one plan after the other."""

    def __init__(self, simulator: Simulator, connections: set[Connection]) -> None:
        self._simulator, self._connections = simulator, connections
        self._loop = asyncio.get_running_loop()
        self._parser = httptools.HttpRequestParser(self)
        self._url, self._body = b"", [b""]
        self._headers: dict[str, str] = {}
        self._waiting: deque[Request] = deque()
        self._exchange: Exchange | None = None
        self._started, self._position = 0.0, 0
        self._timer: asyncio.TimerHandle | None = None
        self._is_last = False
        # What came in while a fault keeps the connection from being read; None: read at once.
        self._unread: list[bytes] | None = None

    # --- asyncio's side ---------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._connections.add(self)
        delay = self._simulator.script.connection_delay()
        if delay:
            self._unread = []
            self._loop.call_later(delay, self._read_late)

    def data_received(self, data: bytes) -> None:
        if self._unread is not None:
            self._unread.append(data)
            return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._transport.write(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
            self._transport.close()
            logger.warning("A client sent what is not HTTP: %s", error)

    def _read_late(self) -> None:
        data, self._unread = b"".join(self._unread or []), None
        if data and not self._transport.is_closing():
            self.data_received(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self._connections.discard(self)
        if self._timer is not None:
            self._timer.cancel()
        if self._exchange is not None:
            self._finish(self._position / max(len(self._exchange.plan.steps), 1))

    def close(self) -> None:
        """Break off, whatever is going on."""
        self._transport.abort()

    # --- httptools' side --------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        self._url, self._headers, self._body = b"", {}, []

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        if self._headers.get("expect", "").lower() == "100-continue":
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def on_body(self, body: bytes) -> None:
        self._body.append(body)

    def on_message_complete(self) -> None:
        self._is_last = not self._parser.should_keep_alive()
        method = self._parser.get_method().decode("ascii")
        request = Request(method, self._url.decode("latin-1"), self._headers, b"".join(self._body))
        if self._exchange is not None:
            self._waiting.append(request)
        else:
            self._start(request)

    # --- playing a plan ---------------------------------------------------------------------------------

    def _start(self, request: Request) -> None:
        self._started, self._position = self._loop.time(), 0
        self._exchange = self._simulator.handle(request, self._started)
        self._play()

    def _play(self) -> None:
        self._timer = None
        exchange = self._exchange
        if exchange is None or self._transport.is_closing():
            return
        steps = exchange.plan.steps
        # The loop's timers have whole milliseconds and may fire early; waiting for the rest would be a spin.
        elapsed = self._loop.time() - self._started + _TIMER_SECONDS
        while self._position < len(steps):
            at, data = steps[self._position]
            if at > elapsed:
                self._timer = self._loop.call_at(self._started + at, self._play)
                return
            if data:
                self._transport.write(data)
            self._position += 1
        self._end(exchange)

    def _end(self, exchange: Exchange) -> None:
        self._finish(1.0)
        if exchange.plan.end == "reset":
            _reset(self._transport)
        elif exchange.plan.end == "close" or self._is_last:
            self._transport.close()
        elif self._waiting:
            self._start(self._waiting.popleft())

    def _finish(self, share: float) -> None:
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            self._simulator.finished(exchange, share, self._loop.time() - self._started)


class Server:
    """A simulator on a port. ``start`` returns the port; ``stop`` breaks off what is open."""

    def __init__(self, simulator: Simulator) -> None:
        self._simulator = simulator
        self._connections: set[Connection] = set()
        self._server: asyncio.Server | None = None

    async def start(self, host: str, port: int) -> int:
        """Listen on ``host:port``, 0 for any free port; OSError where the address cannot be had."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            lambda: Connection(self._simulator, self._connections), host, port, backlog=BACKLOG
        )
        return int(self._server.sockets[0].getsockname()[1])

    async def stop(self) -> None:
        """Stop listening and break off all connections."""
        if self._server is not None:
            self._server.close()
        for connection in list(self._connections):
            connection.close()
        # One turn of the loop lets the connections report to the books that they were lost.
        await asyncio.sleep(0)


def new_event_loop() -> asyncio.AbstractEventLoop:
    """The loop the server is meant to run on."""
    loop: asyncio.AbstractEventLoop = uvloop.new_event_loop()
    return loop


async def serve_until_signalled(server: Server) -> None:
    """Wait for SIGTERM or SIGINT, then stop."""
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    await stopped.wait()
    await server.stop()


def _reset(transport: asyncio.Transport) -> None:
    """Close with a TCP reset: lingering for no time drops what is unsent and answers with RST."""
    connection = cast(socket.socket, transport.get_extra_info("socket"))
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()
