"""Who guesses passwords waits; who forgot theirs gets a link. The last word is the database's."""

from __future__ import annotations

import asyncio
import re
import threading
from datetime import timedelta
from ipaddress import ip_network
from threading import Event
from typing import Any

import pytest
from django.conf import settings
from django.contrib.auth.models import User
from django.core.mail import EmailMessage
from django.db.models import F
from django.test import Client
from django.urls import reverse
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from runs import sign_in
from runs.models import LogEntry, SignInAttempt
from runs.sign_in import LIMIT, LIMIT_ANYWHERE, begin_attempt, forget_attempts
from runs.views.signing_in import MAIL_THREAD
from tests.engine import in_threads
from tests.factories import make_department, make_user

pytestmark = pytest.mark.django_db
GOOD, NEW = "correct-horse-1", "battery-staple-2"


@pytest.fixture
def olga() -> User:
    return make_user(department=make_department(), password=GOOD, is_superuser=True)


@pytest.fixture(autouse=True)
def _cheap_passwords(settings: Any) -> None:
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]


def enter(password: str, name: str = "olga", *, address: str = "10.0.0.1", door: str = "login") -> tuple[bool, str]:
    """Whether they are in, and what the page says."""
    url = reverse("admin:login") if door == "admin" else reverse("login")
    response = Client(REMOTE_ADDR=address).post(url, {"username": name, "password": password})
    return response.status_code == 302, "" if response.status_code == 302 else response.content.decode()


def _grow_older(**by: int) -> None:
    """As if the tries had been so long ago: the clock is the database's."""
    SignInAttempt.objects.update(at=F("at") - timedelta(**by))


@pytest.mark.parametrize("door", ["login", "admin"])
def test_after_ten_wrong_passwords_even_the_right_one_waits(olga: User, door: str) -> None:
    for _ in range(LIMIT):
        is_in, html = enter("wrong", door=door)
        assert not is_in
        assert "do not belong together" in html
    is_in, html = enter(GOOD, door=door)
    assert not is_in
    assert "Too many tries. Wait 15 minutes, then try again." in html
    _grow_older(minutes=14, seconds=10)
    assert "Wait 1 minute," in enter(GOOD, door=door)[1]
    _grow_older(minutes=2)
    assert enter(GOOD, door=door)[0], "who keeps trying does not wait for ever"


def test_both_doors_count_together_and_the_tenth_failure_is_in_the_log(olga: User) -> None:
    for index in range(LIMIT):
        assert not LogEntry.objects.filter(kind="sign_in").exists()
        enter("wrong", door="admin" if index % 2 else "login")
    enter("wrong")
    entry = LogEntry.objects.get(kind="sign_in")
    assert entry.text == "10 wrong passwords for olga from 10.0.0.1 within 15 minutes: they wait."
    assert entry.level == "warning"
    assert not enter(GOOD)[0]


def test_another_address_and_another_name_do_not_wait(olga: User) -> None:
    make_user("ole", password=GOOD)
    for _ in range(LIMIT):
        enter("wrong")
    assert enter(GOOD, address="10.0.0.2")[0]
    assert enter(GOOD, "ole")[0]


def test_guesses_from_many_machines_count_together(olga: User) -> None:
    for index in range(LIMIT_ANYWHERE):
        assert begin_attempt(name="olga", address=f"10.0.1.{index}").wait_until is None
    assert begin_attempt(name="Olga", address="10.0.2.1").wait_until is not None


OFFICE, MAPPED = "9.9.9.9", "::ffff:9.9.9.9"


def test_one_password_tried_on_many_names_is_guessing_too(olga: User, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sign_in, "LIMIT_OF_ADDRESS", 5)
    for index in range(5):
        assert not LogEntry.objects.filter(kind="sign_in").exists()
        assert (
            "do not belong together" in enter("Summer2026", f"name{index}", address=MAPPED if index % 2 else OFFICE)[1]
        )
    assert LogEntry.objects.get(kind="sign_in").text == "5 wrong passwords from 9.9.9.9 within 15 minutes: they wait."
    assert "Too many tries. Wait 15 minutes" in enter(GOOD, address=OFFICE)[1]
    assert enter(GOOD, address="9.9.9.10")[0]
    _grow_older(minutes=16)
    assert enter(GOOD, address=OFFICE)[0]


