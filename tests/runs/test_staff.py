"""Who works here: the whole installation, or the one department that a page is about."""

from __future__ import annotations

from dataclasses import replace

import pytest

from agents.models import Installation
from runs.staff import load_staff
from tests import factories

pytestmark = pytest.mark.django_db


def test_one_department_is_read_as_it_is_among_all() -> None:
    first, second = (factories.make_department(slug=slug) for slug in ("first", "second"))
    Installation.objects.update_or_create(pk=1, defaults={"state": "holding_sends"})
    every, one = load_staff(), load_staff(only=second.pk)
    assert set(every.desks) >= {first.pk, second.pk}
    assert set(one.desks) == {second.pk}
    mine, same = one.desks[second.pk], every.desks[second.pk]
    assert mine.agents.keys() == same.agents.keys() == {agent.pk for agent in second.agents.all()}
    assert mine.souls == same.souls
    assert not mine.is_sending
    assert replace(mine, router=same.router) == same


def test_a_department_that_is_gone_has_no_desk() -> None:
    assert load_staff(only=0).desks == {}
