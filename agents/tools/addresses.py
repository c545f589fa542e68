"""Where a tool may connect to: checks addresses as they are written and as they resolve. Opens no connection.

An outsider chooses the address (it comes from a form, or from a redirect of the site), so nothing inside the
own network may be reachable by it: not by a number, a name, a redirect or an answer of the name server.
"""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

import httpx2

from agents.tools.base import ToolFailure

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network
Resolver = Callable[[str, int], Awaitable[Sequence[str]]]

PRIVATE_NETWORKS: tuple[Network, ...] = tuple(
    ip_network(n) for n in ("127.0.0.0/8", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "::1/128", "fc00::/7")
)
"""What ``TOOLS_ALLOW_PRIVATE`` opens. Never link-local: that is where clouds answer with credentials."""

_PUBLIC_IPV6 = ip_network("2000::/3")
_NAT64 = ip_network("64:ff9b::/96")
# Public by their number, internal by their use: Azure's wire server, IETF assignments (Oracle's metadata),
# the relays of 6to4, and 6to4 itself, which carries any IPv4 address.
_NOT_PUBLIC = tuple(
    ip_network(n) for n in ("168.63.129.16/32", "192.0.0.0/24", "192.88.99.0/24", "2001::/23", "2002::/16")
)
_LABEL = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?")
_NUMERIC_LABEL = re.compile(r"[0-9]+|0x[0-9a-f]*")
_UNSAFE = re.compile(r"[\x00-\x20\x7f-\xa0\\]|%(?:00|0a|0d|5c)", re.IGNORECASE)
_DEFAULT_PORTS = {"http": 80, "https": 443}


async def resolve_host(host: str, port: int) -> Sequence[str]:
    """Every address of a host name as the machine's resolver answers. OSError if there is none."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


@dataclass(frozen=True, slots=True)
class AddressPolicy:
    """What may be connected to: public addresses on ports 80 and 443, and what a test or a setting adds."""

    extra_networks: tuple[Network, ...] = ()
    any_port: bool = False
    resolve: Resolver = resolve_host

    def check_url(self, text: str, base: httpx2.URL | None = None) -> httpx2.URL:
        """The address in its one normal form (joined to ``base``, without fragment), or ToolFailure."""
        text = text.strip()
        if len(text) > 2_000 or _UNSAFE.search(text):
            raise ToolFailure("The address holds characters that no address has, or is too long.")
        try:
            url = base.join(text) if base is not None else httpx2.URL(text)
            if url.scheme not in _DEFAULT_PORTS:
                raise ToolFailure("Only http and https addresses can be read.")
            host = _normal_host(host_of(url))
            if url.port is not None and not 0 < url.port < 65_536:
                raise ValueError("port")
        except (httpx2.InvalidURL, UnicodeError, ValueError) as error:
            raise ToolFailure("The address is not a valid web address.") from error
        if url.userinfo:
            raise ToolFailure("An address with a user name or a password is not read.")
        if url.port not in (None, 80, 443) and not self.any_port:
            raise ToolFailure("Only the ports 80 and 443 are read.")
        return url.copy_with(host=host, fragment=None)

    async def addresses(self, url: httpx2.URL) -> list[str]:
        """Every IP address the URL's host has now, all of them allowed, or ToolFailure.

        Connect to one of these and to nothing else: a second look-up may answer differently.
        """
        try:
            found = [str(ip_address(host_of(url)))]
        except ValueError:
            found = await self._look_up(url)
        if not found or not all(self._is_allowed(address) for address in found):
            raise ToolFailure("The website's address leads to a network that must not be read.", addresses=found)
        return found

    async def _look_up(self, url: httpx2.URL) -> list[str]:
        try:
            return list(await self.resolve(host_of(url), url.port or _DEFAULT_PORTS[url.scheme]))
        except (OSError, UnicodeError) as error:
            raise ToolFailure(f"The website {host_of(url)} does not exist: its name is not known.") from error

    def _is_allowed(self, text: str) -> bool:
        try:
            address = _unwrapped(ip_address(text))  # a zone, as in fe80::1%eth0, stays and is refused below
        except ValueError:
            return False
        return is_public(address) or any(address in network for network in self.extra_networks)


def host_of(url: httpx2.URL) -> str:
    """The host as it goes on the wire: ASCII, where ``url.host`` may be the readable form of it."""
    return url.raw_host.decode("ascii")


def is_public(address: Address) -> bool:
    """Whether the address is of the public internet: not private, shared, link-local, reserved, multicast."""
    address = _unwrapped(address)
    if isinstance(address, IPv6Address) and (address.scope_id or address not in _PUBLIC_IPV6):
        return False
    if not address.is_global or address.is_multicast or address.is_reserved:
        return False
    return not any(address in network for network in _NOT_PUBLIC)


def same_site(host: str, other: str) -> bool:
    """Whether two host names are one site: the same name, with or without ``www.``."""
    return host.removeprefix("www.") == other.removeprefix("www.")


def _unwrapped(address: Address) -> Address:
    """The IPv4 address inside an IPv6 one, where there is one that a machine would connect to."""
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped is not None:
            return address.ipv4_mapped
        if address in _NAT64:
            return IPv4Address(address.packed[-4:])
    return address


def _normal_host(host: str) -> str:
    """The host in lower case without a final dot; ValueError if it is neither a name nor a plain address."""
    host = host.lower().removesuffix(".")
    if ":" in host:
        if "%" in host:
            raise ValueError("zone")
        return str(IPv6Address(host))
    labels = host.split(".")
    if _NUMERIC_LABEL.fullmatch(labels[-1]):
        # Resolvers read 2130706433, 0x7f.1 and 0177.0.0.1 as addresses. Only the plain spelling is taken.
        return str(IPv4Address(host))
    if len(host) > 253 or not all(_LABEL.fullmatch(label) for label in labels):
        raise ValueError("host")
    return host
