"""Roles, permissions, and Django's own question whether a person has one."""

from __future__ import annotations

import pytest
from django.contrib.auth.models import AnonymousUser, Permission

from agents.models import Department, Member
from runs.access import can
from runs.backends import ADMINISTER, ANSWER, OPERATE, ROLE_PERMISSIONS, SEE
from tests.factories import make_agent_run, make_department, make_item, make_model_call, make_output, make_user

pytestmark = pytest.mark.django_db


@pytest.fixture
def sales() -> Department:
    return make_department()


@pytest.fixture
def other(sales: Department) -> Department:
    return make_department(slug="other")


@pytest.mark.parametrize(
    ("role", "allowed"),
    [
        ("viewer", {SEE}),
        ("reviewer", {SEE, ANSWER}),
        ("operator", {SEE, ANSWER, OPERATE}),
        ("administrator", {SEE, ANSWER, OPERATE, ADMINISTER}),
    ],
)
def test_a_role_allows_what_is_written_and_nothing_more(sales: Department, role: str, allowed: set[str]) -> None:
    user = make_user(department=sales, role=role)
    assert user.get_all_permissions(sales) == allowed
    assert {each for each in (SEE, ANSWER, OPERATE, ADMINISTER) if user.has_perm(each, sales)} == allowed


def test_every_role_has_permissions_and_every_permission_was_created_by_the_migrations() -> None:
    assert set(ROLE_PERMISSIONS) == set(Member.Role.values)
    stored = {f"agents.{codename}" for codename in Permission.objects.values_list("codename", flat=True)}
    assert ROLE_PERMISSIONS[Member.Role.ADMINISTRATOR] <= stored


def test_a_role_counts_in_its_own_department_only(sales: Department, other: Department) -> None:
    user = make_user(department=sales, role="administrator")
    Member.objects.create(department=other, user=user, role="viewer")
    assert user.has_perm(ADMINISTER, sales)
    assert not user.has_perm(ANSWER, other)
    assert can(user, other, "viewer")
    assert not can(user, other, "reviewer")


def test_a_row_is_asked_by_its_department(sales: Department, other: Department) -> None:
    ours, theirs = make_item(sales), make_item(other)
    user = make_user(department=sales, role="operator")
    run = make_agent_run(ours, "intake")
    for row in (ours, run, make_output(ours), make_model_call(run), run.pipeline_run):
        assert user.has_perm(OPERATE, row), row
        assert not user.has_perm(ADMINISTER, row), row
    for row in (theirs, make_output(theirs), make_agent_run(theirs, "intake")):
        assert not user.has_perm(SEE, row), row


def test_without_an_object_membership_allows_nothing(sales: Department) -> None:
    assert not make_user(department=sales, role="administrator").has_perm(SEE)


def test_a_row_that_belongs_to_no_department_belongs_to_nobody(sales: Department) -> None:
    user = make_user(department=sales, role="administrator")
    assert not user.has_perm(SEE, Department(slug="unsaved"))
    assert not user.has_perm(SEE, Permission())


def test_a_permission_granted_in_the_admin_opens_no_department(sales: Department) -> None:
    user = make_user()
    user.user_permissions.set(Permission.objects.filter(content_type__app_label="agents"))
    assert user.has_perm(ADMINISTER)
    assert not user.has_perm(ADMINISTER, sales)
    assert not can(user, sales, "viewer")


def test_a_superuser_may_do_everything_and_a_person_who_left_nothing(sales: Department) -> None:
    root = make_user("root", is_superuser=True)
    assert can(root, sales, "administrator")
    assert root.get_all_permissions(sales) >= {ADMINISTER}
    for user in (root, make_user(department=sales, role="administrator")):
        user.is_active = False
        assert not user.has_perm(SEE, sales)
    assert not can(AnonymousUser(), sales, "viewer")


def test_many_questions_are_one_query(sales: Department, django_assert_num_queries: object) -> None:
    user, item = make_user(department=sales), make_item(sales)
    with django_assert_num_queries(1):  # type: ignore[operator]
        for role in Member.Role.values:
            can(user, item, role)
