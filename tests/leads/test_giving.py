"""Many leads are given to somebody at once."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.auth.models import User
from django.urls import reverse

from agents.models import Department
from leads.editing import assign_owner
from leads.models import Lead
from runs import bulk as bulks
from runs import tasks
from runs.models import Action, BulkAction
from runs.selections import start
from tests.engine import in_threads, make_office
from tests.factories import make_lead, make_user

pytestmark = pytest.mark.django_db
FILTER = {"status": "qualified"}


@pytest.fixture
def office() -> Department:
    return make_office()


@pytest.fixture
def olga(office: Department) -> User:
    return make_user("olga", department=office)


@pytest.fixture
def rudi(office: Department) -> User:
    return make_user("rudi", department=office)


def make_leads(office: Department, count: int = 3, **fields: Any) -> list[Lead]:
    return [make_lead(office, status="qualified", **fields) for _ in range(count)]


def owners() -> list[str]:
    return [str(lead.owner or "") for lead in Lead.objects.select_related("owner").order_by("pk")]


def test_all_that_were_chosen_are_theirs_and_each_is_an_action_with_the_reason(
    office: Department, olga: User, rudi: User
) -> None:
    leads = make_leads(office)
    assert assign_owner(lead=leads[1], user=olga, owner=rudi)
    other = make_lead(office, status="new")
    bulk = start(department=office, user=olga, verb="owner", chosen=FILTER, reason="New region.", choice=str(rudi.pk))
    assert isinstance(bulk, BulkAction)
    assert (bulk.status, bulk.done, bulk.refused) == ("done", 2, {str(leads[1].pk): "It is rudi's already."})
    assert owners() == ["rudi", "rudi", "rudi", ""]
    told = Action.objects.filter(bulk=bulk, verb="assign_owner").order_by("item_id")
    assert [(action.item_id, action.reason, action.after) for action in told] == [
        (lead.pk, "New region.", {"owner": "rudi"}) for lead in (leads[0], leads[2])
    ]
    assert not Action.objects.filter(item=other.item).exists()
    taken = start(department=office, user=olga, verb="owner", chosen=FILTER, choice="nobody")
    assert isinstance(taken, BulkAction)
    assert taken.done == 3
    assert owners() == ["", "", "", ""]


@pytest.mark.parametrize("choice", ["", "x", "999999"])
def test_who_is_no_member_gets_nothing(office: Department, olga: User, choice: str) -> None:
    make_leads(office)
    stranger = make_user("stan", department=make_office("other"))
    for named in (choice, str(stranger.pk)):
        answer = start(department=office, user=olga, verb="owner", chosen=FILTER, choice=named)
        assert not isinstance(answer, BulkAction)
        assert "choose one of those that are offered" in answer.reason
    assert not BulkAction.objects.exists()


def test_who_leaves_meanwhile_gets_no_more(
    office: Department, olga: User, rudi: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bulks, "AT_ONCE_SECONDS", -1.0)
    leads = make_leads(office)
    bulk = start(department=office, user=olga, verb="owner", chosen=FILTER, choice=str(rudi.pk))
    assert isinstance(bulk, BulkAction)
    User.objects.filter(pk=rudi.pk).update(is_active=False)
    tasks.carry_on_bulk(bulk.pk)
    bulk.refresh_from_db()
    assert (bulk.status, bulk.done) == ("done", 1)
    assert set(bulk.refused) == {str(lead.pk) for lead in leads[1:]}
    assert set(bulk.refused.values()) == {"Who was to have it is no longer here."}


@pytest.mark.django_db(transaction=True)
def test_of_two_who_give_the_same_leads_at_once_each_lead_is_given_whole(
    office: Department, olga: User, rudi: User
) -> None:
    make_leads(office, 6)

    def give(number: int) -> int:
        to = (olga, rudi)[number]
        bulk = start(department=office, user=olga, verb="owner", chosen=FILTER, choice=str(to.pk))
        assert isinstance(bulk, BulkAction)
        return bulk.done

    assert in_threads(give, 2) == [6, 6]
    for lead in Lead.objects.select_related("owner"):
        last = Action.objects.filter(item=lead.pk, verb="assign_owner").latest("pk")
        assert last.after == {"owner": str(lead.owner)}
        assert {str(lead.owner), str(last.before["owner"])} == {"olga", "rudi"}


def test_the_question_offers_it_with_the_members_and_begins_it(
    client: Any, office: Department, olga: User, rudi: User
) -> None:
    make_leads(office)
    client.force_login(olga)
    html = client.get(reverse("runs:bulk_new"), {"department": office.slug, **FILTER, "verb": "owner"}).content.decode()
    assert '<option value="owner" selected>Give to an owner</option>' in html
    assert f'<option value="{rudi.pk}">rudi</option>' in html
    values = {"department": office.slug, **FILTER, "verb": "owner", "choice_owner": str(rudi.pk)}
    page = client.post(reverse("runs:bulk_start"), values, follow=True).content.decode()
    assert "Give to an owner: 3 of 3 done." in page
    assert owners() == ["rudi"] * 3
    without = client.post(reverse("runs:bulk_start"), {**values, "choice_owner": ""}, follow=True).content.decode()
    assert "choose one of those that are offered" in without
