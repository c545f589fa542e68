"""E-mail over Django's mail settings, or over a provider by django-anymail: whatever EMAIL_BACKEND names.

When the server has been given the whole mail and does not clearly say no, the mail may have left: that is unsure.
Before that, nothing has.
"""

from __future__ import annotations

import contextlib
import re
import smtplib
from collections.abc import Mapping
from email.utils import parseaddr
from typing import Any

from anymail.exceptions import AnymailAPIError, AnymailError, AnymailRecipientsRefused
from django.conf import settings
from django.core.exceptions import ValidationError
from django.core.mail import EmailMessage, get_connection
from django.core.mail.backends.filebased import EmailBackend as FileBackend
from django.core.mail.backends.smtp import EmailBackend as SmtpBackend
from django.core.validators import validate_email
from django.utils.crypto import salted_hmac
from django.utils.module_loading import import_string

from runs.send_channels.base import Bounced, Config, Letter, Misconfigured, Refused, Undeliverable
from runs.send_channels.base import Unsure as UnsureSend

MAX_REFERENCES = 20
MAX_TEXT = 500
LAST_STEP_TIMES = 4
_POLICY = re.compile(r": 5\d\d 5\.7\.\d")


class MailChannel:
    """One person, one mail."""

    reaches_person = True
    is_repeatable = False

    def problem(self, config: Config) -> str:
        if not settings.EMAIL_IS_CONFIGURED:
            return "No mail server is configured: set EMAIL_URL or EMAIL_BACKEND."
        if not config.text("sender"):
            return "The e-mail channel has no sender: an administrator enters it."
        try:
            validate_email(parseaddr(config.text("sender"))[1])
        except ValidationError:
            return f"The sender {config.text('sender')!r} is no e-mail address."
        return ""

    def render(self, letter: Letter, config: Config) -> dict[str, Any]:
        sender = config.text("sender")
        headers = {"Message-ID": message_id(letter.key, sender)}
        if letter.thread:
            headers["In-Reply-To"] = letter.thread[-1]
            headers["References"] = " ".join(letter.thread[-MAX_REFERENCES:])
        if letter.unsubscribe_url:
            # RFC 8058: the mail program posts to it without asking; a person who follows it is asked.
            headers["List-Unsubscribe"] = f"<{letter.unsubscribe_url}>"
            headers["List-Unsubscribe-Post"] = "List-Unsubscribe=One-Click"
        return {
            "subject": one_line(letter.content.get("subject")),
            "body": str(letter.content.get("body") or ""),
            "to": letter.address,
            "from": sender,
            "reply_to": config.text("reply_to"),
            "headers": headers,
        }

    def send(self, key: str, rendered: Mapping[str, Any], config: Config) -> str:
        try:
            mail = compose(rendered)
        except (KeyError, TypeError, ValueError) as error:
            raise Undeliverable(f"It cannot be composed: {type(error).__name__}: {error}"[:MAX_TEXT]) from error
        return deliver(mail)


def message_id(key: str, sender: str) -> str:
    """The same for every try of one message, another one in every installation: keys begin with small numbers."""
    digest = salted_hmac("kontor.message-id", key, algorithm="sha256").hexdigest()[:32]
    return f"<{digest}@{parseaddr(sender)[1].rpartition('@')[2] or 'localhost'}>"


def one_line(text: Any) -> str:
    """A subject: whatever an agent wrote, one line without anything that would begin another header."""
    return " ".join(str(text or "").split())


def compose(rendered: Mapping[str, Any]) -> EmailMessage:
    """The mail, from what is stored and nothing else."""
    return EmailMessage(
        subject=rendered["subject"],
        body=rendered["body"],
        from_email=rendered["from"],
        to=[rendered["to"]],
        reply_to=[rendered["reply_to"]] if rendered.get("reply_to") else None,
        headers=dict(rendered["headers"]),
    )


def deliver(mail: EmailMessage) -> str:
    """Hand one mail over; the provider's id for it, if there is one. Raises ``Refused`` or ``Unsure``."""
    backend = import_string(settings.EMAIL_BACKEND)
    if issubclass(backend, SmtpBackend):
        return _deliver_by_smtp(mail)
    mail.connection = get_connection()
    try:
        mail.send()
    except AnymailRecipientsRefused as error:
        raise Bounced("The provider refuses the address.") from error
    except AnymailAPIError as error:
        raise _judge_provider(error) from error
    except AnymailError as error:
        raise Misconfigured(f"The provider cannot be used: {type(error).__name__}.") from error
    except OSError as error:
        told = f"{type(error).__name__}: {error}"
        if issubclass(backend, FileBackend):
            raise Refused(f"It cannot be written: {told}"[:MAX_TEXT]) from error
        # Of any other class nobody knows how far the conversation had come.
        raise UnsureSend(f"The conversation broke off: {told}"[:MAX_TEXT]) from error
    status = getattr(mail, "anymail_status", None)
    return str(getattr(status, "message_id", "") or "")[:255]


