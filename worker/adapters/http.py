"""Metrics, health, the live page and single streams over HTTP, from the standard library's threaded server."""

from __future__ import annotations

import socket
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from socketserver import TCPServer
from types import TracebackType
from typing import Any, Protocol
from urllib.parse import unquote_to_bytes

import orjson
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

from worker.errors import ConfigError

STREAM_PREFIX = "/api/streams/"
SHUTDOWN_POLL_SECONDS = 0.1
"""A worker that ends waits for the server no longer than this."""
CLIENT_SECONDS_MAX = 30.0
"""A connection without a request for so long is closed, so that forgotten ones do not pile up threads."""
JSON, HTML, TEXT = "application/json", "text/html; charset=utf-8", "text/plain; charset=utf-8"


class WorkerStatus(Protocol):
    """What the endpoints ask; called from the server's threads."""

    def alive(self) -> bool: ...
    def ready(self) -> bool: ...
    def started(self) -> bool: ...
    def status(self) -> dict[str, Any]: ...
    def stream(self, key: bytes) -> dict[str, Any] | None: ...


class HttpServer:
    """Serves while entered; port 0 serves nothing.

    Raises ConfigError when the address cannot be bound.
    """

    def __init__(self, bind: str, port: int, registry: CollectorRegistry, status: WorkerStatus) -> None:
        self._server: _Server | None = None
        if port == 0:
            return
        handler = type("Handler", (_Handler,), {"registry": registry, "worker_status": status})
        try:
            self._server = _Server(bind, port, handler)
        except UnicodeError as error:
            raise ConfigError(f"http.bind {bind} is no host name", "set it to an address of this machine") from error
        except OSError as error:
            raise ConfigError(
                f"http.port {port} on {bind} cannot be used ({error.strerror})", "set another http.port, or 0 for none"
            ) from error
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(SHUTDOWN_POLL_SECONDS,), name="http", daemon=True
        )

    def __enter__(self) -> HttpServer:
        if self._server is not None:
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, bind: str, port: int, handler: type[BaseHTTPRequestHandler]) -> None:
        self.address_family = socket.AF_INET6 if ":" in bind else socket.AF_INET
        super().__init__((bind, port), handler)

    def server_bind(self) -> None:
        # HTTPServer's own asks the DNS for a name that nothing here uses, and a start would wait for the answer.
        TCPServer.server_bind(self)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hangs up is no event; anything else is a bug and shows its traceback."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    registry: CollectorRegistry
    worker_status: WorkerStatus
    protocol_version = "HTTP/1.1"
    timeout = CLIENT_SECONDS_MAX

    def do_GET(self) -> None:  # the name is the standard library's
        path = self.path.partition("?")[0]
        status = self.worker_status
        if path == "/metrics":
            self._answer(200, generate_latest(self.registry), CONTENT_TYPE_LATEST)
        elif path == "/livez":
            self._check(status.alive(), "the loop does not turn")
        elif path == "/startupz":
            self._check(status.started(), "starting")
        elif path == "/readyz":
            self._answer(200 if status.ready() else 503, orjson.dumps(status.status()), JSON)
        elif path == "/api/status":
            self._answer(200, orjson.dumps(status.status()), JSON)
        elif path.startswith(STREAM_PREFIX):
            self._stream(unquote_to_bytes(path[len(STREAM_PREFIX) :]))
        elif path == "/":
            self._answer(200, files("worker.adapters").joinpath("page.html").read_bytes(), HTML)
        else:
            self._answer(404, b"not found\n", TEXT)

    def _stream(self, key: bytes) -> None:
        try:
            found = self.worker_status.stream(key)
        except TimeoutError:
            self._answer(503, b'{"error":"the loop is busy, ask again"}', JSON)
            return
        if found is None:
            self._answer(404, b'{"error":"no open sequence of this stream is on this worker"}', JSON)
        else:
            self._answer(200, orjson.dumps(found), JSON)

    def _check(self, good: bool, otherwise: str) -> None:
        self._answer(200 if good else 503, b"ok\n" if good else f"{otherwise}\n".encode(), TEXT)

    def _answer(self, code: int, body: bytes, content_type: str) -> None:
        self.send_response(code)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # the name is the standard library's
        """Requests are not logged: scrapes and probes come every few seconds."""
