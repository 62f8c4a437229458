"""All measurements on a broker of their own: `python -m benchmarks.on_kafka [--quick]`.

Starts one Apache Kafka node with the JVM settings of Kafka's own scripts, runs `lstm-worker bench …` step by step,
saves the figures under benchmarks/results/, draws the plots into docs/ and removes the broker again. A step that fails
or takes too long is reported and the rest goes on; the exit code is then 1.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tools.kafka.cluster import THROUGHPUT, LocalKafka

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
MINUTES = 40.0
HEAP_MIB = 1024


def steps(quick: bool) -> list[list[str]]:
    """Arguments of `lstm-worker bench`, the most telling ones first; `quick` has small sizes to try the whole out."""
    rounds, records = ("1", "50000") if quick else ("5", "600000")
    throughput = ["throughput", "--rounds", rounds, "--records", records]
    workers = ["--contenders", "pass-through stateful,exactly_once"]
    few, many = ("2000", "20000") if quick else ("10000", "1000000")
    return [
        throughput,
        ["latency", "--seconds", "3" if quick else "12"],
        ["memory", "--streams", many],
        *([*throughput, *workers, "--streams", streams] for streams in ("1", "100", "200000")),
        [*throughput, *workers, "--format", "json"],
        [*throughput, *workers, "--zipf", "1.2"],
        *([*throughput, *workers, "--interval-ms", interval_ms] for interval_ms in ("20", "500")),
        ["memory", "--streams", few],
        ["memory", "--streams", "5000" if quick else "100000"],
        # Each stream twice: to begin them is not what a running worker does.
        ["throughput", "--rounds", "1", "--records", "100000" if quick else "2000000", *workers, "--streams", many],
        ["takeover", "--rounds", "1" if quick else "3"],
        ["restore", "--streams", "20000" if quick else "500000", "--rounds", "1" if quick else "3"],
    ]


def main() -> None:
    """Run every step within the total time."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small sizes, one round, results not kept")
    parser.add_argument("--minutes", type=float, default=MINUTES, help="what is not done by then is left out")
    given = parser.parse_args()
    began, failed = time.monotonic(), []
    with (
        tempfile.TemporaryDirectory(prefix="lstm-worker-kafka-") as folder,
        LocalKafka(Path(folder) / "node", heap_mib=HEAP_MIB, jvm_options=THROUGHPUT) as kafka,
    ):
        results = Path(folder) / "results" if given.quick else RESULTS
        todo = steps(given.quick)
        for number, step in enumerate(todo, 1):
            elapsed = time.monotonic() - began
            say(f"[{elapsed / 60:4.1f} min, {number} of {len(todo)}, load {os.getloadavg()[0]:.1f}] {' '.join(step)}")
            if not ran(step, kafka.bootstrap_servers, results, 60 * given.minutes - elapsed):
                failed.append(" ".join(step))
    if not given.quick:
        subprocess.run([sys.executable, "-m", "benchmarks.plots"], cwd=ROOT, check=True)
    say(f"done in {(time.monotonic() - began) / 60:.1f} min" + (f"; failed: {failed}" if failed else ""))
    sys.exit(1 if failed else 0)


def ran(step: list[str], bootstrap: str, results: Path, seconds_max: float) -> bool:
    """Run one step; whether it came to its end in time."""
    options = ["--bootstrap-servers", bootstrap, "--results", str(results)]
    command = [sys.executable, "-m", "worker", "bench", *step, *options]
    # Wide enough for the tables where the output is no terminal; a group of its own, so that its workers end with it.
    process = subprocess.Popen(command, cwd=ROOT, env={**os.environ, "COLUMNS": "120"}, start_new_session=True)
    try:
        return process.wait(max(1.0, seconds_max)) == 0
    except subprocess.TimeoutExpired:
        say("stopped: the time is over")
        return False
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGTERM)
            process.wait()


def say(line: str) -> None:
    """A progress line, at once."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