def _judge_provider(error: AnymailAPIError) -> Refused | UnsureSend:
    """A provider that answered no has not sent it; one that broke off or failed may have."""
    code = getattr(error, "status_code", None)
    if code in (401, 403):
        return Misconfigured(f"The provider refuses the credentials ({code}).")
    if code in (408, 429):
        return Refused(f"The provider asks to wait ({code}).")
    if code is not None and 400 <= code < 500:
        return Undeliverable(f"The provider refuses the mail ({code}).")
    return UnsureSend(f"The provider did not answer clearly: {type(error).__name__} {code or ''}".strip())


def _deliver_by_smtp(mail: EmailMessage) -> str:
    """One connection, one mail. What the server has clearly taken is sent, however the connection ends."""
    backend = _Backend(timeout=settings.SEND_TIMEOUT_SECONDS)
    try:
        backend.open()
        backend.send_messages([mail])
    except Exception as error:
        connection = backend.opened
        if connection is not None and connection.is_accepted:
            return ""
        raise _judge(error, connection is not None and connection.is_handed_over) from error
    finally:
        with contextlib.suppress(Exception):
            backend.close()
    return ""


def _judge(error: Exception, is_handed_over: bool) -> Refused | UnsureSend:
    """What an error means for a mail, by how far it had come."""
    code = getattr(error, "smtp_code", None)
    told = _told(error)
    if isinstance(error, smtplib.SMTPRecipientsRefused):
        code = next(iter(error.recipients.values()))[0]
        if code < 500:
            return Refused(told)
        # 5.7: the server does not take it from us. That says nothing against the address.
        return Undeliverable(told) if _POLICY.search(told) else Bounced(told)
    is_answer = isinstance(code, int) and 400 <= code < 600
    if is_handed_over and not (is_answer and isinstance(error, smtplib.SMTPDataError)):
        return UnsureSend(f"The server had the mail and did not say whether it takes it. {told}")
    if isinstance(error, (smtplib.SMTPAuthenticationError, smtplib.SMTPNotSupportedError)):
        return Misconfigured(told)
    if isinstance(error, smtplib.SMTPSenderRefused) and isinstance(code, int) and code >= 500:
        return Misconfigured(told)
    if isinstance(error, smtplib.SMTPDataError) and isinstance(code, int) and code >= 500:
        return Undeliverable(told)
    if isinstance(error, (smtplib.SMTPException, OSError)):
        return Refused(told)
    return Undeliverable(told)  # the mail itself cannot be written: an address or a header that is none


def _told(error: Exception) -> str:
    if isinstance(error, smtplib.SMTPRecipientsRefused):
        code, answer = next(iter(error.recipients.values()))
        return f"The mail server refuses the address: {code} {_text(answer)}"[:MAX_TEXT]
    if isinstance(error, smtplib.SMTPResponseException):
        return f"The mail server answers {error.smtp_code} {_text(error.smtp_error)}"[:MAX_TEXT]
    return f"The mail server: {type(error).__name__}: {error}"[:MAX_TEXT]


def _text(answer: Any) -> str:
    return answer.decode(errors="replace") if isinstance(answer, bytes) else str(answer)


class _Progress:
    """Notes how far a conversation with a server has come: after 354 it gets the mail, with 250 it has taken it."""

    is_handed_over = False
    is_answered = False
    is_accepted = False
    sock: Any

    def getreply(self) -> tuple[int, bytes]:
        code, answer = super().getreply()  # type: ignore[misc]
        if code == 354:
            self.is_handed_over = True
            # Servers look at the whole mail before they answer: to give up early makes sure mails unsure.
            self.sock.settimeout(LAST_STEP_TIMES * settings.SEND_TIMEOUT_SECONDS)
        elif self.is_handed_over and not self.is_answered:
            # The first answer after the mail, and no other: RSET and QUIT are said yes to as well.
            self.is_answered, self.is_accepted = True, code == 250
        return code, answer


class _Smtp(_Progress, smtplib.SMTP):
    pass


class _SmtpSsl(_Progress, smtplib.SMTP_SSL):
    pass


class _Backend(SmtpBackend):
    """Django's own, which lets go of its connection before anybody could ask how far it had come."""

    opened: _Smtp | _SmtpSsl | None = None

    @property
    def connection_class(self) -> Any:
        return self._make

    def _make(self, *args: Any, **kwargs: Any) -> _Smtp | _SmtpSsl:
        self.opened = (_SmtpSsl if self.use_ssl else _Smtp)(*args, **kwargs)
        return self.opened
