"""`python -m tools.kafka start [--nodes 3] | stop | status`: a cluster that outlives the command."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from tools.kafka.cluster import STOP_SECONDS_MAX, KafkaStartFailed, KafkaUnavailable, LocalKafka
from tools.kafka.jars import cache_folder, exclusive

EXIT_NOT_RUNNING = 3


@dataclass(frozen=True)
class Running:
    """What `start` left behind."""

    bootstrap_servers: str
    pids: list[int]
    folder: str

    def alive(self) -> list[int]:
        """The nodes that still run; a pid given to another process since is not one of them."""
        return [pid for pid in self.pids if self._is_node(pid)]

    def _is_node(self, pid: int) -> bool:
        shown = subprocess.run(["ps", "-ww", "-o", "command=", "-p", str(pid)], capture_output=True, text=True)
        return f"kafka.Kafka {self.folder}/" in shown.stdout


def main() -> None:
    """Start, stop or look at the cluster of the cache folder."""
    parser = argparse.ArgumentParser(prog="python -m tools.kafka", description=__doc__)
    parser.add_argument("command", choices=["start", "stop", "status"])
    parser.add_argument("--nodes", type=int, choices=[1, 3], default=1)
    given = parser.parse_args()
    with exclusive("cluster"):
        if given.command == "start":
            start(given.nodes)
        elif given.command == "stop":
            stop()
        else:
            status()


def start(nodes: int) -> None:
    """Print the address of a new cluster, or of the one that runs already."""
    found = _read()
    if found is not None and found.alive():
        _say(found.bootstrap_servers)
        return
    if found is not None:
        stop()
    try:
        cluster = LocalKafka(cache_folder() / "cluster", nodes).start()
    except (KafkaUnavailable, KafkaStartFailed) as error:
        sys.exit(f"error: {error}")
    running = Running(cluster.bootstrap_servers, cluster.pids, str(cluster.folder))
    _state_file().write_text(json.dumps(asdict(running)))
    _say(cluster.bootstrap_servers)


def stop() -> None:
    """End the nodes by their own process ids and remove their data."""
    found = _read()
    if found is None:
        _say("not running")
        return
    for kind in (signal.SIGTERM, signal.SIGKILL):
        for pid in found.alive():
            os.kill(pid, kind)
        deadline = time.monotonic() + STOP_SECONDS_MAX
        while found.alive() and time.monotonic() < deadline:
            time.sleep(0.1)
    shutil.rmtree(found.folder, ignore_errors=True)
    _state_file().unlink()
    _say("stopped")


def status() -> None:
    """Print the address and how many nodes run; exits with 3 when none does."""
    found = _read()
    alive = found.alive() if found is not None else []
    if found is None or not alive:
        _say("not running")
        sys.exit(EXIT_NOT_RUNNING)
    _say(f"{found.bootstrap_servers} ({len(alive)} of {len(found.pids)} nodes run)")


def _read() -> Running | None:
    return Running(**json.loads(_state_file().read_text())) if _state_file().exists() else None


def _state_file() -> Path:
    return cache_folder() / "running.json"


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")


if __name__ == "__main__":
    main()
