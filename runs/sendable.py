"""Whether an output may still go to the item's person, as it is asked when somebody or a rule wants to approve it.

``runs.sending`` asks again, and more, at the moment of sending.
"""

from __future__ import annotations

from functools import cache

from django.db.models import BigIntegerField, Exists, OuterRef, Q
from django.db.models.functions import Coalesce

from agents.models import Agent
from agents.spec import ITEM, OutputEvent, Send
from agents.statements import Among, Given, Statement
from runs import suppressions
from runs.facts import SUPPRESSED_TAG
from runs.models import Item, Message, Output
from runs.send_channels import CHANNELS


def address_of(item: Item) -> str:
    """Whom a mail about the item goes to as it is now; empty if nobody knows."""
    spec = item.department.spec
    return str(spec.load_fields([item.pk]).get(item.pk, {}).get(spec.address_field) or "")


def why_not_send(item: Item, output: Output, *, address: str | None = None) -> str:
    """Why this output must not go to the item's person any more; empty if it may, or does not go there at all.

    The suppression list counts by address in every department, whoever entered it and when. ``address``: the item's,
    where it was just read.
    """
    if not _reaches_person(item, output):
        return ""
    address = address_of(item) if address is None else address
    if SUPPRESSED_TAG in item.tags or suppressions.is_suppressed(address):
        return "The person's address is on the list of those nobody writes to."
    return "A reply came in after it was written." if _is_overtaken(item, output) else ""


def _reaches_person(item: Item, output: Output) -> bool:
    """Whether a person gets it, or what is made of it: not so where all that it sends goes to a machine."""
    about = OutputEvent(
        what="approved",
        key=output.key,
        payload=output.payload,
        occasion=output.trigger_id,
        occasion_kind=output.trigger.kind if output.trigger else ITEM,
        occasion_payload=output.trigger.payload if output.trigger else {},
        settings=item.department.settings,
    )
    channels = {effect.channel for effect in item.department.spec.effects(about) if isinstance(effect, Send)}
    return not channels or any(name not in CHANNELS or CHANNELS[name].reaches_person for name in channels)


def _is_overtaken(item: Item, output: Output) -> bool:
    """Whether a reply came in that was not known when it, or what it was made from, was begun."""
    statement = _overtaken(output.trigger_id is not None, output.is_by_person)
    given = {"output": output.pk, "made_from": output.made_from, "trigger": output.trigger_id}
    return bool(statement.rows(limit=1, item=item.pk, **given))


@cache
def _overtaken(is_answer: bool, is_by_person: bool) -> Statement[Output]:
    occasion = Given("trigger", BigIntegerField()) if is_answer else None
    replies = Message.objects.filter(item=Given("item", BigIntegerField()), direction=Message.Direction.IN)
    if is_answer:
        replies = replies.exclude(trigger=occasion)  # what it is the answer to
    chosen = Q(pk=Given("output", BigIntegerField()))
    if not is_by_person:
        made_from = Q(Among("pk", "made_from"), trigger=occasion)
        # What is made once for the item reads no conversation, and serves later occasions as well.
        chosen |= made_from & (Q(agent_run=None) | Q(agent_run__agent__scope=Agent.Scope.OCCASION))
    parts = Output.objects.filter(chosen).annotate(began=Coalesce("agent_run__started_at", "created_at"))
    later = Q(at__gt=OuterRef("began")) | Q(trigger__created_at__gt=OuterRef("began"))
    return Statement(lambda: parts.filter(Exists(replies.filter(later))).order_by().values_list("pk"))
