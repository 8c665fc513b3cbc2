"""The server of the page: which requests it takes, from whom, and how it answers them."""

import contextlib
import json
import os
import re
import socket
import time
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import TCPServer, ThreadingMixIn
from typing import Any

from tinygrad_mnist import _checks as check
from tinygrad_mnist.module import Module
from tinygrad_mnist.page.reading import LARGEST
from tinygrad_mnist.page.routes import ROUTES, Page, Refusal, refused

FOLDER = Path(__file__).parent
FILES = {
    "/": ("page.html", "text/html; charset=utf-8"),
    "/page.css": ("page.css", "text/css; charset=utf-8"),
    "/page.js": ("page.js", "text/javascript; charset=utf-8"),
    "/favicon.ico": ("icon.svg", "image/svg+xml"),  # a browser asks for it by itself
}
LONGEST_LINE = 1 << 16
LONGEST_BODY = 5 * LARGEST**2 + 1000  # a drawing in JSON, and what stands around it
METHODS = dict.fromkeys([*FILES, "/start"], "GET") | dict.fromkeys(ROUTES, "POST")


class Handler(BaseHTTPRequestHandler):
    """One request and its answer; then the connection ends."""

    server: "Server"
    timeout = 10  # seconds without a byte
    disable_nagle_algorithm = True
    requestline = command = ""  # until they are read

    def handle(self) -> None:
        """Answer a request, or say what is wrong with it."""
        try:
            self.raw_requestline = self.rfile.readline(LONGEST_LINE + 1)
            if self.raw_requestline:
                self._send(200, *self._answer())
        except Refusal as error:
            self._send(error.status, *as_json({"error": str(error)}))
        except TimeoutError:
            late = check.expected(
                "page", f"a request within {self.timeout} seconds", "a part of it"
            )
            self._send(408, *as_json({"error": late}))
        except ConnectionError:
            pass  # nobody is there to answer
        except Exception as error:  # a mistake of ours: the terminal shows where
            self._send(500, *as_json({"error": f"page: {type(error).__name__}: {error}"}))
            raise

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Refuse what `parse_request` could not read."""
        raise refused(code if code < 500 else 400, "a request of HTTP/1.1", message)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""

    def _answer(self) -> tuple[str, bytes]:
        if len(self.raw_requestline) > LONGEST_LINE:
            raise refused(414, f"a line of at most {LONGEST_LINE} bytes", "a longer one")
        if not self.parse_request():
            raise refused(400, "a request of HTTP/1.1", "an empty line")
        self._check_sender()
        if self.path not in METHODS:
            raise refused(404, f"a path, one of {' '.join(METHODS)}", check.described(self.path))
        if self.command != METHODS[self.path]:
            raise refused(405, f"the method {METHODS[self.path]}", check.described(self.command))
        if self.path in FILES:
            name, kind = FILES[self.path]
            return kind, (FOLDER / name).read_bytes()
        arguments = self._arguments() if self.path in ROUTES else {}
        return as_json(getattr(self.server.page, self.path[1:])(**arguments))

    def _check_sender(self) -> None:
        """Refuse whoever came here by another name: a page of another site, in this browser."""
        hosts, origins = (self.headers.get_all(name, []) for name in ("Host", "Origin"))
        if len(hosts) != 1 or hosts[0].lower() not in self.server.names:
            raise refused(
                403, f"Host: {' or '.join(self.server.names)}", ", ".join(hosts) or "none"
            )
        if any(origin != f"http://{hosts[0].lower()}" for origin in origins):
            raise refused(403, f"Origin: http://{hosts[0]}", ", ".join(origins))

    def _arguments(self) -> dict[str, Any]:
        body, checks = self._body(), ROUTES[self.path]
        if not isinstance(body, dict) or body.keys() != checks.keys():
            got = ", ".join(map(repr, body)) if isinstance(body, dict) else check.described(body)
            raise refused(400, f"an object with the keys {', '.join(checks)}", got[:200])
        try:
            return {key: checks[key](body[key]) for key in checks}
        except (TypeError, ValueError) as error:
            raise Refusal(400, str(error)) from None

    def _body(self) -> Any:
        kind, lengths = self.headers.get_content_type(), self.headers.get_all("Content-Length", [])
        if "Transfer-Encoding" in self.headers or not lengths:
            raise refused(411, "a Content-Length", "none")
        if len(lengths) > 1 or not re.fullmatch("[0-9]{1,20}", lengths[0]):
            raise refused(400, "one Content-Length, a number of bytes", ", ".join(lengths)[:200])
        if int(lengths[0]) > LONGEST_BODY:
            raise refused(413, f"a body of at most {LONGEST_BODY} bytes", lengths[0])
        if kind != "application/json":
            raise refused(415, "Content-Type: application/json", kind)
        content = self.rfile.read(int(lengths[0]))
        if len(content) < int(lengths[0]):
            raise refused(400, f"a body of {lengths[0]} bytes", len(content))
        try:
            return json.loads(content)
        except (ValueError, RecursionError) as error:
            raise refused(400, "a body of JSON", error) from None

    def _send(self, status: int, kind: str, content: bytes) -> None:
        with contextlib.suppress(OSError):  # whoever asked has gone, or does not listen
            self.request_version = "HTTP/1.0"  # "GET /", in the way of HTTP/0.9, gets a status, too
            self.send_response(status)
            for name, value in (
                ("Content-Type", kind),
                ("Content-Length", str(len(content))),
                ("Content-Security-Policy", "default-src 'self'"),
                ("X-Content-Type-Options", "nosniff"),
                ("Cache-Control", "no-store"),
            ):
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(b"" if self.command == "HEAD" else content)
            self.connection.shutdown(socket.SHUT_WR)
            until = time.monotonic() + self.timeout
            while self.connection.recv(LONGEST_LINE) and time.monotonic() < until:
                pass  # closed with something unread, the connection would take the answer along


def as_json(answer: dict[str, Any]) -> tuple[str, bytes]:
    """Return an answer, and what kind of content it is."""
    return "application/json", json.dumps(answer, allow_nan=False).encode()


class Server(ThreadingMixIn, TCPServer):
    """Serves the page at `address`, which is one of this computer alone."""

    allow_reuse_address = os.name != "nt"  # after a restart; on Windows, by two servers at once
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, port: int, model: Module) -> None:
        self.page = Page(model)
        super().__init__(("127.0.0.1", port), Handler)
        port = self.server_address[1]
        shown = "" if port == 80 else f":{port}"  # browsers leave the usual port out
        self.names = [f"{name}{shown}" for name in ("127.0.0.1", "localhost")]
        self.address = f"http://{self.names[0]}"
