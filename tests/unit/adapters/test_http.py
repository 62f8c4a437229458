"""The HTTP endpoints, asked over a real socket."""

from __future__ import annotations

import json
import socket
import struct
import threading
from http.client import HTTPConnection

import pytest
from prometheus_client import CollectorRegistry, Counter

from worker.adapters.http import HttpServer
from worker.errors import ConfigError


class PlainStatus:
    """A worker's status that a test sets by hand."""

    def __init__(self) -> None:
        self.answers = {"alive": True, "ready": True, "started": True}
        self.streams: dict[bytes, dict[str, object]] = {}
        self.busy = False
        self.details: dict[str, object] = {"partitions": {"0": {"state": "running"}}}

    def alive(self) -> bool:
        return self.answers["alive"]

    def ready(self) -> bool:
        return self.answers["ready"]

    def started(self) -> bool:
        return self.answers["started"]

    def status(self) -> dict[str, object]:
        return self.details

    def stream(self, key: bytes) -> dict[str, object] | None:
        if self.busy:
            raise TimeoutError
        return self.streams.get(key)


def free_port(family: socket.AddressFamily = socket.AF_INET, address: str = "127.0.0.1") -> int:
    with socket.socket(family) as probe:
        probe.bind((address, 0))
        return int(probe.getsockname()[1])


def requests_are_answered() -> None:
    """Wait until no thread of the server works on a request."""
    for thread in threading.enumerate():
        if "process_request" in thread.name:
            thread.join(5)


@pytest.fixture
def server():
    registry, status, port = CollectorRegistry(), PlainStatus(), free_port()
    Counter("samples", "Samples.", registry=registry).inc(3)

    def ask(path: str) -> tuple[int, bytes]:
        connection = HTTPConnection("127.0.0.1", port, timeout=5)
        connection.request("GET", path)
        answer = connection.getresponse()
        body = answer.read()
        connection.close()
        return answer.status, body

    with HttpServer("127.0.0.1", port, registry, status):
        yield ask, status, port


def test_metrics_are_in_prometheus_format(server):
    ask, _, _ = server
    assert b"samples_total 3.0" in ask("/metrics")[1]


@pytest.mark.parametrize(("path", "answer"), [("/livez", "alive"), ("/readyz", "ready"), ("/startupz", "started")])
def test_a_check_is_200_when_it_holds_and_503_when_not(server, path, answer):
    ask, status, _ = server
    assert ask(path)[0] == 200
    status.answers[answer] = False
    assert ask(path)[0] == 503


def test_readiness_lists_the_state_of_each_partition(server):
    ask, status, _ = server
    status.answers["ready"] = False
    assert json.loads(ask("/readyz")[1])["partitions"] == {"0": {"state": "running"}}


def test_a_stream_is_found_by_its_percent_encoded_key(server):
    ask, status, _ = server
    status.streams[b"a/b \xff"] = {"step": 3, "logits": [float("nan")]}
    code, body = ask("/api/streams/a%2Fb%20%FF")
    assert (code, json.loads(body)) == (200, {"step": 3, "logits": [None]})


def test_an_unknown_stream_is_404_and_a_busy_loop_503(server):
    ask, status, _ = server
    assert ask("/api/streams/nobody")[0] == 404
    status.busy = True
    assert ask("/api/streams/nobody")[0] == 503


def test_the_page_needs_nothing_from_elsewhere(server):
    ask, _, _ = server
    code, body = ask("/")
    assert code == 200
    assert b"http://" not in body
    assert b"https://" not in body


def test_anything_else_is_404(server):
    assert server[0]("/secret")[0] == 404


def test_a_port_in_use_is_a_configuration_error(server):
    _, status, port = server
    with pytest.raises(ConfigError, match=rf"http\.port {port} .* set another http\.port"):
        HttpServer("127.0.0.1", port, CollectorRegistry(), status)


def test_port_0_serves_nothing():
    with HttpServer("127.0.0.1", 0, CollectorRegistry(), PlainStatus()):
        pass


@pytest.mark.parametrize("path", ["//[", "/metrics/", "/api/streams"])
def test_a_path_that_is_none_is_404(server, path):
    assert server[0](path)[0] == 404


def test_a_request_line_that_holds_no_path_is_404(server):
    with socket.create_connection(("127.0.0.1", server[2])) as client:
        client.sendall(b"GET http://[ HTTP/1.1\r\nHost: worker\r\n\r\n")
        assert client.recv(100).startswith(b"HTTP/1.1 404")


def test_a_query_is_ignored(server):
    assert server[0]("/livez?from=probe")[0] == 200


def test_a_client_that_hangs_up_leaves_no_traceback(server, capsys):
    _, status, port = server
    status.details["padding"] = "x" * 20_000_000
    with socket.create_connection(("127.0.0.1", port)) as client:
        client.sendall(b"GET /api/status HTTP/1.1\r\nHost: worker\r\n\r\n")
        client.recv(1)
        reset_instead_of_goodbye = struct.pack("ii", 1, 0)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, reset_instead_of_goodbye)
    requests_are_answered()
    assert capsys.readouterr().err == ""


def test_a_bug_shows_its_traceback(server, capsys):
    _, status, port = server
    status.details["not JSON"] = object()
    with socket.create_connection(("127.0.0.1", port)) as client:
        client.sendall(b"GET /api/status HTTP/1.1\r\nHost: worker\r\n\r\n")
        assert client.recv(1) == b""
    requests_are_answered()
    assert "Type is not JSON serializable" in capsys.readouterr().err


def test_an_ipv6_address_can_be_bound():
    try:
        port = free_port(socket.AF_INET6, "::1")
    except OSError:
        pytest.skip("this machine has no IPv6")
    with HttpServer("::1", port, CollectorRegistry(), PlainStatus()):
        connection = HTTPConnection("::1", port, timeout=5)
        connection.request("GET", "/livez")
        assert connection.getresponse().status == 200
        connection.close()


@pytest.mark.parametrize("bind", ["a..b", "192.0.2.1"])
def test_an_address_that_is_not_of_this_machine_is_a_configuration_error(bind):
    with pytest.raises(ConfigError, match=r"http\."):
        HttpServer(bind, free_port(), CollectorRegistry(), PlainStatus())
