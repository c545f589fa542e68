"""Webhooks, the CRM, Slack and providers: what is sent, and what an answer means for it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from smtplib import SMTPRecipientsRefused
from threading import Thread
from typing import Any

import pytest
from anymail.exceptions import AnymailAPIError, AnymailRecipientsRefused
from django.core.mail.backends.base import BaseEmailBackend
from django.core.mail.backends.filebased import EmailBackend as FileBackend
from standardwebhooks.webhooks import Webhook

from runs.send_channels import CHANNELS
from runs.send_channels.base import Bounced, Config, Letter, Misconfigured, Refused, Undeliverable, Unsure
from runs.send_channels.mail import MailChannel, _judge

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
LETTER = Letter("7:crm_update", "lena@example.com", {"stage": "won"})


class Door:
    """An HTTP server on loopback that keeps what it was sent."""

    def __init__(self) -> None:
        self.status = 200
        self.requests: list[tuple[dict[str, str], bytes]] = []
        self.url = ""


@contextmanager
def door() -> Iterator[Door]:
    found = Door()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:  # noqa: N802 - the name is the library's
            body = self.rfile.read(int(self.headers["content-length"]))
            found.requests.append(({name.lower(): value for name, value in self.headers.items()}, body))
            if not found.status:
                self.connection.close()
                return
            self.send_response(found.status)
            self.send_header("content-length", "2")
            self.end_headers()
            self.wfile.write(b"ok")

        def log_message(self, format: str, *args: Any) -> None:
            """Nothing."""

    server = HTTPServer(("127.0.0.1", 0), Handler)
    found.url = f"http://127.0.0.1:{server.server_port}/hook"
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield found
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture
def crm() -> Iterator[Door]:
    with door() as found:
        yield found


def post(crm: Door, kind: str = "crm") -> str:
    config = Config({"url": crm.url}, SECRET, "CRM_SECRET")
    channel = CHANNELS[kind]
    assert channel.problem(config) == ""
    return channel.send(LETTER.key, channel.render(LETTER, config), config)


class TestWebhooks:
    def test_it_is_signed_and_carries_its_key(self, crm: Door) -> None:
        post(crm)
        [(headers, body)] = crm.requests
        assert Webhook(SECRET).verify(body, headers)["data"] == {"stage": "won"}
        assert headers["webhook-id"] == headers["idempotency-key"] == LETTER.key
        assert json.loads(body)["type"] == "kontor.crm_update"

    @pytest.mark.parametrize(
        ("status", "error"),
        [
            (400, Undeliverable),
            (401, Misconfigured),
            (404, Undeliverable),
            (302, Undeliverable),
            (429, Refused),
            (500, Unsure),
            (503, Unsure),
            (0, Unsure),
        ],
    )
    def test_an_answer_says_what_became_of_it(self, crm: Door, status: int, error: type[Exception]) -> None:
        crm.status = status
        with pytest.raises(error) as raised:
            post(crm, "webhook")
        assert type(raised.value) is error
        assert SECRET not in str(raised.value)

    def test_a_door_that_is_shut_has_taken_nothing(self) -> None:
        shut = Door()
        shut.url = "http://127.0.0.1:9/"
        with pytest.raises(Refused):
            post(shut)

    @pytest.mark.parametrize(
        ("settings", "secret"), [({}, SECRET), ({"url": "ftp://x"}, SECRET), ({"url": "https://x"}, "")]
    )
    def test_what_is_missing_is_said(self, settings: dict[str, str], secret: str) -> None:
        assert CHANNELS["webhook"].problem(Config(settings, secret, "HOOK_SECRET"))


class TestSlack:
    @pytest.mark.parametrize(
        ("status", "error"), [(404, Misconfigured), (429, Refused), (500, Unsure), (400, Undeliverable)]
    )
    def test_an_answer_says_what_became_of_it(self, crm: Door, status: int, error: type[Exception]) -> None:
        crm.status = status
        config = Config({}, crm.url, "SLACK")
        with pytest.raises(error) as raised:
            CHANNELS["slack"].send("k", {"text": "Hi"}, config)
        assert crm.url not in str(raised.value)

    def test_nothing_of_a_stranger_becomes_a_link(self, crm: Door) -> None:
        letter = Letter("k", "", {"subject": "<!channel>", "body": "<https://x|y>"})
        config = Config({}, crm.url, "SLACK")
        CHANNELS["slack"].send("k", CHANNELS["slack"].render(letter, config), config)
        assert json.loads(crm.requests[0][1])["text"] == "&lt;!channel&gt;\n&lt;https://x|y&gt;"


class Provider(BaseEmailBackend):
    """Stands for a provider of django-anymail."""

    error: Exception | None = None

    def send_messages(self, messages: Any) -> int:
        """As told."""
        if Provider.error is not None:
            raise Provider.error
        return len(messages)


class Answered(AnymailAPIError):  # type: ignore[misc]
    """What a provider said, as django-anymail raises it."""

    def __init__(self, status_code: int | None) -> None:
        super().__init__("no")
        self._code = status_code

    @property
    def status_code(self) -> Any:
        """Of its answer."""
        return self._code

    @status_code.setter
    def status_code(self, value: Any) -> None:
        """Set by the base class."""


class TestProviders:
    @pytest.mark.parametrize(
        ("error", "wanted"),
        [
            (Answered(401), Misconfigured),
            (Answered(422), Undeliverable),
            (Answered(429), Refused),
            (Answered(503), Unsure),
            (Answered(None), Unsure),
            (AnymailRecipientsRefused(), Bounced),
        ],
    )
    def test_an_error_says_what_became_of_it(self, settings: Any, error: Exception, wanted: type[Exception]) -> None:
        settings.EMAIL_BACKEND = f"{__name__}.Provider"
        settings.EMAIL_IS_CONFIGURED = True
        config = Config({"sender": "mara@x.example"})
        rendered = MailChannel().render(Letter("k", "lena@example.com", {"subject": "s", "body": "b"}), config)
        Provider.error = error
        try:
            with pytest.raises(wanted) as raised:
                MailChannel().send("k", rendered, config)
            assert type(raised.value) is wanted
        finally:
            Provider.error = None
        assert MailChannel().send("k", rendered, config) == ""


class Broken(BaseEmailBackend):
    """A class somebody wrote: what it raises is an OSError, as that of most libraries for HTTP is."""

    def send_messages(self, email_messages: Any) -> int:
        raise ConnectionResetError("Connection reset by peer")


class FullDisk(FileBackend):
    def write_message(self, message: Any) -> None:
        raise OSError("No space left on device")


@pytest.mark.parametrize(("name", "error"), [("Broken", Unsure), ("FullDisk", Refused)])
def test_a_break_is_a_refusal_only_where_nothing_can_have_left(
    settings: Any, tmp_path: Path, name: str, error: type[Exception]
) -> None:
    settings.EMAIL_BACKEND, settings.EMAIL_FILE_PATH = f"{__name__}.{name}", str(tmp_path)
    config = Config({"sender": "mara@x.example"})
    rendered = MailChannel().render(Letter("k", "lena@example.com", {"subject": "s", "body": "b"}), config)
    with pytest.raises(error):
        MailChannel().send("k", rendered, config)


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        ((550, b"5.1.1 No such user"), Bounced),
        ((550, b"No such user"), Bounced),
        ((550, b"5.7.1 Relay access denied"), Undeliverable),
        ((554, b"5.7.26 Unauthenticated mail is not accepted"), Undeliverable),
        ((450, b"4.7.1 Greylisted"), Refused),
    ],
)
def test_a_server_that_refuses_us_says_nothing_against_the_address(
    answer: tuple[int, bytes], error: type[Exception]
) -> None:
    judged = _judge(SMTPRecipientsRefused({"lena@example.com": answer}), False)
    assert type(judged) is error
