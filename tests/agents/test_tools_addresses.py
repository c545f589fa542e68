from __future__ import annotations

import asyncio
from collections.abc import Sequence
from ipaddress import ip_address

import httpx2
import pytest

from agents.tools.addresses import (
    PRIVATE_NETWORKS,
    AddressPolicy,
    host_of,
    is_public,
    resolve_host,
    same_site,
)
from agents.tools.base import ToolFailure

NOT_PUBLIC = """
0.0.0.0 0.1.2.3 10.0.0.1 100.64.0.1 100.100.100.200 127.0.0.1 127.255.255.254 169.254.169.254 169.254.170.2
172.16.0.1 172.31.255.255 192.0.0.192 192.0.2.1 192.88.99.1 192.168.1.1 198.18.0.1 198.51.100.1 203.0.113.1
168.63.129.16 224.0.0.251 239.255.255.250 240.0.0.1 255.255.255.255
:: ::1 ::127.0.0.1 ::ffff:127.0.0.1 ::ffff:10.0.0.1 ::ffff:169.254.169.254 64:ff9b::7f00:1 64:ff9b::a9fe:a9fe
64:ff9b:1::1 100::1 2001::1 2001:db8::1 2002:7f00:1:: 2002:a00:1:: fc00::1 fd00:ec2::254 fe80::1 fe80::1%eth0
fec0::1 ff02::1 ff0e::1 5f00::1 2606:4700::1%1
"""
PUBLIC = "1.1.1.1 8.8.8.8 93.184.216.34 172.32.0.1 2606:4700::1111 2a00:1450::1 ::ffff:8.8.8.8 64:ff9b::808:808"


@pytest.mark.parametrize("address", NOT_PUBLIC.split())
def test_an_address_of_no_public_network_is_recognised(address: str) -> None:
    assert not is_public(ip_address(address))


@pytest.mark.parametrize("address", PUBLIC.split())
def test_a_public_address_is_recognised(address: str) -> None:
    assert is_public(ip_address(address))


@pytest.mark.parametrize(
    "url",
    [
        "",
        "http://",
        "http:///path",
        "ftp://example.com/",
        "file:///etc/passwd",
        "gopher://example.com/",
        "javascript:alert(1)",
        "data:text/html,x",
        "//example.com/",
        "http://user@example.com/",
        "http://user:secret@example.com/",
        "http://example.com:secret@127.0.0.1/",
        "http://example.com:8080/",
        "http://example.com:22/",
        "http://example.com:0/",
        "http://example.com:99999/",
        "http://example.com:-1/",
        "http://2130706433/",
        "http://0x7f000001/",
        "http://0x7f.0.0.1/",
        "http://0177.0.0.1/",
        "http://127.1/",
        "http://1.2.3/",
        "http://1.2.3.4.5/",
        "http://1.2.3.4.0x/",
        "http://256.256.256.256/",
        "http://example.com\\@127.0.0.1/",
        "http://example.com\r\nHost: 127.0.0.1/",
        "http://exa mple.com/",
        "http://example.com/\x00",
        "http://example.com/%0d%0aHost:x",
        "http://[::1%25lo]/",
        "http://[fe80::1%eth0]/",
        "http://[::ffff:127.0.0.1/",
        "http://[not an address]/",
        "http://exa\u3002mple\uff0ecom:1/",
        "http://\u24db\u24de\u24d2alhost/",
        "http://-example.com/",
        "http://exam..ple.com/",
        f"http://{'a' * 64}.com/",
        f"http://{'a.' * 130}com/",
        f"http://example.com/{'x' * 3_000}",
    ],
)
def test_a_hostile_address_is_refused_as_it_is_written(url: str) -> None:
    with pytest.raises(ToolFailure) as refusal:
        AddressPolicy().check_url(url)
    assert "Traceback" not in str(refusal.value)
    assert len(str(refusal.value)) < 120


@pytest.mark.parametrize(
    ("url", "normal"),
    [
        ("HTTP://Example.COM.:80/a#b", "http://example.com/a"),
        (" https://example.com:443/?q=ü ", "https://example.com/?q=%C3%BC"),
        ("https://straße.de/", "https://xn--strae-oqa.de/"),
        ("http://93.184.216.34/", "http://93.184.216.34/"),
        ("http://[2606:4700:0::1111]/", "http://[2606:4700::1111]/"),
        ("http://a_b.example.com/@user", "http://a_b.example.com/@user"),
    ],
)
def test_an_ordinary_address_gets_its_normal_form(url: str, normal: str) -> None:
    assert str(AddressPolicy().check_url(url)) == normal


def test_a_path_is_joined_and_another_host_is_seen() -> None:
    policy, base = AddressPolicy(), httpx2.URL("https://example.com/de/")
    assert str(policy.check_url("/about?x=1#y", base=base)) == "https://example.com/about?x=1"
    assert str(policy.check_url("team", base=base)) == "https://example.com/de/team"
    assert host_of(policy.check_url("//evil.example/", base=base)) == "evil.example"


@pytest.mark.parametrize("address", NOT_PUBLIC.split())
def test_a_name_that_leads_inside_is_refused(address: str) -> None:
    async def resolve(host: str, port: int) -> Sequence[str]:
        return ["93.184.216.34", address]

    policy = AddressPolicy(resolve=resolve)
    with pytest.raises(ToolFailure, match="must not be read"):
        asyncio.run(policy.addresses(policy.check_url("http://example.com/")))


@pytest.mark.parametrize("address", [a for a in NOT_PUBLIC.split() if "%" not in a])
def test_a_number_that_leads_inside_is_refused(address: str) -> None:
    policy = AddressPolicy()
    url = policy.check_url(f"http://[{address}]/" if ":" in address else f"http://{address}/")
    with pytest.raises(ToolFailure, match="must not be read"):
        asyncio.run(policy.addresses(url))


def test_rubbish_from_the_name_server_is_refused() -> None:
    for answer in ([], ["nonsense"], [""]):

        async def resolve(host: str, port: int, found: list[str] = answer) -> Sequence[str]:
            return found

        with pytest.raises(ToolFailure, match="must not be read"):
            asyncio.run(AddressPolicy(resolve=resolve).addresses(httpx2.URL("http://example.com/")))


def test_the_setting_for_tests_never_opens_link_local() -> None:
    policy = AddressPolicy(PRIVATE_NETWORKS, any_port=True)
    assert asyncio.run(policy.addresses(policy.check_url("http://127.0.0.1:8123/"))) == ["127.0.0.1"]
    assert asyncio.run(policy.addresses(policy.check_url("http://[::1]:8123/"))) == ["::1"]
    for inside in ("http://169.254.169.254/", "http://[fe80::1]/", "http://100.100.100.200/"):
        with pytest.raises(ToolFailure, match="must not be read"):
            asyncio.run(policy.addresses(policy.check_url(inside)))


def test_the_resolver_of_the_machine_is_asked() -> None:
    assert "127.0.0.1" in asyncio.run(resolve_host("localhost", 80))
    with pytest.raises(ToolFailure, match="must not be read"):
        asyncio.run(AddressPolicy().addresses(httpx2.URL("http://localhost/")))


def test_www_is_the_same_site_and_nothing_else_is() -> None:
    assert same_site("example.com", "www.example.com")
    assert same_site("www.example.com", "example.com")
    for other in (
        "example.org",
        "shop.example.com",
        "www.www.example.com",
        "example.com.evil.org",
        "xexample.com",
    ):
        assert not same_site("example.com", other)
