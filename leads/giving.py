"""Giving many leads to somebody at once, or to nobody."""

from __future__ import annotations

from collections.abc import Sequence

from django.contrib.auth.models import User

from agents.models import Department
from leads.editing import assign_owner
from leads.filters import find_owners
from leads.models import Lead
from runs.allowed import Allowed, no
from runs.models import BulkAction, Item
from runs.selections import OwnVerb, register_own

NOBODY = "nobody"


def _choices(department: Department) -> Sequence[tuple[str, str]]:
    return [*((str(person.pk), str(person)) for person in find_owners([department.pk])), (NOBODY, "nobody")]


def _give(bulk: BulkAction, item: Item, user: User, choice: str) -> Allowed:
    owner = User.objects.filter(pk=int(choice), is_active=True).first() if choice != NOBODY else None
    if owner is None and choice != NOBODY:
        return no("Who was to have it is no longer here.")
    lead = Lead.objects.select_related("department").get(pk=item.pk)
    return assign_owner(lead=lead, user=user, owner=owner, reason=str(bulk.arguments["reason"]), bulk=bulk)


register_own("sales", "owner", OwnVerb("Give to an owner", "Who looks after them", _choices, _give))
