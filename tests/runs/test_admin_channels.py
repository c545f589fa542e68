"""The admin page of channels: fields instead of JSON, mistakes said, other departments out of sight."""

from __future__ import annotations

from typing import Any

import pytest
from django.test import Client
from django.urls import reverse

from agents.models import Department, Member
from runs.models import Channel
from tests.factories import make_department, make_user

pytestmark = pytest.mark.django_db
FIELDS = {"kind": "email", "undo_seconds": "60", "per_minute": "30", "daily_cap": "200", "is_enabled": "on"}


@pytest.fixture
def department() -> Department:
    return make_department()


@pytest.fixture
def ada(department: Department) -> Client:
    user = make_user("ada", department=department, role=Member.Role.ADMINISTRATOR)
    user.is_staff = True
    user.save()
    client = Client()
    client.force_login(user)
    return client


def save(client: Client, channel: Channel, **fields: str) -> Any:
    return client.post(reverse("admin:runs_channel_change", args=[channel.pk]), {**FIELDS, **fields})


def test_what_the_plug_in_asks_for_has_fields_of_its_own(ada: Client, department: Department) -> None:
    channel = Channel.objects.create(department=department, kind="email", settings={"footer": "kept"})
    response = save(ada, channel, sender="Mara <mara@x.example>", reply_to="answers@x.example")
    assert response.status_code == 302
    channel.refresh_from_db()
    assert channel.settings == {"footer": "kept", "sender": "Mara <mara@x.example>", "reply_to": "answers@x.example"}
    page = ada.get(reverse("admin:runs_channel_change", args=[channel.pk])).content.decode()
    assert "mara@x.example" in page


@pytest.mark.parametrize(
    "fields",
    [
        {"sender": ""},
        {"sender": "nobody"},
        {"sender": "a@x.example", "reply_to": "x"},
        {"sender": "a@x.example", "url": "ftp://x"},
        {"sender": "a@x.example", "quiet_from": "20:00"},
        {"sender": "a@x.example", "secret_env": "not a name"},
    ],
)
def test_mistakes_are_refused(ada: Client, department: Department, fields: dict[str, str]) -> None:
    channel = Channel.objects.create(department=department, kind="email")
    assert save(ada, channel, **fields).status_code == 200
    channel.refresh_from_db()
    assert channel.settings == {}


def test_channels_of_other_departments_do_not_exist(ada: Client) -> None:
    channel = Channel.objects.create(department=make_department(slug="second"), kind="email")
    assert save(ada, channel, sender="a@x.example").status_code == 302
    channel.refresh_from_db()
    assert channel.settings == {}


def test_a_channel_cannot_name_the_variable_of_another_department(ada: Client, department: Department) -> None:
    other = make_department(slug="second", api_key_env="THEIR_KEY")
    Channel.objects.create(department=other, kind="email", secret_env="THEIR_SECRET")
    channel = Channel.objects.create(department=department, kind="email", secret_env="MINE")
    for name in ("THEIR_SECRET", "THEIR_KEY"):
        response = save(ada, channel, sender="a@x.example", secret_env=name)
        assert response.status_code == 200
        assert f"{name} is not a variable of this department." in response.content.decode()
    new = {**FIELDS, "kind": "slack", "department": str(department.pk), "secret_env": "THEIR_SECRET"}
    assert "is not a variable of this department" in ada.post(reverse("admin:runs_channel_add"), new).content.decode()
    assert not Channel.objects.filter(department=department, secret_env__startswith="THEIR").exists()
    Channel.objects.filter(pk=channel.pk).update(secret_env="THEIR_SECRET")
    assert save(ada, channel, sender="b@x.example", secret_env="THEIR_SECRET").status_code == 302, "as it was"
    assert save(ada, channel, sender="b@x.example", secret_env=f"{department.slug.upper()}_TOO").status_code == 302
