from __future__ import annotations

import asyncio
import gzip
import shutil
import ssl
import subprocess
import time
import tracemalloc
from collections.abc import Iterator, Sequence
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest
from django.test import override_settings

from agents.tools.addresses import AddressPolicy, Resolver
from agents.tools.base import ToolContext, ToolFailure, ToolResult
from agents.tools.robots import RobotsCache
from agents.tools.website import WebsiteReader, read_website, user_agent
from tests.agents.site import HTML, Site, Write, serve

LOOPBACK = (ip_network("127.0.0.1/32"),)


@pytest.fixture
def site() -> Iterator[Site]:
    with serve() as running:
        yield running


def names(**table: str | list[str]) -> Resolver:
    """A resolver: ``names(acme_example="127.0.0.1")``; a list is answered one entry a look-up."""

    async def resolve(host: str, port: int) -> Sequence[str]:
        answer = table.get(host.replace(".", "_"))
        if not answer:
            raise OSError("no such name")
        return [answer] if isinstance(answer, str) else [answer.pop(0)]

    return resolve


def make_reader(resolve: Resolver | None = None, **changes: Any) -> WebsiteReader:
    policy = AddressPolicy(LOOPBACK, any_port=True, resolve=resolve or names(acme_example="127.0.0.1"))
    return WebsiteReader(policy, "Kontor/test (+research)", **changes)


def read(reader: WebsiteReader, website: str, page: str = "", *, network: bool = True) -> ToolResult:
    ctx = ToolContext(department_id=1, item={"website": website}, network=network)
    return asyncio.run(reader.read(ctx, {"page": page}))


def refusal(reader: WebsiteReader, website: str, page: str = "", *, network: bool = True) -> ToolFailure:
    with pytest.raises(ToolFailure) as caught:
        read(reader, website, page, network=network)
    return caught.value


class TestReading:
    def test_a_page_comes_as_text_with_its_address(self, site: Site) -> None:
        site.page("/about", "We make pumps for breweries.", title="About Acme")
        result = read(make_reader(), f"http://acme.example:{site.port}/de/", "/about")
        address = f"http://acme.example:{site.port}/about"
        assert result.content == f"About Acme\n{address}\n\nWe make pumps for breweries."
        assert result.detail["final_url"] == address
        assert (result.detail["status"], result.detail["is_cut"]) == (200, False)

    def test_it_connects_to_the_checked_address_and_names_the_host(self, site: Site) -> None:
        # acme.example exists in no name server: only the pinned address can have answered.
        site.page("/", "Hello.")
        read(make_reader(), f"http://acme.example:{site.port}")
        assert site.seen == [(f"acme.example:{site.port}", path) for path in ("/robots.txt", "/")]

    def test_it_introduces_itself(self, site: Site) -> None:
        site.page("/", "Hello.")
        read(make_reader(), f"http://127.0.0.1:{site.port}")
        assert {sent["User-Agent"] for sent in site.headers} == {"Kontor/test (+research)"}
        assert user_agent().startswith("Kontor/0.")
        assert "Cookie" not in site.headers[-1]

    def test_a_page_may_be_given_as_path_or_address(self, site: Site) -> None:
        site.page("/de/team", "The team.")
        home = f"acme.example:{site.port}"
        reader = make_reader(names(acme_example="127.0.0.1", www_acme_example="127.0.0.1"))
        for page in ("team", "/de/team#top", f"http://{home}/de/team", f"http://www.{home}/de/team"):
            assert "The team." in read(reader, f"http://{home}/de/", page).content

    def test_a_site_without_scheme_and_without_tls_is_read_by_http(self, site: Site) -> None:
        site.page("/", "Plain.")
        site.page("/team", "Team.")
        reader = make_reader()
        assert "Plain." in read(reader, f"acme.example:{site.port}").content
        assert "Team." in read(reader, f"acme.example:{site.port}", "/team").content

    def test_another_charset_is_read(self, site: Site) -> None:
        html = "<html><body><p>Größe und Maß der Pumpen</p></body></html>"
        site.pages["/a"] = (200, {"Content-Type": "text/html; charset=iso-8859-1"}, html.encode("latin-1"))
        site.pages["/b"] = (200, {"Content-Type": "text/plain"}, "Größe in UTF-16".encode("utf-16"))
        reader = make_reader()
        assert "Größe und Maß" in read(reader, f"http://acme.example:{site.port}", "/a").content
        assert "Größe in UTF-16" in read(reader, f"http://acme.example:{site.port}", "/b").content

    def test_a_packed_page_is_unpacked(self, site: Site) -> None:
        body = gzip.compress(b"<html><body><p>Packed words.</p></body></html>")
        site.pages["/"] = (200, HTML | {"Content-Encoding": "gzip"}, body)
        assert "Packed words." in read(make_reader(), f"http://acme.example:{site.port}").content

    def test_redirects_within_the_site_are_followed(self, site: Site) -> None:
        home = f"acme.example:{site.port}"
        site.redirect("/", "/en")
        site.redirect("/en", f"http://www.{home}/en/", status=301)
        site.redirect("/en/", "home?x=1", status=308)
        site.page("/en/home?x=1", "Arrived.")
        result = read(make_reader(names(acme_example="127.0.0.1", www_acme_example="127.0.0.1")), f"http://{home}")
        assert "Arrived." in result.content
        assert result.detail["final_url"] == f"http://www.{home}/en/home?x=1"
        assert len(result.detail["redirects"]) == 3


