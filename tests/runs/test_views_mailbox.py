"""The mailbox: mails that were written to files, for superusers, and only where that is so."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from django.core.mail import EmailMessage
from django.urls import reverse

from tests.factories import make_user
from tests.runs.scene import Scene, make_scene

pytestmark = pytest.mark.django_db


@pytest.fixture
def scene(settings: Any, tmp_path: Path) -> Scene:
    settings.EMAIL_BACKEND = "django.core.mail.backends.filebased.EmailBackend"
    settings.EMAIL_FILE_PATH = str(tmp_path)
    return make_scene()


def test_mails_are_shown_as_they_would_have_been_sent(scene: Scene) -> None:
    root = make_user("root", is_superuser=True)
    client = scene.client(root)
    assert "Nothing has been sent yet" in client.get(reverse("runs:mailbox")).content.decode()
    EmailMessage("Grüße", "Liebe Frau <Weber>,\nbis bald.", "mara@x.example", ["lena@y.example"]).send()
    page = client.get(reverse("runs:mailbox")).content.decode()
    assert "Grüße" in page
    assert "Liebe Frau &lt;Weber&gt;," in page
    assert "lena@y.example" in page


def test_nobody_else_sees_it(scene: Scene) -> None:
    for user in (scene.operator, scene.stranger):
        assert scene.client(user).get(reverse("runs:mailbox")).status_code == 404


def test_it_is_not_there_where_mails_are_sent(scene: Scene, settings: Any) -> None:
    settings.EMAIL_BACKEND = "django.core.mail.backends.smtp.EmailBackend"
    root = make_user("root", is_superuser=True)
    assert scene.client(root).get(reverse("runs:mailbox")).status_code == 404
