"""The calibration report as pictures: log loss over the steps, reliability, and paths of the probability."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from worker.core.types import Float32Array
from worker.errors import ConfigError
from worker.model.calibration import Float64Array
from worker.model.calibration_scores import BINS, StepScores

LOOKS = {"partial sum": ("0.6", "--"), "calibrated": ("tab:blue", "-"), "Platt": ("tab:orange", ":")}
PATHS = 12
"""Sequences whose paths are drawn, spread evenly over the final probability."""


def draw_report(
    folder: Path,
    *,
    title: str,
    scores: Sequence[StepScores],
    base_rate: float,
    forecasts: Float32Array,
    targets: Float64Array,
    reliability_steps: Sequence[int],
) -> list[Path]:
    """Write calibration.png and calibration.svg. forecasts (N, T) of the published probability, targets (N,).

    Raises ConfigError where matplotlib is not installed.
    """
    try:
        import matplotlib as mpl
    except ModuleNotFoundError as error:
        raise ConfigError(
            "--report draws by matplotlib, which is not installed", "pip install 'lstm-worker[plots]'"
        ) from error
    mpl.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 3, figsize=(15, 4.6), layout="constrained")
    _losses(axes[0], scores, base_rate)
    _reliability(axes[1], forecasts, targets, reliability_steps)
    _paths(axes[2], forecasts, targets)
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
        low, high = [score.log_loss.low for score in mine], [score.log_loss.high for score in mine]
        axes.fill_between(steps, low, high, color=color, alpha=0.15)
    axes.axhline(base_rate, color="0.3", lw=0.8)
    axes.annotate(
        "base rate", (0.98, base_rate), xycoords=("axes fraction", "data"), ha="right", va="bottom", fontsize=8
    )
    axes.set(xlabel="step", ylabel="log loss (95 % interval)", title="what a forecast costs", ylim=(0, None))
    axes.legend(frameon=False)
    axes.grid(alpha=0.3)


def _reliability(axes: Any, forecasts: Float32Array, targets: Float64Array, steps: Sequence[int]) -> None:
    axes.plot([0, 1], [0, 1], color="0.6", lw=1)
    for step in steps:
        p = forecasts[:, step - 1]
        parts = np.array_split(np.argsort(p, kind="stable"), min(BINS, max(2, len(p) // 5)))
        axes.plot(
            [p[i].mean() for i in parts], [targets[i].mean() for i in parts], marker="o", ms=4, label=f"step {step}"
        )
    axes.set(xlabel="published probability", ylabel="frequency", title="reliability", xlim=(0, 1), ylim=(0, 1))
    axes.legend(frameon=False)
    axes.grid(alpha=0.3)


def _paths(axes: Any, forecasts: Float32Array, targets: npt.NDArray[np.floating]) -> None:
    order = np.argsort(forecasts[:, -1], kind="stable")
    chosen = order[np.linspace(0, len(order) - 1, min(PATHS, len(order))).astype(int)]
    steps = np.arange(1, forecasts.shape[1] + 1)
    for i in chosen.tolist():
        axes.plot(steps, forecasts[i], color="tab:blue" if targets[i] >= 0.5 else "tab:red", alpha=0.7, lw=1.2)
    axes.set(xlabel="step", ylabel="published probability", title="paths (blue: positive, red: negative)", ylim=(0, 1))
    axes.grid(alpha=0.3)
