"""What narrows the list of leads: each filter, several together, what cannot be read, and the selection of many."""

from __future__ import annotations

import itertools
from datetime import timedelta
from typing import Any

import pytest
from django.http import QueryDict
from django.utils import timezone

from leads.filters import (
    NAMES,
    Filters,
    chips,
    clean_params,
    describe_filters,
    filter_leads,
    find_sources,
    read_filters,
    select_items,
)
from leads.models import Lead
from leads.progress import STAGES, STATUSES
from runs.access import access_for
from runs.models import Item, ItemTotal
from tests import factories

pytestmark = pytest.mark.django_db


@pytest.fixture
def desk() -> dict[str, Lead]:
    """Five leads, each with something of its own."""
    sales = factories.make_department()
    olga = factories.make_user("olga", department=sales)
    leads = {
        "plain": factories.make_lead(sales, name="Paula Plain", email="paula@plain.example", company="Plain AG"),
        "hot": factories.make_lead(sales, name="Hanna Hot", status="drafted", source="fair", owner=olga),
        "paused": factories.make_lead(sales, name="Piet Pause", automation="paused", status="contacted"),
        "flagged": factories.make_lead(sales, name="Fritz Flag", flag="Qualifier failed.", company="Ärztehaus Süd"),
        "old": factories.make_lead(sales, name="Otto Old", route_due_at=timezone.now() + timedelta(days=3)),
    }
    factories.make_output(leads["hot"].item)
    factories.make_review(leads["hot"].item, ask="Send this mail?")
    factories.make_agent_run(leads["flagged"].item, "writer", waiting_for="The budget of the department is used up.")
    Item.objects.filter(pk=leads["old"].pk).update(created_at=timezone.now() - timedelta(days=100))
    ItemTotal.objects.create(item=leads["hot"].item, department=sales, calls=3, cost_units=5_000_000)
    return leads


def _found(query: str, user_id: int | None = None) -> set[str]:
    user = next(iter(Lead.objects.get(name="Hanna Hot").department.members.all())).user
    leads = filter_leads(access_for(user), read_filters(QueryDict(query)), user_id=user_id or user.pk)
    return {lead.name.split()[0] for lead in leads}


ALL = {"Paula", "Hanna", "Piet", "Fritz", "Otto"}
EACH: dict[str, set[str]] = {
    "": ALL,
    "status=drafted": {"Hanna"},
    "stage=draft": {"Hanna"},
    "stage=outreach": {"Piet"},
    "tier=Hot": {"Hanna"},
    "tier=Cold": set(),
    "automation=paused": {"Piet"},
    "source=fair": {"Hanna"},
    "source=nowhere": set(),
    "owner=me": {"Hanna"},
    "owner=nobody": ALL - {"Hanna"},
    "flag=yes": {"Fritz"},
    "waiting=person": {"Hanna", "Piet"},
    "waiting=time": {"Otto"},
    "waiting=budget": {"Fritz"},
    "cost_min=0.05": {"Hanna"},
    "cost_min=0.06": set(),
    "cost_max=0.05": ALL,
    "cost_max=0.04": ALL - {"Hanna"},
    "cost_min=0.01&cost_max=0.05": {"Hanna"},
    "age=1d": ALL - {"Otto"},
    "age=over90d": {"Otto"},
    "q=paula": {"Paula"},
    "q=PLAIN.example": {"Paula"},
    "q=rzteha": {"Fritz"},
    "q=plain+ag": {"Paula"},
    "q=plain+hanna": set(),
    "q=%25": set(),
    "q=_": set(),
    "q=%27+OR+1%3D1": set(),
}


@pytest.mark.parametrize("query", EACH)
def test_each_filter_finds_its_leads(desk: dict[str, Lead], query: str) -> None:
    assert _found(query) == EACH[query]


def test_any_two_filters_find_what_both_find(desk: dict[str, Lead]) -> None:
    pairs = [(a, b) for a, b in itertools.combinations(EACH, 2) if a and b and a.split("=")[0] != b.split("=")[0]]
    singles = [(a, b) for a, b in pairs if "cost_" not in a or "cost_" not in b]
    assert len(singles) > 200
    for a, b in singles:
        assert _found(f"{a}&{b}") == EACH[a] & EACH[b], (a, b)


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("tier=nonsense", "“nonsense” is no tier"),
        ("stage=x", "is no stage"),
        ("automation=%3Cb%3E", "is no automation"),
        ("waiting=godot", "is no waiting (known: person, time, budget)"),
        ("age=-1", "is no age"),
        ("flag=1", "is no flag"),
        ("cost_min=cheap", "is no amount in US dollars"),
        ("cost_max=NaN", "is no amount in US dollars"),
        ("cost_max=-1", "is no amount in US dollars"),
        ("cost_min=1e99", "is no amount in US dollars"),
        ("owner=olga", "is no owner"),
        ("ids=1,two", "cannot be read"),
        ("ids=" + ",".join(map(str, range(300))), "cannot be read"),
    ],
)
def test_what_cannot_be_read_is_said_left_out_and_chooses_nothing_for_many(
    desk: dict[str, Lead], query: str, said: str
) -> None:
    filters = read_filters(QueryDict(query))
    assert said in " ".join(filters.problems)
    assert _found(query) == ALL
    assert list(select_items(desk["hot"].department, QueryDict(query))) == []