def test_an_address_behind_which_everybody_may_be_has_no_limit_of_all_names(
    olga: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sign_in, "LIMIT_OF_ADDRESS", 5)
    for address in ("10.0.0.1", "127.0.0.1", "fd00::1", "", "testclient"):
        for index in range(6):
            assert begin_attempt(name=f"name{index}", address=address).wait_until is None


def test_of_the_newer_addresses_one_machine_has_a_whole_network(olga: User) -> None:
    for index in range(LIMIT):
        enter("wrong", address=f"2a00:1450:4001:80{index % 2}::{index}")
    assert enter("wrong", address="2a00:1450:4001:800::ffff")[1].count("do not belong together") == 1
    for index in range(LIMIT):
        enter("wrong", address=f"2a00:1450:4001:802:{index}::1")
    assert "Too many tries." in enter(GOOD, address="2a00:1450:4001:802:ffff:ffff:ffff:ffff")[1]
    assert enter(GOOD, address="2a00:1450:4001:800::5")[0]
    assert not SignInAttempt.objects.filter(address="2a00:1450:4001:800::/64").exists(), "who gets in begins anew"


def test_behind_the_proxy_of_compose_everybody_has_an_address_of_their_own() -> None:
    text = (settings.BASE_DIR / "compose.yaml").read_text()
    (subnet,) = re.findall(r"subnet: (\S+)", text)
    (believed,) = re.findall(r"FORWARDED_ALLOW_IPS: \${FORWARDED_ALLOW_IPS:-(\S+)}", text)
    assert believed == subnet
    seen = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope["client"][0])

    # What a person writes into the header themselves stands before what the proxy adds.
    headers = [(b"x-forwarded-for", b"1.2.3.4, 9.9.9.9")]
    gateway = str(next(ip_network(subnet).hosts()))
    for client in (gateway, "8.8.8.8"):
        scope: Any = {"type": "http", "client": (client, 1), "scheme": "http", "headers": headers}
        asyncio.run(ProxyHeadersMiddleware(app, believed)(scope, None, None))  # type: ignore[arg-type]
    assert seen == ["9.9.9.9", "8.8.8.8"]


def test_who_gets_in_begins_anew(olga: User) -> None:
    for _ in range(LIMIT - 1):
        enter("wrong")
    assert enter(GOOD)[0]
    assert not SignInAttempt.objects.exists()
    assert "do not belong together" in enter("wrong")[1]


def test_what_may_be_a_password_in_the_wrong_field_is_not_stored(olga: User) -> None:
    enter("olga", name="my secret word")
    enter("wrong", name="OLGA")
    names = set(SignInAttempt.objects.values_list("name", flat=True))
    assert "olga" in names
    (other,) = names - {"olga"}
    assert other.startswith("#")
    assert "secret" not in other


def test_what_is_old_is_forgotten(olga: User) -> None:
    begin_attempt(name="somebody", address="10.0.0.9")
    _grow_older(hours=25)
    begin_attempt(name="olga", address="10.0.0.1")
    assert list(SignInAttempt.objects.values_list("name", flat=True)) == ["olga"]


@pytest.mark.django_db(transaction=True)
def test_of_many_tries_at_once_no_more_than_ten_are_let_in(monkeypatch: pytest.MonkeyPatch) -> None:
    make_user("olga")
    monkeypatch.setattr(sign_in, "LIMIT", 4)
    for _ in range(3):
        found = in_threads(lambda _: begin_attempt(name="olga", address="10.0.0.1").wait_until, 12)
        assert sum(wait is None for wait in found) <= 4
        assert SignInAttempt.objects.count() <= 4
        assert begin_attempt(name="olga", address="10.0.0.1").wait_until is not None or len(found) > 4
        forget_attempts(name="olga")
        assert begin_attempt(name="olga", address="10.0.0.1").wait_until is None
        forget_attempts(name="olga")


