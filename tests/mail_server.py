"""A real SMTP server on loopback that counts what it takes, and can be told to behave badly."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email import message_from_bytes
from email.message import Message
from typing import Any

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, Envelope, Session

OK = "250 OK"
logging.getLogger("mail.log").setLevel(logging.ERROR)


@dataclass
class MailServer:
    """``taken`` are the mails the server said yes to. The answers are what it says at each step.

    ``on`` maps a step (``rcpt``, ``data``: the mail is there and not yet answered, ``after``: the answer was given)
    to something to do there. ``drop_at`` a step: it hangs up. ``stall_at``: it says nothing more.
    """

    taken: list[Message] = field(default_factory=list)
    rcpt: str = OK
    data: str = OK
    drop_at: str = ""
    stall_at: str = ""
    on: dict[str, Callable[[], None]] = field(default_factory=dict)
    port: int = 0
    seen: int = 0
    """How often somebody came as far as naming an address."""

    def ids(self) -> list[str]:
        """The Message-IDs of what was taken, in order."""
        return [str(mail["Message-ID"]) for mail in self.taken]

    async def handle_RCPT(  # noqa: N802 - the name is aiosmtpd's
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: Any
    ) -> str:
        self.seen += 1
        await self._misbehave("rcpt", server)
        if self.rcpt == OK:
            envelope.rcpt_tos.append(address)
        return self.rcpt

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802
        # What is said yes to counts, whether or not the other side hears it: that is when a copy is on its way.
        if self.data == OK:
            content = envelope.content
            assert isinstance(content, bytes)
            self.taken.append(message_from_bytes(content))
        await self._misbehave("data", server)
        return self.data

    async def _misbehave(self, step: str, server: SMTP) -> None:
        if step in self.on:
            self.on[step]()
        if self.stall_at == step:
            await asyncio.sleep(60)
        if self.drop_at == step and isinstance(server.transport, asyncio.WriteTransport):
            server.transport.abort()


@contextmanager
def mail_server() -> Iterator[MailServer]:
    """The server, for as long as the block lasts; its port is chosen by the system."""
    server = MailServer()
    controller = _Controller(server, hostname="127.0.0.1", port=0)
    controller.start()
    server.port = controller.port
    try:
        yield server
    finally:
        controller.stop()


class _Controller(Controller):
    """aiosmtpd connects to itself to see whether it runs, which needs the port that the system has chosen."""

    server: Any

    def _trigger_server(self) -> None:
        self.port = self.server.sockets[0].getsockname()[1]
        super()._trigger_server()  # type: ignore[no-untyped-call]
