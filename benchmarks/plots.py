"""Throughput by streams and by commit interval, and engines by units, as pictures: `python -m benchmarks.plots`.

Reads benchmarks/results/ and writes docs/throughput.png and, where engines were timed, docs/engines.png. Whiskers
reach from the lowest round to the highest one.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, NullLocator

mpl.use("Agg")
# After the choice of a back end that needs no display.
from matplotlib import pyplot

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
PICTURE = ROOT / "docs" / "throughput.png"
LOOKS = {
    "pass-through": ("0.65", "--"),
    "pass-through transactional": ("0.35", "--"),
    "at_least_once": ("tab:blue", "-"),
    "exactly_once": ("tab:orange", "-"),
}
ENGINES_PICTURE = ROOT / "docs" / "engines.png"
ENGINE_COLORS = {"numpy": "tab:blue", "kernel": "tab:orange", "tensorflow": "tab:green"}
STREAMS, INTERVAL_MS = 10_000, 100


def results() -> list[dict[str, Any]]:
    """The figures of all throughput results with binary records and keys in turn."""
    found = [json.loads(file.read_text()) for file in sorted(RESULTS.glob("throughput-*.json"))]
    loads = [(each["figures"], each["figures"]["load"]) for each in found]
    return [figures for figures, load in loads if load["record_format"] == "binary" and not load["zipf"]]


def draw(axes: Axes, measured: list[dict[str, Any]], at: Callable[[dict[str, Any]], int]) -> None:
    """One line a contender over what `at` takes from a result."""
    measured = sorted(measured, key=at)
    for contender, (color, line) in LOOKS.items():
        points = [(at(each), each["contenders"][contender]) for each in measured if contender in each["contenders"]]
        if not points:
            continue
        rates = [point["records_per_second"] for _, point in points]
        middle = [rate["median"] / 1000 for rate in rates]
        below = [(rate["median"] - rate["lowest"]) / 1000 for rate in rates]
        above = [(rate["highest"] - rate["median"]) / 1000 for rate in rates]
        x = [value for value, _ in points]
        axes.errorbar(x, middle, [below, above], label=contender, color=color, ls=line, marker="o", ms=4, capsize=3)
    axes.set_xscale("log")
    axes.set_xticks([at(each) for each in measured])
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)


def draw_engines(rows: list[dict[str, Any]]) -> None:
    """What a step costs over the units of an LSTM, one panel a wave."""
    waves = list(rows[0]["microseconds"])
    figure, panels = pyplot.subplots(1, len(waves), figsize=(4 * len(waves), 3.8), sharey=True, layout="constrained")
    for axes, wave in zip(panels, waves, strict=True):
        for engine, color in ENGINE_COLORS.items():
            mine = [row for row in rows if row["engine"] == engine]
            units = [row["units"] for row in mine]
            axes.plot(units, [row["microseconds"][wave] for row in mine], "o-", ms=4, color=color, label=engine)
        axes.set(
            xscale="log",
            yscale="log",
            xlabel="LSTM units",
            title=f"{int(wave):,} {'stream' if wave == '1' else 'streams'} a wave",
            xticks=units,
        )
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.grid(alpha=0.3)
    panels[0].set_ylabel("µs a sample")
    panels[0].legend(fontsize=8)
    figure.savefig(ENGINES_PICTURE, dpi=110)
    sys.stdout.write(f"drew {ENGINES_PICTURE.relative_to(ROOT)}\n")


def main() -> None:
    """Draw what is there."""
    engines = RESULTS / "engines.json"
    if engines.is_file():
        draw_engines(json.loads(engines.read_text("utf-8")))
    measured = results()
    by_streams = [each for each in measured if each["interval_ms"] == INTERVAL_MS]
    by_interval = [each for each in measured if each["load"]["streams"] == STREAMS]
    if len(by_streams) < 2:
        sys.exit("error: too few results; run `make bench-kafka` first")
    panels: list[tuple[str, list[dict[str, Any]], Callable[[dict[str, Any]], int]]] = [
        (f"streams (a commit each {INTERVAL_MS} ms)", by_streams, lambda each: int(each["load"]["streams"])),
        (f"commit interval, ms ({STREAMS:,} streams)", by_interval, lambda each: int(each["interval_ms"])),
    ]
    # One point is no curve.
    panels = [panel for panel in panels if len(panel[1]) > 1]
    figure, rows = pyplot.subplots(
        1, len(panels), figsize=(6 + 4 * (len(panels) - 1), 4), sharey=True, squeeze=False, layout="constrained"
    )
    for axes, (label, shown, at) in zip(rows[0], panels, strict=True):
        draw(axes, shown, at)
        axes.set_xlabel(label)
    rows[0][0].set_ylabel("thousand records a second")
    rows[0][0].legend(fontsize=8)
    figure.suptitle("One worker, binary records, the broker on the same two cores", fontsize=11)
    figure.savefig(PICTURE, dpi=110)
    sys.stdout.write(f"drew {PICTURE.relative_to(ROOT)}\n")


if __name__ == "__main__":
    main()
