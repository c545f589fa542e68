"""manage.py demo_users: one person for each role."""

from __future__ import annotations

import io
from typing import Any

import pytest
from django.contrib.auth import authenticate
from django.contrib.auth.models import User
from django.core.management import CommandError, call_command

from agents.models import Department, Member
from tests.factories import make_department

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def _debug(settings: Any) -> None:
    settings.DEBUG = True


def run(**options: Any) -> dict[str, str]:
    """Run the command; what it printed of each person."""
    out = io.StringIO()
    call_command("demo_users", stdout=out, **options)
    return {line.split()[0]: line.split(maxsplit=1)[1] for line in out.getvalue().splitlines()}


def test_each_can_sign_in_with_the_printed_password_and_has_the_role() -> None:
    department = make_department()
    told = run()
    assert list(told) == [f"demo-{role}" for role in Member.Role.values]
    for name, words in told.items():
        user = authenticate(username=name, password=words.removeprefix("password "))
        assert user is not None, name
        assert Member.objects.get(user__username=name, department=department).role == name.removeprefix("demo-")
    assert User.objects.get(is_staff=True).username == "demo-administrator"
    assert not User.objects.filter(is_superuser=True).exists()


def test_a_second_time_keeps_passwords_and_gives_a_changed_role_back() -> None:
    make_department()
    password = run()["demo-viewer"].removeprefix("password ")
    Member.objects.update(role=Member.Role.ADMINISTRATOR)
    told = run()
    assert all(words.startswith("keeps the password") for words in told.values())
    assert authenticate(username="demo-viewer", password=password)
    assert set(Member.objects.values_list("role", flat=True)) == set(Member.Role.values)
    assert User.objects.count() == Member.objects.count() == 4


def test_new_passwords_replace_the_old_ones() -> None:
    make_department()
    old = run()["demo-viewer"].removeprefix("password ")
    new = run(new_passwords=True)["demo-viewer"].removeprefix("password ")
    assert authenticate(username="demo-viewer", password=new)
    assert not authenticate(username="demo-viewer", password=old)


def test_outside_of_debugging_it_takes_force(settings: Any) -> None:
    make_department()
    settings.DEBUG = False
    with pytest.raises(CommandError, match="DEBUG is off"):
        run()
    assert not User.objects.exists()
    assert len(run(force=True)) == 4


def test_of_several_departments_one_is_named() -> None:
    with pytest.raises(CommandError, match="sync_departments"):
        run()
    make_department()
    make_department(slug="other")
    with pytest.raises(CommandError, match="other"):
        run()
    run(department="other")
    assert set(Member.objects.values_list("department__slug", flat=True)) == {"other"}
    assert Department.objects.get(slug="sales").members.count() == 0
