"""``make shot``: the pictures of the README, light and dark, from the running demo. WEB_PORT and LEAD choose others."""

from __future__ import annotations

import base64
import os
import re
import sys
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, Error, Page, sync_playwright

from tests.chromium import FLAGS, chromium_path
from tests.engine_size import ROOT

FOLDER = ROOT / "docs" / "pictures"
SIZE: Any = {"width": 1440, "height": 900}
SCHEMES: Any = ("light", "dark")
QUALITY = 0.8
PAGES = {
    "overview": "/",
    "leads": "/leads/?sort=cost",
    "lead": "/leads/?status=drafted",
    "run": "/live/?agent=writer",
    "live": "/live/",
    "review": "/reviews/",
    "agents": "/agents/",
    "rules": "/rules/",
    "costs": "/costs/",
    "system": "/system/",
}
FIRST_OF = {"lead": r"/leads/\d+/", "run": r"/runs/\d+/\?step=\d+", "review": r"/reviews/\d+/.*"}
"""Pictures of one thing: the first link of this kind on the page that lists them."""
ENCODE = """async ([data, quality]) => {
  const image = new Image();
  image.src = data;
  await image.decode();
  const canvas = Object.assign(document.createElement("canvas"), { width: image.width, height: image.height });
  canvas.getContext("2d").drawImage(image, 0, 0);
  return canvas.toDataURL("image/webp", quality);
}"""


def read_password() -> str:
    """The password of the user demo, from the environment or from where ``make demo`` keeps it."""
    if given := os.environ.get("DEMO_PASSWORD"):
        return given
    lines = (ROOT / "var" / "demo.env").read_text().splitlines()
    return next(line.partition("=")[2] for line in lines if line.startswith("DEMO_PASSWORD="))


def sign_in(browser: Browser, site: str, scheme: Any) -> Page:
    """A window of this theme in which demo is signed in."""
    page = browser.new_page(viewport=SIZE, color_scheme=scheme)
    page.goto(f"{site}/login/")
    page.fill("input[name=username]", "demo")
    page.fill("input[name=password]", read_password())
    page.press("input[name=password]", "Enter")
    page.wait_for_url(f"{site}/")
    return page


def go_to(page: Page, site: str, name: str) -> None:
    """Open the page of a picture, and wait until it follows."""
    page.goto(site + PAGES[name])
    if pattern := FIRST_OF.get(name):
        lead = os.environ.get("LEAD", "") if name == "lead" else ""
        links = page.locator("main a").evaluate_all("links => links.map(link => link.getAttribute('href'))")
        found = list(dict.fromkeys(link for link in links if re.fullmatch(pattern, link or "")))
        # The first draft of the demo is in a script that few machines have a font for.
        chosen = found[1:2] or found if name == "review" else found
        page.goto(site + (f"/leads/{lead}/" if lead else next(iter(chosen))))
    page.locator("#live[data-state=live]").wait_for()
    page.wait_for_function("document.fonts.status === 'loaded'")


def take_picture(page: Page, encoder: Page, file: Path) -> None:
    """What the window shows, as WebP: Chromium encodes it, so nothing else is needed."""
    png = base64.b64encode(page.screenshot(animations="disabled")).decode()
    data = encoder.evaluate(ENCODE, [f"data:image/png;base64,{png}", QUALITY])
    file.write_bytes(base64.b64decode(data.partition(",")[2]))


def main() -> int:
    """Take the pictures; 1 and a sentence where there is no demo or no browser."""
    site = f"http://127.0.0.1:{os.environ.get('WEB_PORT') or 8000}"
    path = chromium_path()
    if not path:
        print("There is no Chromium: install it, or name it in CHROMIUM.")
        return 1
    FOLDER.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=FLAGS)
        name = "login"
        try:
            encoder = browser.new_page()
            for scheme in SCHEMES:
                page = sign_in(browser, site, scheme)
                for name in PAGES:
                    go_to(page, site, name)
                    take_picture(page, encoder, FOLDER / f"{name}-{scheme}.webp")
        except (Error, OSError, StopIteration) as error:
            print(f"No picture was taken of {name}: {error}\nIs the demo running, and has it worked on its leads?")
            return 1
        finally:
            browser.close()
    total = sum(file.stat().st_size for file in FOLDER.glob("*.webp"))
    print(f"{len(PAGES) * len(SCHEMES)} pictures are in {FOLDER.relative_to(ROOT)} ({total / 1000:.0f} KB).")
    return 0


if __name__ == "__main__":
    sys.exit(main())
