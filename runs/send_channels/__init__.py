"""The ways out of the house. To add one: a class like its neighbours, and a line here."""

from __future__ import annotations

from runs.send_channels.base import SendChannel
from runs.send_channels.mail import MailChannel
from runs.send_channels.slack import SlackPost
from runs.send_channels.web import CrmChannel, WebhookChannel

CHANNELS: dict[str, SendChannel] = {
    "email": MailChannel(),
    "crm": CrmChannel(),
    "webhook": WebhookChannel(),
    "slack": SlackPost(),
}
