"""A website on loopback that misbehaves on request, for the tests of the tools."""

from __future__ import annotations

import contextlib
import ssl
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

HTML = {"Content-Type": "text/html; charset=utf-8"}
Answer = tuple[int, dict[str, str], bytes]
Write = Callable[[bytes], object]


class Site:
    """``pages`` maps a path to an answer or to a function that writes the raw one; the rest is 404.

    ``seen`` is every request as ``(Host header, path)``; ``closing`` is set when the site goes down, so that
    a page that stalls can end.
    """

    def __init__(self, server: ThreadingHTTPServer) -> None:
        self.port = int(server.server_address[1])
        self.pages: dict[str, Answer | Callable[[Write], None]] = {}
        self.seen: list[tuple[str, str]] = []
        self.headers: list[dict[str, str]] = []
        self.closing = threading.Event()

    def page(self, path: str, text: str, title: str = "Acme") -> None:
        """An ordinary page with one paragraph."""
        html = f"<html><head><title>{title}</title></head><body><main><p>{text}</p></main></body></html>"
        self.pages[path] = (200, HTML, html.encode())

    def redirect(self, path: str, location: str, status: int = 302) -> None:
        self.pages[path] = (status, {"Location": location}, b"")

    def robots(self, text: str, status: int = 200) -> None:
        self.pages["/robots.txt"] = (status, {"Content-Type": "text/plain"}, text.encode())

    def paths(self) -> list[str]:
        """What was asked for, without robots.txt."""
        return [path for _, path in self.seen if path != "/robots.txt"]


@contextlib.contextmanager
def serve(tls: ssl.SSLContext | None = None) -> Iterator[Site]:
    """A running site on a free port of 127.0.0.1."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:  # noqa: N802 - the name the standard library calls
            site.seen.append((self.headers["Host"], self.path))
            site.headers.append(dict(self.headers.items()))
            answer = site.pages.get(self.path, (404, HTML, b"<p>There is nothing here.</p>"))
            self.close_connection = True
            if callable(answer):
                with contextlib.suppress(OSError):
                    answer(self.wfile.write)
                return
            status, headers, body = answer
            self.send_response(status)
            for name, value in ({"Content-Length": str(len(body))} | headers).items():
                self.send_header(name, value)
            self.end_headers()
            with contextlib.suppress(OSError):
                self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Quiet."""

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, request: object, client_address: object) -> None:
            """A client that hangs up, as the tests of time-outs and certificates do, is no error."""

    server = Server(("127.0.0.1", 0), Handler)
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    site = Site(server)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield site
    finally:
        site.closing.set()
        server.shutdown()
        server.server_close()
        thread.join(5)
