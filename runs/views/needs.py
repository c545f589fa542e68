"""What needs a person, by kind: how many, and the list where they are."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import urlencode

from django.db.models import Count
from django.urls import reverse
from django.utils import timezone

from agents.statements import Among, Statement
from runs.access import Access
from runs.models import Alert, Item, OutboxMessage
from runs.review_queue import RISKS, asked_now
from runs.views.kinds import kinds_of
from runs.views.menu import item_list_url

MANY = 1_000
"""Nobody counts further than this: it is the same work."""
_UNSURE = "Say what is so; what may have left is never sent again."


@dataclass(frozen=True, slots=True)
class Need:
    """Some of one kind, the list where they are, and a colour of the design where it is urgent."""

    label: str
    count: int
    url: str
    colour: str = "neutral"
    hint: str = ""

    @property
    def shown(self) -> str:
        """The count as it is shown."""
        return f"{MANY:,}+" if self.count > MANY else f"{self.count:,}"


def find_needs(access: Access, *, unsure: int, open_alerts: Iterable[Alert], may_see_system: bool) -> list[Need]:
    """Only what there is, the most urgent first; a query for reviews and one for each kind of items.

    ``unsure``: messages that may have been sent; ``open_alerts``: those of the installation count for who sees it.
    """
    alerts = sum(may_see_system or alert.department_id is not None for alert in open_alerts)
    outbox = f"{reverse('runs:outbox')}?status={OutboxMessage.Status.UNKNOWN}"
    found = [
        *_reviews(access),
        Need(f"{_plural('message', unsure)} that may have been sent", unsure, outbox, "bad", _UNSURE),
        Need(_plural("open alert", alerts), alerts, reverse("runs:alerts"), "warning", "Each says what to do."),
        *_flagged(access),
    ]
    return [need for need in found if need.count]


def _reviews(access: Access) -> list[Need]:
    # What is snoozed needs nobody now, and the list that is linked leaves it out too.
    counts: dict[int, int] = dict(_BY_RISK.rows(departments=access.ids, now=timezone.now()))
    colours = {3: "bad", 2: "warning"}
    return [
        Need(
            f"{_plural('question', counts[risk])} of {RISKS.get(str(risk), str(risk)).lower()} risk",
            counts[risk],
            f"{reverse('runs:reviews')}?{urlencode({'risk': risk})}",
            colours.get(risk, "neutral"),
        )
        for risk in sorted(counts, reverse=True)
    ]


def _flagged(access: Access) -> list[Need]:
    """Of every kind whose list can be narrowed to them."""
    found = []
    for spec in kinds_of(access.shown):
        ids = [department.pk for department in access.shown if department.kind == spec.kind]
        query = f"?{urlencode({'flag': 'yes'})}" if "flag" in spec.filters else ""
        count = _FLAGGED.count(limit=MANY + 1, departments=ids)
        label = _plural(f"flagged {spec.item_label}", count)
        found.append(Need(label, count, f"{item_list_url(spec)}{query}", "warning"))
    return found


def _plural(label: str, count: int) -> str:
    return label if count == 1 else f"{label}s"


_BY_RISK = Statement(lambda: asked_now().order_by().values_list("risk").annotate(questions=Count("pk")))
_FLAGGED = Statement(
    lambda: Item.objects.filter(Among("department_id", "departments")).exclude(flag="").order_by().values_list("pk")
)
