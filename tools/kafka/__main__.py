"""`python -m tools.kafka start [--nodes 3] | stop | status`: a cluster that outlives the command."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import sys
from pathlib import Path

from tools.kafka.cluster import KafkaUnavailable, LocalKafka, cache_folder


def main() -> None:
    """Start, stop or look at the cluster of the cache folder."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("command", choices=["start", "stop", "status"])
    parser.add_argument("--nodes", type=int, choices=[1, 3], default=1)
    given = parser.parse_args()
    state = cache_folder() / "running.json"
    running = json.loads(state.read_text()) if state.exists() else None
    alive = [pid for pid in running["pids"] if _is_ours(pid, running["folder"])] if running else []
    if given.command == "start":
        if alive and running:
            sys.stdout.write(f"already running: {running['bootstrap_servers']}\n")
            return
        try:
            cluster = LocalKafka(cache_folder() / "cluster", given.nodes).start()
        except KafkaUnavailable as error:
            sys.exit(f"error: {error}")
        state.write_text(
            json.dumps(
                {
                    "bootstrap_servers": cluster.bootstrap_servers,
                    "pids": cluster.pids,
                    "folder": str(cluster.folder),
                }
            )
        )
        sys.stdout.write(f"{cluster.bootstrap_servers}\n")
    elif given.command == "stop":
        for pid in alive:
            os.kill(pid, signal.SIGTERM)
        if running:
            shutil.rmtree(running["folder"], ignore_errors=True)
            state.unlink()
        sys.stdout.write("stopped\n" if alive else "not running\n")
    else:
        sys.stdout.write(f"running: {running['bootstrap_servers']}\n" if alive and running else "not running\n")


def _is_ours(pid: int, folder: str) -> bool:
    """Whether this process is a node of this folder: a pid may have been given to something else."""
    try:
        return folder.encode() in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


if __name__ == "__main__":
    main()