class TestRefusals:
    def test_nothing_is_asked_while_the_network_is_off(self, site: Site) -> None:
        failure = refusal(make_reader(), f"http://acme.example:{site.port}", network=False)
        assert "network access is off" in str(failure)
        assert site.seen == []

    def test_an_item_without_a_website_is_said_so(self) -> None:
        assert "No website is known" in str(refusal(make_reader(), "  "))

    @pytest.mark.parametrize(
        "page",
        ["http://other.example/", "//other.example/x", "https://acme.example.evil.org/", "http://10.0.0.1/"],
    )
    def test_another_site_is_not_read(self, site: Site, page: str) -> None:
        failure = refusal(make_reader(), f"http://acme.example:{site.port}", page)
        assert "own website, acme.example, can be read" in str(failure)
        assert site.seen == []

    @pytest.mark.parametrize(
        ("location", "words"),
        [
            ("http://169.254.169.254/latest/meta-data/", "another site, 169.254.169.254"),
            ("http://localhost/", "another site, localhost"),
            ("//evil.example/", "another site, evil.example"),
            ("http://acme.example@10.0.0.1/", "user name"),
            ("http://2130706433/", "not a valid"),
            ("http://[::1]/", "another site"),
            ("file:///etc/passwd", "Only http"),
            ("gopher://acme.example/", "Only http"),
            ("http://www.acme.example/", "must not be read"),
        ],
    )
    def test_a_redirect_leads_nowhere_else(self, site: Site, location: str, words: str) -> None:
        site.redirect("/", location)
        reader = make_reader(names(acme_example="127.0.0.1", www_acme_example="10.0.0.1"))
        failure = refusal(reader, f"http://acme.example:{site.port}")
        assert words in str(failure)
        assert site.paths() == ["/"]

    def test_a_redirect_to_an_odd_port_is_refused_by_default(self) -> None:
        policy = AddressPolicy(LOOPBACK, resolve=names(acme_example="127.0.0.1"))
        assert "ports 80 and 443" in str(refusal(WebsiteReader(policy, "Kontor"), "http://acme.example:6379/"))

    def test_a_second_look_up_that_leads_inside_is_refused(self, site: Site) -> None:
        # DNS rebinding: the name answers well for robots.txt and with an inner address for the page.
        site.page("/", "Inside.")
        reader = make_reader(names(acme_example=["127.0.0.1", "10.0.0.5"]))
        failure = refusal(reader, f"http://acme.example:{site.port}")
        assert "must not be read" in str(failure)
        assert failure.detail["addresses"] == ["10.0.0.5"]
        assert site.paths() == []

    def test_more_than_three_redirects_are_too_many(self, site: Site) -> None:
        for number in range(5):
            site.redirect(f"/{number}" if number else "/", f"/{number + 1}")
        assert "more than 3 times" in str(refusal(make_reader(), f"http://acme.example:{site.port}"))
        assert site.paths() == ["/", "/1", "/2", "/3"]

    @pytest.mark.parametrize("kind", ["application/pdf", "image/png", "application/json", "text/css", ""])
    def test_other_content_types_are_not_read(self, site: Site, kind: str) -> None:
        site.pages["/"] = (200, {"Content-Type": kind}, b"<p>text</p>")
        failure = refusal(make_reader(), f"http://acme.example:{site.port}")
        assert "not a web page" in str(failure)
        assert failure.detail["content_type"] == kind

    def test_an_error_of_the_site_is_named(self, site: Site) -> None:
        failure = refusal(make_reader(), f"http://acme.example:{site.port}", "/missing")
        assert "answered 404" in str(failure)
        assert failure.detail["status"] == 404

    def test_a_page_without_text_is_said_so(self, site: Site) -> None:
        site.pages["/"] = (200, HTML, b"<html><body><div id=app></div><script>go()</script></body></html>")
        assert "without running scripts" in str(refusal(make_reader(), f"http://acme.example:{site.port}"))

    def test_an_unknown_name_and_a_closed_port_are_said_so(self, site: Site) -> None:
        assert "name is not known" in str(refusal(make_reader(), "nowhere.example"))
        site.closing.set()
        assert "cannot be reached" in str(refusal(make_reader(), "http://acme.example:1/"))


