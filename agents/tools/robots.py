"""robots.txt as RFC 9309 wants it read: kept for an hour, and a site that cannot say is not read."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable
from urllib.robotparser import RobotFileParser

import httpx2

from agents.tools.base import ToolFailure
from agents.tools.fetching import SiteClient

MAX_BYTES = 500 * 1024
KEPT_SECONDS = 3_600
KEPT_SECONDS_UNREADABLE = 300
MAX_SITES = 2_000


class RobotsCache:
    """What each site (scheme, host, port) allows. Belongs to one process, forgets the oldest first."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._sites: OrderedDict[str, tuple[float, RobotFileParser | None]] = OrderedDict()

    async def check(self, client: SiteClient, url: httpx2.URL, user_agent: str) -> None:
        """ToolFailure if the site does not want this page to be read, or cannot be asked."""
        key = f"{url.scheme}://{url.netloc.decode('ascii')}"
        expires, rules = self._sites.get(key, (0.0, None))
        if expires <= self._clock():
            rules = await self._fetch(client, url)
            kept = KEPT_SECONDS if rules else KEPT_SECONDS_UNREADABLE
            self._sites[key] = (self._clock() + kept, rules)
            self._sites.move_to_end(key)
            if len(self._sites) > MAX_SITES:
                self._sites.popitem(last=False)
        if rules is None:
            raise ToolFailure("The website's robots.txt cannot be read, so the website is not read.")
        if not rules.can_fetch(user_agent, str(url)):
            raise ToolFailure("The website's robots.txt asks not to read this page.")

    async def _fetch(self, client: SiteClient, url: httpx2.URL) -> RobotFileParser | None:
        """The rules; 4xx means there are none; None if the site cannot say now (RFC 9309, 2.3.1)."""
        answer = await client.get(url.copy_with(raw_path=b"/robots.txt"), max_bytes=MAX_BYTES)
        rules = RobotFileParser()
        if 200 <= answer.status < 300:
            # Half a megabyte of rules takes long enough to parse to hold up everybody else in the loop.
            await asyncio.to_thread(rules.parse, answer.body.decode("utf-8-sig", errors="replace").splitlines())
        elif 400 <= answer.status < 500 and answer.status != 429:
            rules.parse([])
        else:
            return None
        return rules