def wait_for_mails() -> None:
    for thread in threading.enumerate():
        if thread.name == MAIL_THREAD:
            thread.join(30)


def test_who_forgot_their_password_chooses_a_new_one_by_mail(olga: User, settings: Any, mailoutbox: list[Any]) -> None:
    settings.EMAIL_IS_CONFIGURED = True
    for _ in range(LIMIT):
        enter("wrong")
    client = Client()
    assert reverse("password_reset") in client.get(reverse("login")).content.decode()
    sent = client.post(reverse("password_reset"), {"email": "OLGA@example.com"}, follow=True)
    assert "Look into your mail" in sent.content.decode()
    assert "on its way" not in sent.content.decode(), "the mail server may have refused it"
    wait_for_mails()
    (mail,) = mailoutbox
    assert mail.to == ["olga@example.com"]
    assert mail.subject == "Your new password for Kontor"
    (link,) = re.findall(r"http://\S+", mail.body)
    assert link.startswith(f"{settings.BASE_URL}/password/reset/")
    path = link.removeprefix(settings.BASE_URL)
    form = client.get(path, follow=True)
    url = form.redirect_chain[-1][0]
    wrong = client.post(url, {"new_password1": NEW, "new_password2": "other"}).content.decode()
    assert "match" in wrong
    done = client.post(url, {"new_password1": NEW, "new_password2": NEW}, follow=True)
    assert "Your password is set" in done.content.decode()
    assert enter(NEW)[0], "at once, although somebody's guesses had shut them out"
    assert "This link does not hold" in Client().get(path, follow=True).content.decode()


def test_whether_there_is_such_a_person_is_not_said_and_nobody_is_mailed_without_end(
    olga: User, settings: Any, mailoutbox: list[Any]
) -> None:
    settings.EMAIL_IS_CONFIGURED = True
    client = Client()
    known = client.post(reverse("password_reset"), {"email": "olga@example.com"}, follow=True).content
    unknown = client.post(reverse("password_reset"), {"email": "nobody@example.com"}, follow=True).content
    token = re.compile(rb"\w{64}")
    assert token.sub(b"", known) == token.sub(b"", unknown)
    for _ in range(LIMIT + 3):
        html = client.post(reverse("password_reset"), {"email": "olga@example.com"}, follow=True).content.decode()
    wait_for_mails()
    assert len(mailoutbox) == LIMIT
    assert "Too many tries. Wait 15 minutes" in html
    assert 'value="olga@example.com"' in html


def test_nobody_waits_for_the_mail_server_and_so_learns_who_is_here(
    olga: User, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.EMAIL_IS_CONFIGURED = True
    answered, sent = Event(), []

    def send(mail: EmailMessage, **_: Any) -> int:
        sent.append(answered.wait(30))
        return 1

    monkeypatch.setattr(EmailMessage, "send", send)
    Client().post(reverse("password_reset"), {"email": "olga@example.com"})
    answered.set()
    wait_for_mails()
    assert sent == [True], "the page was there while the mail server was still at it"


def test_without_a_mail_server_there_is_no_link_to_nowhere(olga: User, settings: Any) -> None:
    settings.EMAIL_IS_CONFIGURED = False
    html = Client().get(reverse("login")).content.decode()
    assert reverse("password_reset") not in html
    assert "An administrator gives you a new one." in html
    for name in ("password_reset", "password_reset_done", "password_reset_complete"):
        assert Client().get(reverse(name)).status_code == 404
    assert Client().post(reverse("password_reset"), {"email": "olga@example.com"}).status_code == 404


def test_an_empty_form_is_no_try(olga: User) -> None:
    assert "Write your name and your password." in enter("", name="olga")[1]
    assert not SignInAttempt.objects.exists()
