"""The figures of benchmarks/results/ as pictures in docs/: `python -m benchmarks.plots`.

throughput.png by streams, commit interval and processes, whiskers from the lowest round to the highest one;
latency.png; memory.png with start and restore by live streams; engines.png by units.
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
    "pass-through transactional": ("0.45", ":"),
    "pass-through stateful": ("0.25", "--"),
    "at_least_once": ("tab:blue", "-"),
    "exactly_once": ("tab:orange", "-"),
}
ONE, TWO = "exactly_once", "exactly_once 2 processes"
LATENCY_PICTURE = ROOT / "docs" / "latency.png"
MEMORY_PICTURE = ROOT / "docs" / "memory.png"
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
    axes.tick_params(axis="x", labelrotation=30)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)


def draw_processes(axes: Axes, measured: list[dict[str, Any]]) -> None:
    """One process beside two, with the rounds' extremes."""
    found = next(each["contenders"] for each in measured if TWO in each["contenders"])
    for x, contender in ((1, ONE), (2, TWO)):
        rate = {name: value / 1000 for name, value in found[contender]["records_per_second"].items()}
        reach = [[rate["median"] - rate["lowest"]], [rate["highest"] - rate["median"]]]
        axes.bar(x, rate["median"], 0.6, yerr=reach, capsize=3, color="tab:orange")
    axes.set_xticks([1, 2])
    axes.grid(alpha=0.3, axis="y")


def draw_latency(figures: dict[str, Any]) -> None:
    """Milliseconds end to end, a bar a setting and percentile."""
    runs = figures["runs"]
    figure, axes = pyplot.subplots(figsize=(8, 3.6), layout="constrained")
    shares = list(runs[0]["end_to_end_ms"])
    for number, share in enumerate(shares):
        at = [place + 0.25 * (number - 1) for place in range(len(runs))]
        bars = axes.bar(at, [run["end_to_end_ms"][share] for run in runs], 0.24, label=share)
        axes.bar_label(bars, fmt="{:.0f}", fontsize=8)
    names = [f"{run['guarantee']}, {run['interval_ms']} ms" + ("\ntuned" if run["overrides"] else "") for run in runs]
    axes.set_xticks(range(len(runs)), names, fontsize=8)
    axes.set_ylabel("ms, due to read_committed")
    axes.legend(fontsize=8)
    load = figures["load"]
    axes.set_title(f"{load['rate']:,} records a second, {load['streams']:,} streams", fontsize=11)
    figure.savefig(LATENCY_PICTURE, dpi=110)
    sys.stdout.write(f"drew {LATENCY_PICTURE.relative_to(ROOT)}\n")


def draw_memory(measured: list[dict[str, Any]]) -> None:
    """What live streams cost: memory, seconds to the first output after a clean stop, rows restored a second."""
    measured = sorted(measured, key=lambda each: int(each["streams"]))
    panels: list[tuple[str, Callable[[dict[str, Any]], float]]] = [
        ("peak memory, MB", lambda each: each["fill"]["memory_mb"]),
        ("start to first output, s", lambda each: each["restart"]["ready_seconds"]),
        ("restored, thousand rows/s", lambda each: each["restore"]["rows"] / each["restore"]["seconds"] / 1000),
    ]
    figure, rows = pyplot.subplots(1, len(panels), figsize=(4 * len(panels), 3.4), layout="constrained")
    for axes, (title, of) in zip(rows, panels, strict=True):
        axes.plot([each["streams"] for each in measured], [of(each) for each in measured], "o-", color="tab:orange")
        axes.set(xscale="log", xlabel="live streams", title=title, ylim=(0, None))
        axes.grid(alpha=0.3)
    figure.savefig(MEMORY_PICTURE, dpi=110)
    sys.stdout.write(f"drew {MEMORY_PICTURE.relative_to(ROOT)}\n")


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
    if (RESULTS / "latency.json").is_file():
        draw_latency(json.loads((RESULTS / "latency.json").read_text("utf-8"))["figures"])
    filled = [json.loads(file.read_text("utf-8"))["figures"] for file in RESULTS.glob("memory-*.json")]
    if len(filled) > 1:
        draw_memory(filled)
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
    two = any(TWO in each["contenders"] for each in measured)
    widths = [4.0] * len(panels) + [2.0] * two
    figure, rows = pyplot.subplots(
        1,
        len(widths),
        figsize=(2 + sum(widths), 4),
        sharey=True,
        squeeze=False,
        layout="constrained",
        width_ratios=widths,
    )
    for axes, (label, shown, at) in zip(rows[0], panels, strict=False):
        draw(axes, shown, at)
        axes.set_xlabel(label)
    if two:
        draw_processes(rows[0][-1], measured)
        rows[0][-1].set_xlabel(f"processes ({STREAMS:,} streams)")
    rows[0][0].set_ylabel("thousand records a second")
    rows[0][0].legend(fontsize=8)
    figure.suptitle("Binary records, the broker on the same two cores", fontsize=11)
    figure.savefig(PICTURE, dpi=110)
    sys.stdout.write(f"drew {PICTURE.relative_to(ROOT)}\n")


if __name__ == "__main__":
    main()