class TestBounds:
    def test_only_the_first_megabyte_is_read(self, site: Site) -> None:
        start = b"<html><body><p>The beginning.</p>"

        def endless(write: Write) -> None:
            write(b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nConnection: close\r\n\r\n" + start)
            while not site.closing.is_set():
                write(b"<!-- filler -->" * 1_000)

        site.pages["/"] = endless
        result = read(make_reader(), f"http://acme.example:{site.port}")
        assert "The beginning." in result.content
        assert (result.detail["bytes"], result.detail["is_cut"]) == (1_000_000, True)

    def test_a_bomb_does_not_go_off(self, site: Site) -> None:
        bomb = gzip.compress(b"<html><body><p>Boom.</p>" + b" " * 60_000_000)
        assert len(bomb) < 80_000
        site.pages["/"] = (200, HTML | {"Content-Encoding": "gzip"}, bomb)
        tracemalloc.start()
        try:
            result = read(make_reader(max_seconds=60), f"http://acme.example:{site.port}")
            peak_bytes = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert peak_bytes < 20_000_000
        assert (result.detail["bytes"], result.detail["is_cut"]) == (1_000_000, True)

    @pytest.mark.parametrize("encoding", ["br", "zstd", "deflate", "gzip, gzip"])
    def test_other_packing_is_refused(self, site: Site, encoding: str) -> None:
        site.pages["/"] = (200, HTML | {"Content-Encoding": encoding}, b"\x00" * 100)
        failure = refusal(make_reader(), f"http://acme.example:{site.port}")
        assert "packs its pages" in str(failure)

    @pytest.mark.parametrize(
        "raw",
        [
            b"",
            b"rubbish\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\nContent-Type: text/html\r\n\r\n<p>cut",
            b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Type: text/html\r\n\r\nnot gzip",
            b"HTTP/1.1 200 OK\r\nX: " + b"x" * 300_000 + b"\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzzz\r\n",
        ],
    )
    def test_a_broken_answer_is_said_so(self, site: Site, raw: bytes) -> None:
        def broken(write: Write) -> None:
            write(raw)

        site.pages["/"] = broken
        assert "broke off or makes no sense" in str(refusal(make_reader(), f"http://acme.example:{site.port}"))

    @pytest.mark.parametrize("first", [b"", b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n<p>slow"])
    def test_a_slow_site_ends_at_the_limit(self, site: Site, first: bytes) -> None:
        def drip(write: Write) -> None:
            write(first)
            while not site.closing.wait(0.05):
                write(b"." if first else b"")

        site.pages["/"] = drip
        started = time.monotonic()
        failure = refusal(make_reader(max_seconds=0.6), f"http://acme.example:{site.port}")
        assert time.monotonic() - started < 3
        assert "within 0.6 seconds" in str(failure)
        assert failure.detail["url"] == f"http://acme.example:{site.port}"

    def test_a_slow_name_server_ends_at_the_limit(self) -> None:
        async def resolve(host: str, port: int) -> Sequence[str]:
            await asyncio.Event().wait()
            return []

        failure = refusal(make_reader(resolve, max_seconds=0.1), "acme.example")
        assert "within 0.1 seconds" in str(failure)

    def test_extraction_does_not_block_the_event_loop(self, site: Site) -> None:
        html = "<html><body><main>" + "<p>some words of a page</p>" * 30_000
        site.pages["/"] = (200, HTML, html.encode())
        gaps: list[float] = []

        async def beat() -> None:
            while True:
                before = time.monotonic()
                await asyncio.sleep(0.005)
                gaps.append(time.monotonic() - before)

        async def both() -> float:
            started = time.monotonic()
            heart = asyncio.create_task(beat())
            ctx = ToolContext(1, {"website": f"http://acme.example:{site.port}"}, network=True)
            await make_reader(max_seconds=60).read(ctx, {"page": ""})
            heart.cancel()
            return time.monotonic() - started

        # Extraction is nearly all of the time: in the loop's own thread it would be one long gap.
        seconds = asyncio.run(both())
        assert max(gaps) < seconds / 2


class TestRobots:
    def test_a_page_that_is_not_to_be_read_is_not_read(self, site: Site) -> None:
        site.robots("User-agent: *\nDisallow: /private\n")
        site.page("/private/x", "Secret.")
        site.page("/", "Open.")
        reader = make_reader()
        assert "asks not to read" in str(refusal(reader, f"http://acme.example:{site.port}", "/private/x"))
        assert "Open." in read(reader, f"http://acme.example:{site.port}").content
        assert site.paths() == ["/"]

    def test_our_name_is_heeded(self, site: Site) -> None:
        site.robots("User-agent: kontor\nDisallow: /\n\nUser-agent: *\nAllow: /\n")
        assert "asks not to read" in str(refusal(make_reader(), f"http://acme.example:{site.port}"))

    def test_a_redirect_into_a_closed_part_is_not_followed(self, site: Site) -> None:
        site.robots("User-agent: *\nDisallow: /closed\n")
        site.redirect("/", "/closed")
        assert "asks not to read" in str(refusal(make_reader(), f"http://acme.example:{site.port}"))
        assert site.paths() == ["/"]

    @pytest.mark.parametrize(("status", "is_read"), [(404, True), (403, True), (410, True), (429, False), (500, False)])
    def test_a_site_without_rules_is_read_and_one_that_cannot_say_is_not(
        self, site: Site, status: int, is_read: bool
    ) -> None:
        site.robots("", status=status)
        site.page("/", "Hello.")
        reader, home = make_reader(), f"http://acme.example:{site.port}"
        if is_read:
            assert "Hello." in read(reader, home).content
        else:
            assert "robots.txt cannot be read" in str(refusal(reader, home))
            assert site.paths() == []

    def test_the_rules_are_kept_for_an_hour(self, site: Site) -> None:
        now = [1_000.0]
        reader = make_reader(robots=RobotsCache(clock=lambda: now[0]))
        site.page("/", "Hello.")
        for seconds in (0, 3_000, 700):
            now[0] += seconds
            read(reader, f"http://acme.example:{site.port}")
        assert len(site.seen) - len(site.paths()) == 2

    def test_rules_that_cannot_be_read_are_asked_for_again_after_five_minutes(self, site: Site) -> None:
        now = [1_000.0]
        reader = make_reader(robots=RobotsCache(clock=lambda: now[0]))
        site.page("/", "Hello.")
        site.robots("", status=503)
        refusal(reader, f"http://acme.example:{site.port}")
        site.robots("", status=200)
        refusal(reader, f"http://acme.example:{site.port}")
        now[0] += 301
        assert "Hello." in read(reader, f"http://acme.example:{site.port}").content

    def test_rubbish_and_endless_rules_are_bounded(self, site: Site) -> None:
        def endless(write: Write) -> None:
            write(b"HTTP/1.1 200 OK\r\n\r\nUser-agent: *\nDisallow: /x\n")
            while not site.closing.is_set():
                write(b"\xff\x00# filler\n" * 1_000)

        site.pages["/robots.txt"] = endless
        site.page("/", "Hello.")
        reader = make_reader()
        assert "Hello." in read(reader, f"http://acme.example:{site.port}").content
        assert "asks not to read" in str(refusal(reader, f"http://acme.example:{site.port}", "/x"))

    def test_rules_behind_a_redirect_elsewhere_do_not_open_the_site(self, site: Site) -> None:
        site.redirect("/robots.txt", "http://169.254.169.254/")
        site.page("/", "Hello.")
        assert "another site" in str(refusal(make_reader(), f"http://acme.example:{site.port}"))
        assert site.paths() == []


class TestTls:
    @pytest.fixture
    def certificate(self, tmp_path: Path) -> tuple[Path, Path]:
        """A certificate for acme.example and its key."""
        openssl = shutil.which("openssl")
        if openssl is None:
            pytest.skip("needs the openssl command")
        cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
        subprocess.run(
            [openssl, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
            + ["-days", "2", "-subj", "/CN=acme.example", "-addext", "subjectAltName=DNS:acme.example"]
            + ["-keyout", str(key), "-out", str(cert)],
            check=True,
            capture_output=True,
        )
        return cert, key

    def test_the_certificate_is_checked_against_the_name(self, certificate: tuple[Path, Path]) -> None:
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(*certificate)
        reader = make_reader(
            names(acme_example="127.0.0.1", other_example="127.0.0.1"),
            verify=ssl.create_default_context(cafile=str(certificate[0])),
        )
        with serve(tls) as site:
            site.page("/", "Sealed.")
            assert "Sealed." in read(reader, f"https://acme.example:{site.port}").content
            assert "cannot be reached" in str(refusal(reader, f"https://other.example:{site.port}"))
            strangers = make_reader()
            assert "cannot be reached" in str(refusal(strangers, f"https://acme.example:{site.port}"))
            assert site.paths() == ["/"]


class TestSettings:
    def ask(self, website: str) -> ToolResult:
        return asyncio.run(read_website(ToolContext(1, {"website": website}, network=True), {"page": ""}))

    def test_loopback_is_refused_out_of_the_box(self, site: Site) -> None:
        with pytest.raises(ToolFailure, match="ports 80 and 443"):
            self.ask(f"http://127.0.0.1:{site.port}")
        with pytest.raises(ToolFailure, match="must not be read"):
            self.ask("http://127.0.0.1/")
        with pytest.raises(ToolFailure, match="must not be read"):
            self.ask("http://localhost/")
        assert site.seen == []

    @override_settings(TOOLS_ALLOW_PRIVATE=True)
    def test_the_setting_opens_loopback(self, site: Site) -> None:
        site.page("/", "Hello.")
        assert "Hello." in self.ask(f"http://127.0.0.1:{site.port}").content

    @override_settings(TOOLS_ALLOW_PRIVATE=True, TOOLS_NETWORK=False)
    def test_the_setting_turns_the_network_off(self, site: Site) -> None:
        with pytest.raises(ToolFailure, match="network access is off"):
            self.ask(f"http://127.0.0.1:{site.port}")
        assert site.seen == []
