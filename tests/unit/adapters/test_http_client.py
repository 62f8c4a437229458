"""Questions to a worker on this machine."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from worker.adapters.http_client import Answer, stream_of_running_worker
from worker.errors import ConfigError

ANSWERS = {
    "/api/streams/a%2Fb%FF": (200, b'{"step": 3}'),
    "/api/streams/html": (200, b"<html>"),
    "/api/streams/broken": (500, b""),
}


class Worker(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        status, body = ANSWERS.get(self.path, (404, b""))
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def port() -> Iterator[int]:
    server = HTTPServer(("127.0.0.1", 0), Worker)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield server.server_port
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize("bind", ["127.0.0.1", "0.0.0.0"])
def test_any_bytes_can_be_a_key(bind: str, port: int) -> None:
    assert stream_of_running_worker(bind, port, b"a/b\xff") == Answer({"step": 3})


def test_a_stream_that_the_worker_does_not_know_is_an_answer(port: int) -> None:
    assert stream_of_running_worker("127.0.0.1", port, b"other") == Answer(None)


def test_no_worker_is_no_answer() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        assert stream_of_running_worker("127.0.0.1", unused.getsockname()[1], b"a") is None
    assert stream_of_running_worker("127.0.0.1", 0, b"a") is None


@pytest.mark.parametrize(("key", "words"), [(b"html", "is no worker"), (b"broken", "answered with status 500")])
def test_something_else_on_the_port_is_an_error(key: bytes, words: str, port: int) -> None:
    with pytest.raises(ConfigError, match=words):
        stream_of_running_worker("127.0.0.1", port, key)
