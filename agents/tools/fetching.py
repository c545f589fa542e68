"""One guarded GET: checked addresses only, few redirects, bounded in bytes. The caller bounds the time."""

from __future__ import annotations

import functools
import ssl
import zlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import httpx2

from agents.tools.addresses import AddressPolicy, host_of, same_site
from agents.tools.base import ToolFailure

MAX_REDIRECTS = 3
MAX_ADDRESSES = 3
_REDIRECTS = (301, 302, 303, 307, 308)

BeforeHop = Callable[[httpx2.URL], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Fetched:
    """An answer of the site. ``body`` is at most as long as asked for; ``is_cut``: there was more."""

    url: httpx2.URL
    status: int
    content_type: str
    charset: str | None
    body: bytes
    is_cut: bool


class UnreachableError(ToolFailure):
    """No connection to any address of the site. Another scheme may still work."""


class SiteClient:
    """Reads from one site and from nowhere else. ``record`` collects what happened, for the log."""

    def __init__(
        self,
        policy: AddressPolicy,
        user_agent: str,
        verify: ssl.SSLContext | None = None,
        max_seconds: float = 8,
    ) -> None:
        self.policy = policy
        self.record: dict[str, Any] = {}
        self._client = httpx2.AsyncClient(
            verify=verify or _trusted(),
            headers={
                "User-Agent": user_agent,
                "Accept-Encoding": "gzip",
                "Accept": "text/html, text/plain;q=0.9",
            },
            # The caller's limit ends the whole; an address that swallows packets leaves time for the next.
            timeout=httpx2.Timeout(max_seconds + 1, connect=max_seconds / MAX_ADDRESSES),
            # No proxy from the environment: it would resolve the name again, and may sit inside the network.
            trust_env=False,
            # No connection is kept: one that was checked for a name must not serve another name.
            limits=httpx2.Limits(max_keepalive_connections=0),
        )

    async def __aenter__(self) -> SiteClient:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._client.aclose()

    async def get(self, url: httpx2.URL, *, max_bytes: int, before_hop: BeforeHop | None = None) -> Fetched:
        """The final answer after at most ``MAX_REDIRECTS`` redirects, all within the site, or ToolFailure.

        ``before_hop`` is awaited before each request and may refuse it.
        """
        site = host_of(url)
        for _ in range(MAX_REDIRECTS + 1):
            if before_hop is not None:
                await before_hop(url)
            answer, location = await self._once(url, max_bytes)
            if location is None:
                return answer
            url = self.policy.check_url(location, base=url)
            self.record.setdefault("redirects", []).append(str(url))
            if not same_site(host_of(url), site):
                raise ToolFailure(f"The website sends its visitors to another site, {host_of(url)}; that is not read.")
        raise ToolFailure(f"The website redirects more than {MAX_REDIRECTS} times.")

    async def _once(self, url: httpx2.URL, max_bytes: int) -> tuple[Fetched, str | None]:
        addresses = await self.policy.addresses(url)
        for address in addresses[:MAX_ADDRESSES]:
            try:
                return await self._request(url, address, max_bytes)
            except (httpx2.ConnectError, httpx2.ConnectTimeout):
                continue
            except (httpx2.HTTPError, httpx2.InvalidURL, zlib.error) as error:
                raise ToolFailure("The website's answer broke off or makes no sense.") from error
        raise UnreachableError(f"The website {host_of(url)} cannot be reached.")

    async def _request(self, url: httpx2.URL, address: str, max_bytes: int) -> tuple[Fetched, str | None]:
        # The request goes to the address that was checked. The name goes into the Host header and into the
        # TLS handshake, which verifies the certificate against it.
        request = self._client.build_request(
            "GET",
            url.copy_with(host=address),
            headers={"Host": url.netloc.decode("ascii")},
            extensions={"sni_hostname": host_of(url)},
        )
        response = await self._client.send(request, stream=True, follow_redirects=False)
        try:
            location = response.headers.get("location") if response.status_code in _REDIRECTS else None
            body, is_cut = (b"", False) if location else await _bounded_body(response, max_bytes)
        finally:
            await response.aclose()
        content_type = response.headers.get("content-type", "").split(";")[0].strip().lower()
        fetched = Fetched(url, response.status_code, content_type, response.charset_encoding, body, is_cut)
        return fetched, location


async def _bounded_body(response: httpx2.Response, max_bytes: int) -> tuple[bytes, bool]:
    """The first ``max_bytes`` of the body after unpacking. Unpacks itself, because a few kilobytes of gzip
    can hold gigabytes and the client would unpack each chunk as a whole."""
    encoding = response.headers.get("content-encoding", "identity").strip().lower()
    if encoding not in ("", "identity", "gzip", "x-gzip"):
        raise ToolFailure("The website packs its pages in a way that was not asked for.")
    unpacker = zlib.decompressobj(zlib.MAX_WBITS | 16) if "gzip" in encoding else None
    body = bytearray()
    async for chunk in response.aiter_raw():
        body += unpacker.decompress(chunk, max_bytes + 1 - len(body)) if unpacker else chunk
        if len(body) > max_bytes:
            return bytes(body[:max_bytes]), True
    return bytes(body), False


@functools.cache
def _trusted() -> ssl.SSLContext:
    """The certificates this machine trusts; loading them takes long enough to do it once."""
    return httpx2.create_ssl_context(trust_env=False)
