"""``python -m tests.bench.web``: how long pages take over a large database, with ten people looking at once.

Fills a database on PostgreSQL (``tests.bench.filling``: minutes, about 7 GB), checks that the costs page equals the sum
over the calls, then lets people walk through every page and fragment (``tests.bench.pages``) of the real web server, as
the README starts it. ``--keep NAME`` leaves the database, and uses it as it is the next time.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import random
import re
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import psycopg

from tests.bench.services import POSTGRES, ROOT, Row, has_postgres, scratch_database

LEADS = 100_000
PEOPLE, LOOKS, THINK_SECONDS = 10, 24, 1.0
"""How many people look at once, how often each page is looked at in all, and how long somebody thinks in between."""
AIM_MS = 150
FIRST_LOAD_KB = 350


@contextmanager
def kept_database(name: str) -> Iterator[str]:
    """The URL of the database of this name, made if it is not there; it stays."""
    if not re.fullmatch(r"[a-z_0-9]+", name):
        raise SystemExit(f"{name!r} is no name for a database: small letters, digits and _ only.")
    with psycopg.connect(f"{POSTGRES}/postgres", autocommit=True) as connection:
        if not connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [name]).fetchone():
            connection.execute(f"CREATE DATABASE {name}")
    yield f"{POSTGRES}/{name}"


def run(env: Mapping[str, str], module: str, *arguments: str) -> list[Row]:
    """Run a module inside the database; the JSON objects that it prints, one a line."""
    command = [sys.executable, "-m", f"tests.bench.{module}", *arguments]
    done = subprocess.run(command, cwd=ROOT, env=env, stdout=subprocess.PIPE, check=True, text=True)
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


def free_port() -> int:
    """A port on loopback that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def serving(env: Mapping[str, str]) -> Iterator[str]:
    """The web server as the README starts it; its address."""
    port = free_port()
    command = [sys.executable, "-m", "uvicorn", "config.asgi:application", "--host", "127.0.0.1", "--port", str(port)]
    command += ["--workers", "2"]
    server = subprocess.Popen(
        [*command, "--no-access-log", "--log-level", "warning", "--lifespan", "off"], cwd=ROOT, env=env
    )
    try:
        until = time.monotonic() + 60
        while time.monotonic() < until:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz/live", timeout=5).close()
                break
            except OSError:
                time.sleep(0.1)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait(30)


def walk(site: str, paths: Sequence[str], cookie: str, looks: int) -> dict[str, list[float]]:
    """Milliseconds of every look at every page, by ten people who each look at all of them in an order of their own."""
    visits = [path for path in paths for _ in range(looks)]
    random.Random(1).shuffle(visits)

    def look(number: int) -> list[tuple[str, float]]:
        chance, found = random.Random(number), []
        for path in visits[number::PEOPLE]:
            time.sleep(chance.uniform(0.5, 1.5) * THINK_SECONDS)
            found.append((path, _ask(site + path, cookie)))
        return found

    for path in paths:
        _ask(site + path, cookie)
    times: defaultdict[str, list[float]] = defaultdict(list)
    with ThreadPoolExecutor(PEOPLE) as pool:
        for found in pool.map(look, range(PEOPLE)):
            for path, ms in found:
                times[path].append(ms)
    return {path: sorted(times[path]) for path in paths}


def _ask(url: str, cookie: str) -> float:
    began = time.perf_counter()
    headers = {"Cookie": f"sessionid={cookie}", "Accept-Encoding": "gzip"}
    with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=120) as answer:
        answer.read()
        assert "/login/" not in answer.url, "the session is not known"
    return (time.perf_counter() - began) * 1000


def first_load_kb(site: str, cookie: str) -> float:
    """What a browser fetches for the overview that has nothing yet: the page, and the styles, scripts and icons it
    names. Compressed as ``collectstatic`` leaves them; this server has nothing collected."""
    page = _fetch(site + "/", cookie)
    names = set(re.findall(rb'(?:src|href|data-charts)="(/static/[^"#]+\.(?:css|js|svg|woff2))', page))
    files = [page, *(_fetch(site + name.decode(), cookie) for name in names)]
    return sum(len(gzip.compress(content, 9)) for content in files) / 1024


def _fetch(url: str, cookie: str) -> bytes:
    with urllib.request.urlopen(
        urllib.request.Request(url, headers={"Cookie": f"sessionid={cookie}"}), timeout=60
    ) as answer:
        content: bytes = answer.read()
    return content


def table(pages: Sequence[Row], times: Mapping[str, Sequence[float]]) -> list[str]:
    """A line a page, the slowest last."""
    width = max(len(page["path"]) for page in pages)
    lines = [f"{'page':{width}}      p50      p95  queries  KB compressed  aim {AIM_MS} ms"]
    for page in sorted(pages, key=lambda page: p95(times[page["path"]])):
        found = times[page["path"]]
        verdict = "reached" if p95(found) <= AIM_MS else "MISSED"
        figures = f"{statistics.median(found):8.1f} {p95(found):8.1f} {page['queries']:8} {page['kb']:14.1f}"
        lines.append(f"{page['path']:{width}} {figures}  {verdict}")
    return lines


def p95(found: Sequence[float]) -> float:
    """The time that 95 % of the looks, sorted, stay below."""
    return found[min(int(len(found) * 0.95), len(found) - 1)]


def main(arguments: Sequence[str]) -> int:
    """Print a line a page; 1 if an aim was missed or the sums do not agree."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.web", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--leads", type=int, default=LEADS)
    parser.add_argument("--keep", default="", metavar="NAME", help="use the database of this name, and leave it")
    parser.add_argument("--only", default="", help="pages whose name or address contains this")
    parser.add_argument("--looks", type=int, default=LOOKS, help=f"at each page (default: {LOOKS})")
    options = parser.parse_args(arguments)
    if not has_postgres():
        print("PostgreSQL does not answer: there is nothing to measure on.")
        return 1
    with tempfile.TemporaryDirectory() as folder:
        scratch = kept_database(options.keep) if options.keep else scratch_database("postgres", folder, "web")
        with scratch as url:
            return _measure(url, options)


def _measure(url: str, options: argparse.Namespace) -> int:
    env = {**os.environ, "DATABASE_URL": url, "DJANGO_SETTINGS_MODULE": "config.settings", "LOG_LEVEL": "ERROR"}
    env |= {"ANTHROPIC_API_KEY": "bench", "DEBUG": "0", "SECRET_KEY": "bench" * 10, "SECURE_COOKIES": "0"}
    env |= {"ALLOWED_HOSTS": "127.0.0.1,localhost", "BEHIND_TLS_PROXY": "0"}
    *made, checked = run(env, "filling", "--leads", str(options.leads))
    for rows in made:
        print(", ".join(f"{count:,} {name}" for name, count in rows.items()))
    print(f"sum over the calls {checked['calls_usd']} USD, costs page {checked['page_usd']} USD")
    pages = [page for page in run(env, "pages", "--json", "--only", options.only) if page["status"] == 200]
    cookie = checked["sessions"]["looker"]
    with serving(env) as site:
        times = walk(site, [page["path"] for page in pages], cookie, options.looks)
        weight = first_load_kb(site, cookie)
    print("\n".join(table(pages, times)))
    print(f"first load of the overview: {weight:.0f} KB compressed, aim {FIRST_LOAD_KB}")
    print(f"load average at the end {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    missed = [path for path, found in times.items() if p95(found) > AIM_MS]
    return 1 if missed or weight > FIRST_LOAD_KB or checked["calls_usd"] != checked["page_usd"] else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
