"""``read_website``: pages of the item's own website, as text. The rest of the network stays out of reach."""

from __future__ import annotations

import asyncio
import ssl
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import httpx2
from django.conf import settings
from pydantic import Field

from agents.reading import PageText, decode_text, page_text
from agents.tools.addresses import PRIVATE_NETWORKS, AddressPolicy, host_of, same_site
from agents.tools.base import Args, NetworkTool, ToolArgs, ToolContext, ToolFailure, ToolResult
from agents.tools.fetching import Fetched, SiteClient, UnreachableError
from agents.tools.robots import RobotsCache

MAX_SECONDS = 8.0
MAX_BYTES = 1_000_000
CONTENT_TYPES = ("text/html", "text/plain")

# Extraction is work for the CPU: beside the event loop, and never more than two pages of it at a time.
_EXTRACTION = ThreadPoolExecutor(max_workers=2, thread_name_prefix="page-text")
_ROBOTS = RobotsCache()


class ReadArgs(ToolArgs):
    page: str = Field(
        "",
        max_length=2_000,
        description="A path such as /about, or an address on that website; empty for the front page.",
    )


@dataclass(frozen=True, slots=True)
class WebsiteReader:
    """Reads pages within a policy. The engine uses the default one; tests give their own."""

    policy: AddressPolicy
    user_agent: str
    robots: RobotsCache = field(default_factory=RobotsCache)
    verify: ssl.SSLContext | None = None
    max_seconds: float = MAX_SECONDS

    async def read(self, ctx: ToolContext, args: Args) -> ToolResult:
        """The text of one page of ``ctx.item["website"]``. Else a ToolFailure that says why."""
        website = str(ctx.item.get("website") or "").strip()
        record = {"website": website, "page": args["page"]}
        if not ctx.network:
            raise ToolFailure("The website could not be read: network access is off here.", **record)
        if not website:
            raise ToolFailure("No website is known for this item.", **record)
        async with SiteClient(self.policy, self.user_agent, self.verify, self.max_seconds) as client:
            client.record.update(record)
            try:
                async with asyncio.timeout(self.max_seconds):
                    return await self._read(client, website, args["page"])
            except TimeoutError:
                reason = f"The website did not answer within {self.max_seconds:g} seconds."
                raise ToolFailure(reason, **client.record) from None
            except ToolFailure as failure:
                failure.detail = client.record | failure.detail
                raise

    async def _read(self, client: SiteClient, website: str, page: str) -> ToolResult:
        has_scheme = "://" in website
        site = self.policy.check_url(website if has_scheme else f"https://{website}")
        url = self.policy.check_url(_absolute(page.strip(), site), base=site) if page.strip() else site
        if not same_site(host_of(url), host_of(site)):
            raise ToolFailure(f"Only the item's own website, {host_of(site)}, can be read.")
        client.record["url"] = str(url)
        try:
            fetched = await self._get(client, url)
        except UnreachableError:
            if has_scheme or "://" in page:
                raise
            fetched = await self._get(client, url.copy_with(scheme="http"))
        return await self._result(client, fetched)

    async def _get(self, client: SiteClient, url: httpx2.URL) -> Fetched:
        async def allowed(hop: httpx2.URL) -> None:
            await self.robots.check(client, hop, self.user_agent)

        return await client.get(url, max_bytes=MAX_BYTES, before_hop=allowed)

    async def _result(self, client: SiteClient, fetched: Fetched) -> ToolResult:
        client.record |= {
            "final_url": str(fetched.url),
            "status": fetched.status,
            "content_type": fetched.content_type,
            "bytes": len(fetched.body),
            "is_cut": fetched.is_cut,
        }
        if not 200 <= fetched.status < 300:
            raise ToolFailure(f"The website answered {fetched.status} for this page.")
        if fetched.content_type not in CONTENT_TYPES:
            raise ToolFailure("This address is not a web page: only HTML and plain text are read.")
        loop = asyncio.get_running_loop()
        page = await loop.run_in_executor(_EXTRACTION, _text_of, fetched)
        if not page.text:
            raise ToolFailure("The page holds no text that can be read without running scripts.")
        head = f"{page.title}\n{fetched.url}\n\n" if page.title else f"{fetched.url}\n\n"
        return ToolResult(head + page.text, detail=dict(client.record, title=page.title))


async def read_website(ctx: ToolContext, args: Args) -> ToolResult:
    """Read with the policy of the settings: public addresses only, none while the network is off."""
    extra = PRIVATE_NETWORKS if settings.TOOLS_ALLOW_PRIVATE else ()
    reader = WebsiteReader(AddressPolicy(extra, any_port=settings.TOOLS_ALLOW_PRIVATE), user_agent(), _ROBOTS)
    allowed = ToolContext(ctx.department_id, ctx.item, ctx.network and settings.TOOLS_NETWORK)
    return await reader.read(allowed, args)


def user_agent() -> str:
    """How the tools introduce themselves; robots.txt may name it as ``Kontor``."""
    return f"Kontor/{settings.VERSION} (+research; honours robots.txt)"


def _absolute(page: str, site: httpx2.URL) -> str:
    """``example.com/about`` is meant as an address, though a browser would take it for a path."""
    is_host = same_site(page.split("/")[0].lower(), host_of(site))
    return f"{site.scheme}://{page}" if is_host else page


def _text_of(fetched: Fetched) -> PageText:
    text = decode_text(fetched.body, fetched.charset)
    return page_text(text) if fetched.content_type == "text/html" else PageText("", text.strip())


READ_WEBSITE = NetworkTool(
    name="read_website",
    description=(
        "Reads one page of the item's own website. If that fails, say in your output what could not be found out."
    ),
    args=ReadArgs,
    timeout_seconds=MAX_SECONDS + 2,
    max_chars=4_000,
    run=read_website,
)
