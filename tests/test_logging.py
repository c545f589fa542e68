"""The process log and the spans, each in a process of its own, because both are set once a process."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from config.logging import build_logging

ROOT = Path(__file__).resolve().parent.parent
LIMIT_SECONDS = 60
START = """
import logging, os, sys
os.environ["DJANGO_SETTINGS_MODULE"] = "config.settings"
import django
django.setup()
"""


def run(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run some lines in an installation of that environment."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("OTEL_", "DJANGO_"))}
    return subprocess.run(
        [sys.executable, "-c", START + code],
        cwd=ROOT,
        env={**clean, "DEBUG": "0", **environment},
        capture_output=True,
        text=True,
        timeout=LIMIT_SECONDS,
        check=True,
    )


def test_lines_are_json_objects_with_the_ids_that_were_bound_and_the_error() -> None:
    done = run(
        """
from structlog.contextvars import bind_contextvars
bind_contextvars(agent_run=12, item=3)
logging.getLogger("runs.leases").warning("agent run %s is lost", 12, extra={"attempt": 2})
try:
    1 / 0
except ZeroDivisionError:
    logging.getLogger("django-q").exception("a task failed")
logging.getLogger("uvicorn.access").info('%s - "GET %s" %d', "127.0.0.1", "/", 200)
"""
    )
    first, second, third = (json.loads(line) for line in done.stderr.splitlines())
    assert first["event"] == "agent run 12 is lost"
    assert (first["agent_run"], first["item"], first["attempt"]) == (12, 3, 2)
    assert (first["level"], first["logger"]) == ("warning", "runs.leases")
    assert first["worker"].rpartition(":")[2].isdecimal()
    assert "ZeroDivisionError" in second["exception"]
    assert third["event"] == '127.0.0.1 - "GET /" 200'


@pytest.mark.parametrize("environment", [{"DEBUG": "1"}, {"LOG_FORMAT": "text"}])
def test_people_get_text(environment: dict[str, str]) -> None:
    done = run('logging.getLogger("runs").warning("the database does not answer", extra={"item": 3})', **environment)
    assert "the database does not answer" in done.stderr
    assert "item=3" in done.stderr
    assert not done.stderr.startswith("{")


def test_another_format_is_refused_with_those_that_there_are() -> None:
    with pytest.raises(ValueError, match="auto, json, text"):
        build_logging("INFO", style="xml", is_debug=False)


def test_without_an_endpoint_the_sdk_of_opentelemetry_is_not_even_loaded() -> None:
    done = run(
        """
from runs import tracing
with tracing.step("route", items=3) as span:
    assert span is None
print([name for name in sys.modules if name.startswith(("opentelemetry.sdk", "opentelemetry.exporter"))])
"""
    )
    assert done.stdout.strip() == "[]"


def test_with_an_endpoint_spans_are_exported_also_by_forked_workers() -> None:
    done = run(
        """
import gzip, threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from opentelemetry import trace
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from runs import tracing

class Collector(BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        told = ExportTraceServiceRequest.FromString(body)
        for resource in told.resource_spans:
            for scope in resource.scope_spans:
                for span in scope.spans:
                    print(self.path, span.name, bool(span.parent_span_id), flush=True)
        self.send_response(200)
        self.end_headers()
    def log_message(self, *args):
        pass

server = HTTPServer(("127.0.0.1", int(os.environ["OTEL_EXPORTER_OTLP_ENDPOINT"].rpartition(":")[2])), Collector)
threading.Thread(target=server.serve_forever, daemon=True).start()
child = os.fork()
with tracing.step("forked" if child == 0 else "first", items=3):
    with tracing.step("inner"):
        pass
trace.get_tracer_provider().force_flush()
if child == 0:
    os._exit(0)
os.waitpid(child, 0)
""",
        OTEL_EXPORTER_OTLP_ENDPOINT=f"http://127.0.0.1:{free_port()}",
        NO_PROXY="127.0.0.1",
    )
    lines = done.stdout.split("\n")
    assert {"/v1/traces first False", "/v1/traces forked False", "/v1/traces inner True"} <= set(lines)
    assert lines.count("/v1/traces inner True") == 2


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
