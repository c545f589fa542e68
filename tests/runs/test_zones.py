"""Times in the zone of whoever looks; a cookie may say anything."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from django.template import Context, Template
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from runs.zones import COOKIE, find_zone
from tests import factories
from tests.runs.scene import make_scene

SUMMER = datetime(2026, 7, 1, 22, 30, 5, 250_000, tzinfo=UTC)


def test_a_zone_is_found_by_its_name() -> None:
    assert find_zone("Europe/Berlin").key == "Europe/Berlin"


@pytest.mark.parametrize(
    "name", ["", "Nowhere/Atall", "../../etc/passwd", "/etc/passwd", "Europe", "Ünïcode", "a" * 5_000, "\0", "Europe/"]
)
def test_a_wrong_name_is_utc(name: str) -> None:
    assert find_zone(name).key == "UTC"


@pytest.mark.parametrize(
    ("filter_name", "text"), [("moment", "2026-07-02 00:30:05"), ("clock", "00:30:05.250"), ("ago", "ago")]
)
def test_filters_show_the_time_of_the_zone_and_say_which_it_is(filter_name: str, text: str) -> None:
    with timezone.override(find_zone("Europe/Berlin")):
        html = Template("{% load kontor %}{{ at|" + filter_name + " }}").render(Context({"at": SUMMER}))
    assert 'title="2026-07-02 00:30:05 CEST"' in html
    assert 'datetime="2026-07-01T22:30:05.250000+00:00"' in html
    assert text in html or filter_name == "ago"


@pytest.mark.django_db
def test_a_page_is_in_the_zone_of_the_browser_that_asks_and_the_next_one_in_its_own() -> None:
    scene = make_scene()
    factories.make_log_entry(scene.lead.item, at=SUMMER, text="Midsummer.")
    client, url = scene.client(scene.viewer), reverse("runs:live")
    client.cookies[COOKIE] = "Asia/Tokyo"
    assert "07:30:05.250" in client.get(url).content.decode()
    assert timezone.get_current_timezone_name() == "UTC"
    assert "22:30:05.250" in scene.client(scene.viewer).get(url).content.decode()


@pytest.mark.django_db
def test_rubbish_in_the_cookie_refuses_nobody() -> None:
    client = Client()
    client.cookies[COOKIE] = "../../../dev/zero"
    assert client.get(reverse("login")).status_code == 200
