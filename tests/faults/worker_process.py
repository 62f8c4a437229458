"""A worker in a process of its own that kills itself at a named step: `python -m tests.faults.worker_process`."""

from __future__ import annotations

import argparse
import os
import signal
from collections import Counter
from pathlib import Path

from worker.assembly import assembled
from worker.config import load_settings
from worker.logs import configure_logging
from worker.ports import Hook


def killer(step: str, count: int) -> Hook:
    """A hook that ends this process, without any clean-up, at the count-th time a step is reached."""
    seen: Counter[str] = Counter()

    def hook(name: str) -> None:
        seen[name] += 1
        if name == step and seen[name] >= count:
            os.kill(os.getpid(), signal.SIGKILL)

    return hook


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--kill-at", default="")
    parser.add_argument("--count", type=int, default=1)
    given = parser.parse_args()
    configure_logging("text", "warning")
    with assembled(load_settings(given.config), killer(given.kill_at, given.count)) as worker:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: worker.stop())
        worker.run()


if __name__ == "__main__":
    main()
