"""Erases the person of a lead; the engine's part of it is ``runs.erasure``."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass

from django.contrib.auth.models import User
from django.db import transaction
from django.db.models import Q, QuerySet

from leads.models import ImportJob, ImportRemark, Lead, StagedLead
from runs.addresses import compared
from runs.allowed import Allowed
from runs.commits import lock_items
from runs.database import now
from runs.erasure import erase_item, find_of
from runs.mentions import Person
from runs.models import LogEntry, Message, ModelCall, OutboxMessage, Output

_TEXTS = ("name", "email", "company", "title", "phone", "website", "country", "external_id", "message")
_ADDRESS = re.compile(r"[^\s\"'<>(),;:]+@[^\s\"'<>(),;:]+\.[^\s\"'<>(),;:]+")


@dataclass(frozen=True, slots=True)
class Foreseen:
    """How much would go: rows of each kind."""

    outputs: int
    messages: int
    calls: int
    lines: int


def foresee(lead: Lead) -> Foreseen:
    """What erasing the person would meet, in four queries."""
    return Foreseen(
        outputs=Output.objects.filter(item=lead.item_id).count(),
        messages=Message.objects.filter(item=lead.item_id).count()
        + OutboxMessage.objects.filter(item=lead.item_id).count(),
        calls=ModelCall.objects.filter(item=lead.item_id).count(),
        lines=LogEntry.objects.filter(item=lead.item_id).count(),
    )


def word_of(lead: Lead) -> str:
    """What a person types to show that they mean this lead."""
    return lead.email or str(lead)


def erase_lead(*, lead: Lead, user: User | None, reason: str = "") -> Allowed:
    """Erase the person, or say what has to end first. ``user`` None: by command on the server."""
    mentions = find_of(lead.item, _person(Lead.objects.get(pk=lead.pk)))
    with transaction.atomic():
        item = lock_items({lead.pk})[lead.pk]
        lead = Lead.objects.select_for_update(of=("self",)).get(pk=lead.pk)
        remarks = _remarks(lead)
        with transaction.atomic():
            _left_behind(lead).delete()
            done = erase_item(item=item, user=user, person=_person(lead), mentions=mentions, reason=reason)
            if not done:
                transaction.set_rollback(True)
        if not done:
            return done
        remarks.delete()
        for name in _TEXTS:
            setattr(lead, name, "")
        lead.attributes = {}
        lead.save()
    return done


def find_leads(address: str) -> list[Lead]:
    """Every lead with this address, in all departments."""
    leads = Lead.objects.filter(Q(email=compared(address)) | Q(email__iexact=address.strip()))
    return list(leads.select_related("item__department", "department").order_by("pk"))


def mentioned_by(address: str) -> list[Lead]:
    """Leads of other people in whose conversation or attributes the address stands; at most twenty."""
    wrote = Message.objects.filter(address__iexact=compared(address)).values("item")
    leads = Lead.objects.filter(Q(pk__in=wrote) | Q(message__icontains=address) | Q(attributes__icontains=address))
    return list(leads.order_by("pk")[:20])


def _person(lead: Lead) -> Person:
    """Their address, and what names them in texts of their department: whole name, number, other addresses.

    What is written there may be anything. A single word may be a word, and what has no digits is no number.
    """
    names = set(_ADDRESS.findall(json.dumps(lead.attributes, ensure_ascii=False)))
    names |= {text for text in (lead.phone, lead.external_id) if any(letter.isdigit() for letter in text)}
    names |= {lead.name} if " " in lead.name else set()
    return Person(frozenset({lead.email} - {""}), frozenset(names))


def _left_behind(lead: Lead) -> QuerySet[StagedLead]:
    """What imports that nobody carries on wait to make due: nobody need wait for their end."""
    running = Q(job__status=ImportJob.Status.RUNNING, job__lease_expires_at__gt=now())
    return StagedLead.objects.filter(lead=lead).exclude(running)


def _remarks(lead: Lead) -> QuerySet[ImportRemark]:
    rows = Q(pk__in=())
    for payload in lead.item.triggers.values_list("payload", flat=True):
        if isinstance(payload, dict) and isinstance(payload.get("import"), int):
            rows |= Q(job=payload["import"], row_number=payload.get("row"))
    return ImportRemark.objects.filter(rows)
