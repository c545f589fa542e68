"""A real Chromium, and the real ASGI application on a free port; both in this process's test database."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import pytest
import uvicorn
from django.contrib.staticfiles.handlers import ASGIStaticFilesHandler
from django.db import connections
from django.utils import timezone
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright

from agents.models import Department
from config.asgi import application
from runs.models import Review, SendBack
from tests import factories
from tests.chromium import FLAGS, chromium_path
from tests.engine import wait_for
from tests.runs.desk import make_drafted

STARTUP_SECONDS = 60
WAIT_MS = 40_000
expect.set_options(timeout=WAIT_MS)

# Playwright's sync API runs a loop of its own in this thread, which Django takes for asynchronous code.
os.environ.setdefault("DJANGO_ALLOW_ASYNC_UNSAFE", "true")


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    path = chromium_path()
    if not path:
        text = "There is no Chromium: install it, or name it in CHROMIUM."
        if os.environ.get("REQUIRE_BROWSER") == "1":
            pytest.fail(text)
        pytest.skip(text)
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=path, args=FLAGS)
        yield launched
        launched.close()


class _Server(uvicorn.Server):
    """Runs in a thread; signals stay with pytest."""

    def install_signal_handlers(self) -> None:
        return


class Web:
    """The running site, which a test may stop and start again at its address."""

    def __init__(self) -> None:
        self._port = 0
        self.start()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    def start(self) -> None:
        """Serve, and wait until it does."""
        handler = ASGIStaticFilesHandler(application)
        config = uvicorn.Config(
            handler, port=self._port, log_level="error", lifespan="off", timeout_graceful_shutdown=1
        )
        self._server = _Server(config)
        self._thread = threading.Thread(target=self._server.run, daemon=True)
        self._thread.start()
        waited = threading.Event()
        for _ in range(STARTUP_SECONDS * 20):
            if self._server.started:
                break
            waited.wait(0.05)
        assert self._server.started, "The web server did not start."
        self._port = self._server.servers[0].sockets[0].getsockname()[1]

    def stop(self) -> None:
        """Close every connection, the event streams too."""
        self._server.should_exit = True
        self._thread.join(STARTUP_SECONDS)
        assert not self._thread.is_alive(), "The web server did not stop."


@pytest.fixture
def web(transactional_db: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[Web]:
    """The running site. It uses threads, so the database is a real one and is emptied afterwards."""
    # Every request has a thread of its own under ASGI; a connection kept for the next one would keep the
    # test database from being dropped.
    monkeypatch.setitem(connections.settings["default"], "CONN_MAX_AGE", 0)
    running = Web()
    yield running
    running.stop()
    connections.close_all()


@pytest.fixture
def site(web: Web) -> str:
    """The address of the running site."""
    return web.address


@dataclass
class Visit:
    """A page in which somebody is signed in, and every complaint of its console."""

    page: Page
    site: str
    complaints: list[str] = field(default_factory=list)

    def open(self, path: str) -> None:
        """Go there and wait until the live stream is up."""
        self.page.goto(self.site + path)
        self.page.locator("#live[data-state=live]").wait_for(timeout=WAIT_MS)

    def until(self, expression: str, arg: Any = None) -> None:
        """Wait until an expression of JavaScript holds. ``wait_for_function`` evals in the page, where the policy
        refuses it unless it holds at once."""
        wait_for(lambda: bool(self.page.evaluate(expression, arg)), expression, WAIT_MS / 1000)

    def overflow(self) -> int:
        """By how many pixels the page is wider than the window."""
        return int(self.page.evaluate("document.documentElement.scrollWidth - window.innerWidth"))


@pytest.fixture
def visit(browser: Browser, site: str) -> Iterator[Callable[..., Visit]]:
    """``visit(user, width=…, scheme=…)`` opens a window in which the person is signed in."""
    contexts: list[BrowserContext] = []

    def start(name: str = "olga", *, width: int = 1440, scheme: Any = "light") -> Visit:
        context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(WAIT_MS)
        opened = Visit(page, site)
        page.on("console", lambda m: opened.complaints.append(m.text) if m.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: opened.complaints.append(str(error)))
        page.goto(f"{site}/login/")
        page.get_by_label("Name").fill(name)
        page.get_by_label("Password").fill("a-password")
        page.get_by_role("button", name="Sign in").click()
        page.wait_for_url(f"{site}/")
        return opened

    yield start
    for context in contexts:
        context.close()


@pytest.fixture
def olga(transactional_db: None) -> Any:
    """An operator of the sales department."""
    return factories.make_user("olga", department=factories.make_department(), password="a-password")


@pytest.fixture
def drafts(olga: Any) -> list[Review]:
    """Three mails that wait, and a doubt, in this order."""
    department = Department.objects.get()
    found = []
    for number in range(3):
        review = make_drafted(department)
        Review.objects.filter(pk=review.pk).update(
            risk=3 - number, ask=f"Send mail {number}?", deadline=timezone.now() + timedelta(hours=number + 1)
        )
        found.append(review)
    item = found[0].item
    assert item is not None
    factories.make_message(
        item, "in", body="Can you check 1,200 invoices a month?", at=timezone.now() - timedelta(days=2)
    )
    SendBack.objects.create(item=item, key="draft", note="Warmer, please.", author=olga)
    last = found[2].item
    assert last is not None
    doubted = factories.make_output(
        last, "crm_update", trigger=factories.make_trigger(last, "decision", status="handled")
    )
    found.append(factories.make_review(doubted.item, output=doubted, kind="low_confidence", ask="Is a meeting right?"))
    return found
