"""`make bench-check`: whether the worker is still as fast beside a pass-through loop as it was when the ratio was kept.

Ratios of the same round on the embedded broker, median of five rounds, because rates of a shared machine mean nothing.
Fails below 70 % of benchmarks/baseline.json; `--write` keeps the ratios measured now.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from statistics import median

from worker.adapters.embedded_broker import EmbeddedBroker
from worker.bench.load import Load
from worker.bench.throughput import AT_LEAST_ONCE, PASS_THROUGH, Throughput
from worker.model.load import load_program

ROOT = Path(__file__).resolve().parents[1]
BASELINE = ROOT / "benchmarks" / "baseline.json"
MODEL = ROOT / "examples" / "basic_motions" / "badminton.keras"
ROUNDS = 5
KEPT = 0.7
"""Of the committed ratio; single rounds on a shared machine were seen between .65 and 1.2 of their median."""
LOADS = {
    "1,000 streams, binary": (300_000, 1_000, "binary"),
    "1 stream, binary": (100_000, 1, "binary"),
    "1,000 streams, JSON": (150_000, 1_000, "json"),
}
"""Records, streams, format. Few records, because the embedded broker keeps 5 MiB a partition."""


def measured(name: str, records: int, streams: int, record_format: str) -> float:
    """Median over the rounds of the worker's rate to the pass-through's."""
    load = Load(records, streams, load_program(MODEL).features, record_format)
    with EmbeddedBroker() as broker:
        throughput = Throughput("check", broker.bootstrap_servers, load, MODEL, 100, embedded=True)
        throughput.prepare()
        ratios = []
        for number in range(1, ROUNDS + 1):
            reference, worker = throughput.run(PASS_THROUGH, number), throughput.run(AT_LEAST_ONCE, number)
            ratios.append(worker.rate / reference.rate)
            sys.stderr.write(f"{name}, round {number}: {worker.rate:,.0f}/s, ratio {ratios[-1]:.2f}\n")
    return median(ratios)


def main() -> None:
    """Exit code 1 when a ratio is below 70 % of the committed one."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help="keep the ratios measured now")
    given = parser.parse_args()
    found = {name: round(measured(name, *load), 2) for name, load in LOADS.items()}
    if given.write:
        BASELINE.write_text(json.dumps(found, indent=1) + "\n", "utf-8")
    baseline = json.loads(BASELINE.read_text("utf-8"))
    slow = []
    for name, ratio in found.items():
        sys.stdout.write(f"{name}: {ratio:.2f} of the pass-through, {baseline[name]:.2f} when it was kept\n")
        if ratio < KEPT * baseline[name]:
            slow.append(name)
    if slow:
        sys.exit(f"slower than {KEPT:.0%} of the committed ratio: {', '.join(slow)}")


if __name__ == "__main__":
    main()
