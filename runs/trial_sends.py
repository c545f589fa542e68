"""“Send a test to me”: one mail over a department's channel to whoever asks, before the first real one."""

from __future__ import annotations

from dataclasses import dataclass, field

from django.contrib.auth.models import User
from django.db import transaction

from runs import outbox
from runs.database import now as database_now
from runs.models import Action, Channel
from runs.send_channels import CHANNELS
from runs.send_channels.base import Letter, Refused, Unsure
from runs.sending_domain import Record, check_domain


@dataclass(frozen=True, slots=True)
class Trial:
    """How it went: one sentence, and what DNS says of the sender's domain."""

    is_sent: bool
    text: str
    records: list[Record] = field(default_factory=list)


def send_test(*, channel: Channel, user: User) -> Trial:
    """Send a test mail to the person over the channel, whatever switches and limits say: it goes to nobody else."""
    config = outbox.config_of(channel)
    plugin = CHANNELS.get(channel.kind)
    if plugin is None or not plugin.reaches_person:
        return Trial(False, f"The {channel.kind} channel sends no mails.")
    if not user.email:
        return Trial(False, "Your account has no e-mail address to send it to.")
    if problem := plugin.problem(config):
        return Trial(False, problem)
    records = check_domain(config.text("sender"), selector=config.text("dkim_selector"))
    now = database_now()
    key = f"test:{channel.pk}:{user.pk}:{now.timestamp()}"
    body = (
        f"This is a test of the e-mail channel of {channel.department}.\n\n"
        "It went the way that approved mails go. Look at its sender, and whether it lies among spam."
    )
    content = {"subject": f"Test from {channel.department}", "body": body}
    try:
        plugin.send(key, plugin.render(Letter(key, user.email, content), config), config)
    except (Refused, Unsure) as error:
        return Trial(False, f"The test could not be sent. {error}", records)
    with transaction.atomic():
        Channel.objects.filter(pk=channel.pk).update(tested_at=now)
        Action.objects.create(
            department=channel.department, user=user, verb="send_test", target=f"channel:{channel.pk}"
        )
    return Trial(True, f"A test is on its way to {user.email}.", records)
