"""``make shot``: the README's picture, taken from the running demo. WEB_PORT and LEAD choose another port or lead."""

from __future__ import annotations

import os
import re
import sys

from playwright.sync_api import Error, Page, sync_playwright

from tests.browser.conftest import FLAGS, chromium_path
from tests.engine_size import ROOT

PICTURE = ROOT / "static" / "docs" / "lead.png"
SIZE = {"width": 1440, "height": 1000}


def read_password() -> str:
    """The password of the user demo, from where ``make demo`` keeps it."""
    lines = (ROOT / "var" / "demo.env").read_text().splitlines()
    return next(line.partition("=")[2] for line in lines if line.startswith("DEMO_PASSWORD="))


def take_picture(page: Page, site: str, lead: str) -> None:
    """Log in, go to the lead (else the first one whose draft waits for approval) and take the picture."""
    page.goto(f"{site}/login/")
    page.fill("input[name=username]", "demo")
    page.fill("input[name=password]", read_password())
    page.press("input[name=password]", "Enter")
    page.wait_for_url(f"{site}/")
    if lead:
        page.goto(f"{site}/leads/{lead}/")
    else:
        page.goto(f"{site}/leads/?status=drafted")
        links = page.locator("main a").evaluate_all("links => links.map(link => link.getAttribute('href'))")
        page.goto(site + next(link for link in links if re.fullmatch(r"/leads/\d+/", link or "")))
    page.wait_for_load_state("load")
    page.wait_for_function("document.fonts.status === 'loaded'")
    PICTURE.parent.mkdir(exist_ok=True)
    page.screenshot(path=PICTURE)


def main() -> int:
    """Take the picture; 1 and a sentence where there is no demo or no browser."""
    site = f"http://127.0.0.1:{os.environ.get('WEB_PORT') or 8000}"
    path = chromium_path()
    if not path:
        print("There is no Chromium: install it, or name it in CHROMIUM.")
        return 1
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=FLAGS)
        try:
            page = browser.new_page(viewport=SIZE)  # type: ignore[arg-type]
            take_picture(page, site, os.environ.get("LEAD", ""))
        except (Error, OSError, StopIteration) as error:
            print(f"No picture was taken: {error}\nIs the demo running? Start it with `make demo` in another terminal.")
            return 1
        finally:
            browser.close()
    print(f"The picture is in {PICTURE.relative_to(ROOT)}.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
