"""The calibration report as pictures: log loss over the steps, reliability, and paths of the probability."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from worker.core.types import Float32Array, Float64Array
from worker.errors import ConfigError
from worker.model.calibration_scores import StepScores
from worker.model.scores import BINS, bins_of

PARTIAL_SUM, OWN_NUMBER, CALIBRATED, PLATT = "partial sum", "own number", "calibrated", "Platt"
"""Contenders of the report."""

LOOKS = {
    PARTIAL_SUM: ("0.6", "--"),
    OWN_NUMBER: ("0.6", "--"),
    CALIBRATED: ("tab:blue", "-"),
    PLATT: ("tab:orange", ":"),
}
PATHS = 12
"""Sequences whose paths are drawn, spread evenly over the final probability."""
CLASSES_NAMED = 10
"""As many classes have a colour of their own."""


def check_drawable() -> None:
    """Raises ConfigError where matplotlib is not installed."""
    if importlib.util.find_spec("matplotlib") is None:
        raise ConfigError("--report draws by matplotlib, which is not installed", "pip install 'lstm-worker[plots]'")


def draw_report(
    folder: Path,
    *,
    title: str,
    scores: Sequence[StepScores],
    base_rate: float,
    own: Float32Array,
    published: Float32Array,
    targets: Float64Array,
    recordings: Sequence[str],
    first: int,
    classes: bool,
) -> list[Path]:
    """Write calibration.png and calibration.svg. own, published (N, T, K) from step `first` on, targets (N, K),
    `recordings` (N,). Raises ConfigError as `check_drawable`.
    """
    check_drawable()
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 3, figsize=(15, 4.6), layout="constrained")
    _losses(axes[0], scores, base_rate)
    _reliability(axes[1], own, published, targets, recordings, first, classes=classes)
    _paths(axes[2], published, targets, classes=classes)
    figure.suptitle(title, fontsize=11)
    written = [folder / f"calibration.{kind}" for kind in ("png", "svg")]
    for path in written:
        figure.savefig(path, dpi=110)
    pyplot.close(figure)
    return written


def _losses(axes: Any, scores: Sequence[StepScores], base_rate: float) -> None:
    for contender in dict.fromkeys(score.contender for score in scores):
        mine = [score for score in scores if score.contender == contender]
        color, line = LOOKS[contender]
        steps = [score.step for score in mine]
        axes.plot(steps, [score.log_loss.value for score in mine], line, color=color, marker="o", ms=4, label=contender)
        intervals = [score.log_loss.interval for score in mine]
        if None not in intervals:
            low, high = zip(*(interval for interval in intervals if interval is not None), strict=True)
            axes.fill_between(steps, low, high, color=color, alpha=0.15)
    axes.axhline(base_rate, color="0.3", lw=0.8)
    axes.annotate(
        "base rate", (0.98, base_rate), xycoords=("axes fraction", "data"), ha="right", va="bottom", fontsize=8
    )
    axes.set(xlabel="step", ylabel="log loss (95 % interval)", title="what a forecast costs", ylim=(0, None))
    axes.legend(frameon=False)
    axes.grid(alpha=0.3)


def _reliability(
    axes: Any,
    own: Float32Array,
    published: Float32Array,
    targets: Float64Array,
    recordings: Sequence[str],
    first: int,
    *,
    classes: bool,
) -> None:
    """The published number at three steps, and at the middle one, in grey, what the model itself has there."""
    timesteps = published.shape[1]
    _, members = np.unique(np.asarray(recordings), return_inverse=True)
    axes.plot([0, 1], [0, 1], color="0.6", lw=1)
    middle = max(first, timesteps // 2)
    shown = [
        (f"step {step}", published[:, step - 1]) for step in sorted({max(first, timesteps // 4), middle, timesteps})
    ]
    if middle < timesteps:
        shown.append((f"step {middle}, not calibrated", own[:, middle - 1]))
    for label, p in shown:
        y = targets
        if classes:
            best = p.argmax(axis=1)[:, None]
            p, y = np.take_along_axis(p, best, axis=1), np.take_along_axis(y, best, axis=1)
        who = np.repeat(members, p.shape[1])
        p, y = p.ravel(), y.ravel()
        bins = bins_of(p, min(BINS, max(2, len(p) // 5)))
        parts = [np.flatnonzero(bins == each) for each in np.unique(bins)]
        at, frequency = [p[part].mean() for part in parts], [y[part].mean() for part in parts]
        low, high = zip(*(_interval(y[part].mean(), len(np.unique(who[part]))) for part in parts), strict=True)
        error = [np.subtract(frequency, low), np.subtract(high, frequency)]
        grey = {"color": "0.6"} if "not" in label else {}
        drawn = axes.errorbar(at, frequency, error, fmt="o", ms=4, lw=1, label=label, **grey)
        axes.plot(at, frequency, color=drawn.lines[0].get_color(), alpha=0.3)
    of_what = " of the likeliest class" if classes else ""
    axes.set(xlabel="probability", ylabel="frequency (95 %)", title=f"reliability{of_what}")
    axes.set(xlim=(0, 1), ylim=(0, 1))
    axes.legend(frameon=False, fontsize=8)
    axes.grid(alpha=0.3)


def _interval(share: float, recordings: int) -> tuple[float, float]:
    """95 % of a share among so many recordings (Wilson 1927), which are the independent pieces of evidence."""
    z = 1.96**2 / recordings
    middle = (share + z / 2) / (1 + z)
    half = float(np.sqrt(z * share * (1 - share) + z * z / 4)) / (1 + z)
    return min(share, middle - half), max(share, middle + half)


def _paths(axes: Any, published: Float32Array, targets: npt.NDArray[np.floating], *, classes: bool) -> None:
    of_class = published[:, -1].argmax(axis=1) if classes else np.zeros(len(published), np.int64)
    paths = np.take_along_axis(published, of_class[:, None, None], axis=2)[:, :, 0]
    order = np.lexsort((paths[:, -1], of_class))
    chosen = order[np.linspace(0, len(order) - 1, min(PATHS, len(order))).astype(int)]
    steps = np.arange(1, published.shape[1] + 1)
    named: set[int] = set()
    for i in chosen.tolist():
        number = int(of_class[i])
        color = f"C{number % CLASSES_NAMED}" if classes else ("tab:blue" if targets[i, 0] >= 0.5 else "tab:red")
        label = f"class {number}" if classes and number not in named else None
        named.add(number)
        axes.plot(steps, paths[i], color=color, alpha=0.7, lw=1.2, label=label)
    title = "paths of the class named last" if classes else "paths (blue: positive, red: negative)"
    axes.set(xlabel="step", ylabel="published probability", title=title, ylim=(0, 1))
    axes.grid(alpha=0.3)
    if classes:
        axes.legend(frameon=False, fontsize=8)