def test_many_are_chosen_as_the_list_shows_them(desk: dict[str, Lead]) -> None:
    sales = desk["hot"].department
    other = factories.make_lead(factories.make_department(slug="other"), name="Oda Other")
    for query in ("tier=Hot", "flag=yes", "q=plain", f"owner={desk['hot'].owner_id}", f"ids={desk['hot'].pk}"):
        params = {name: str(value) for name, value in QueryDict(query).items()}
        assert {item.lead.name.split()[0] for item in select_items(sales, params)} == _found(query)
    assert list(select_items(sales, {"ids": str(other.pk)})) == [], "of another department"
    assert list(select_items(sales, {"owner": "me"})) == [], "nobody has said who that is"


def test_ticked_rows_of_a_form_are_one_filter(desk: dict[str, Lead]) -> None:
    numbers = [desk["hot"].pk, desk["old"].pk]
    assert _found("&".join(f"ids={number}" for number in numbers)) == {"Hanna", "Otto"}
    assert _found(f"ids={numbers[0]},{numbers[1]}") == {"Hanna", "Otto"}


def test_what_is_read_can_be_written_and_read_again() -> None:
    query = "status=new&stage=intake&tier=Hot&automation=active&source=a+b&owner=me&flag=yes&waiting=time&age=7d"
    query += "&cost_min=0.10&cost_max=2&q=x+y&ids=3,4"
    filters = read_filters(QueryDict(query))
    assert not filters.problems
    assert read_filters(QueryDict(filters.query)) == filters
    assert set(filters.params) == set(NAMES)


def test_every_filter_that_is_set_is_a_chip_with_the_way_to_go_without_it() -> None:
    filters = Filters(tier="Hot", owner="7", text="weber", ids=(1, 2))
    shown = chips(filters, {7: "olga"})
    assert [chip.label for chip in shown] == ["Tier Hot", "Owner olga", "Text “weber”", "2 ticked"]
    assert shown[0].query == "owner=7&q=weber&ids=1%2C2"
    everything = read_filters(QueryDict("status=new&stage=draft&tier=Hot&automation=active&source=a&owner=me&flag=yes"))
    assert len(chips(everything, {})) == len(everything.params)


def test_a_selection_is_said_in_words(desk: dict[str, Lead]) -> None:
    access = access_for(desk["hot"].owner or factories.make_user("x"))
    assert describe_filters(Filters(), access) == "all leads"
    assert describe_filters(Filters(tier="Hot", flag="yes"), access) == "leads with tier Hot and flagged"


def test_one_lead_is_said_by_its_name_to_who_may_see_it(desk: dict[str, Lead]) -> None:
    lead = desk["hot"]
    outside = factories.make_user("outside", department=factories.make_department(slug="elsewhere"))
    stranger, owner = access_for(outside), access_for(lead.owner or outside)
    assert describe_filters(Filters(item=lead.pk), owner) == lead.item.title
    assert describe_filters(Filters(item=lead.pk), stranger) == f"lead {lead.pk}"


def test_mine_names_the_person_for_somebody_else_to_carry_out() -> None:
    assert Filters(owner="me").fixed(7).owner == "7"
    assert Filters(owner="nobody").fixed(7).owner == "nobody"


def test_what_is_saved_is_what_can_be_read() -> None:
    given = {"tier": "Hot", "age": "rubbish", "sort": "cost", "before": "9", "ids": "1,2", "department": "sales"}
    assert clean_params(given) == {"tier": "Hot", "sort": "cost"}


def test_sources_are_those_of_the_departments_shown(django_assert_num_queries: Any) -> None:
    sales, other = factories.make_department(), factories.make_department(slug="other")
    for source in ("fair", "web", "web", "", "fair"):
        factories.make_lead(sales, source=source)
    factories.make_lead(other, source="secret")
    with django_assert_num_queries(1):
        assert find_sources([sales.pk]) == ["fair", "web"]
    assert find_sources([sales.pk, other.pk]) == ["fair", "secret", "web"]
    assert find_sources([]) == []


def test_every_status_is_in_one_stage() -> None:
    listed = [slug for _, slugs in STAGES.values() for slug in slugs]
    assert sorted(listed) == sorted(status.slug for status in STATUSES)
