"""Questions to a worker that runs on this machine, over its HTTP interface."""

from __future__ import annotations

import re
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from typing import Any
from urllib.parse import quote

import orjson

from worker.errors import ConfigError

TIMEOUT_SECONDS = 5.0
_STAGE_LINE = re.compile(r'^lstm_worker_stage_seconds_total\{stage="(\w+)"\} (\S+)$', re.MULTILINE)
_ANY_ADDRESS = {"0.0.0.0": "127.0.0.1", "::": "::1"}


@dataclass(frozen=True, slots=True)
class Answer:
    """A worker answered; `stream` is None where it knows no open sequence of that key."""

    stream: dict[str, Any] | None


def stream_of_running_worker(bind: str, port: int, key: bytes) -> Answer | None:
    """What the worker says of one stream; None when none listens there.

    Raises ConfigError when something answers that is no worker, or when the worker does not answer in time.
    """
    found = _asked(bind, port, f"/api/streams/{quote(key, safe='')}")
    return None if found is None else Answer(found[1])


def status_of_running_worker(bind: str, port: int) -> dict[str, Any] | None:
    """What the worker says of itself; None when none listens there. Raises ConfigError as above."""
    found = _asked(bind, port, "/api/status")
    return None if found is None else found[1]


def metrics_of_running_worker(bind: str, port: int) -> str:
    """What /metrics gives. Raises ConfigError when none answers."""
    connection = HTTPConnection(_ANY_ADDRESS.get(bind, bind), port, timeout=TIMEOUT_SECONDS)
    try:
        connection.request("GET", "/metrics")
        return connection.getresponse().read().decode()
    except (OSError, HTTPException) as error:
        raise ConfigError(
            f"the worker at {bind}:{port} does not answer ({error})", "check http.bind and http.port"
        ) from error
    finally:
        connection.close()


def stage_seconds_of_running_worker(bind: str, port: int) -> dict[str, float]:
    """Seconds of the loop by stage since the worker's start. Raises ConfigError when none answers."""
    found = _STAGE_LINE.findall(metrics_of_running_worker(bind, port))
    return {stage: float(seconds) for stage, seconds in found}


def _asked(bind: str, port: int, path: str) -> tuple[int, dict[str, Any] | None] | None:
    """Status and JSON body, None for a body of status 404; None when nothing listens."""
    if not port:
        return None
    host = _ANY_ADDRESS.get(bind, bind)
    connection = HTTPConnection(host, port, timeout=TIMEOUT_SECONDS)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        body = response.read()
    except ConnectionRefusedError:
        return None
    except (OSError, HTTPException) as error:
        raise ConfigError(
            f"the worker at {host}:{port} does not answer ({error})", "check http.bind and http.port"
        ) from error
    finally:
        connection.close()
    if response.status == 404:
        return 404, None
    if response.status != 200:
        raise ConfigError(f"{host}:{port} answered with status {response.status}", "check http.bind and http.port")
    try:
        return 200, orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise ConfigError(f"{host}:{port} is no worker", "check http.bind and http.port") from error
