"""`lstm-worker run --processes N`: N members of the group under one supervisor and one HTTP port."""

from __future__ import annotations

import ctypes
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence

from prometheus_client import CollectorRegistry

from worker.adapters.clock import SystemClock
from worker.adapters.http import HttpServer
from worker.adapters.http_members import LOCAL, MembersCollector, MembersStatus
from worker.config import Settings
from worker.supervisor import Member, Process, Supervisor

PR_SET_PDEATHSIG = 1
"""From linux/prctl.h."""


def supervise(settings: Settings, options: Sequence[str], processes: int) -> int:
    """Run until SIGTERM, or until a member ends for a reason that a person must mend; returns the exit code.

    `options`: the command line of a single worker. Each member gets a state directory, an instance id and a port of
    its own.
    """
    ports = _free_ports(processes)
    members = [Member(number, _starter(settings, options, number, port)) for number, port in enumerate(ports)]
    stopping = threading.Event()
    supervisor = Supervisor(members, SystemClock(), stopping.wait)

    def stop(*_: object) -> None:
        supervisor.stop()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    registry = CollectorRegistry()
    MembersCollector(ports, registry)
    with HttpServer(settings.http.bind, settings.http.port, registry, MembersStatus(ports)):
        return supervisor.run()


def member_options(settings: Settings, number: int, port: int) -> list[str]:
    """What a member is told on top of the common options."""
    own = [
        f"state.directory={settings.state.directory}-{number}",
        f"http.bind={LOCAL}",
        f"http.port={port}",
    ]
    if settings.kafka.group_instance_id:
        own.append(f"kafka.group_instance_id={settings.kafka.group_instance_id}-{number}")
    return [argument for setting in own for argument in ("--set", setting)]


def _starter(settings: Settings, options: Sequence[str], number: int, port: int) -> Callable[[], Process]:
    command = [sys.executable, "-m", "worker", "run", *options, *member_options(settings, number, port)]

    def start() -> Process:
        # A group of its own: Ctrl-C reaches the supervisor alone, which asks the members in order.
        return subprocess.Popen(command, start_new_session=True, preexec_fn=_end_with_the_supervisor)

    return start


def _end_with_the_supervisor() -> None:
    """In the child: SIGTERM when its parent dies, however that happens; else it would keep its state directory."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def _free_ports(count: int) -> list[int]:
    probes = [socket.socket() for _ in range(count)]
    for probe in probes:
        probe.bind((LOCAL, 0))
    ports = [int(probe.getsockname()[1]) for probe in probes]
    for probe in probes:
        probe.close()
    return ports
