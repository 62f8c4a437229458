"""The report on early probabilities: scores by step as a table, as Markdown and as pictures."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.table import Table

from worker.cli.calibration_pictures import draw_report
from worker.core.types import Float32Array
from worker.errors import ConfigError
from worker.model.calibration import Program, log_loss
from worker.model.calibration_fit import cross_fitted_forecasts
from worker.model.calibration_scores import StepScores, decision_scores, drift, platt_forecasts, scores_by_step
from worker.model.datasets import Sequences

STEPS_SHOWN = (1, 5, 10, 25, 50, 75)
"""Steps of the table; the last one is added."""

MAX_ERRORS = (0.01, 0.05, 0.1)
"""Of early decisions that are shown."""

SHORT_SEQUENCE = 10
"""Up to this length every step is shown."""


@dataclass(frozen=True, slots=True)
class Report:
    """Scores, and the numbers that the pictures show."""

    scores: list[StepScores]
    published: npt.NDArray[np.floating]
    """(N, T) what a worker would publish of the last output, cross-fitted."""
    targets: npt.NDArray[np.float64]
    against: str
    base_rate: float
    """Log loss of the mean target."""
    drift: tuple[float, float]
    outputs: int


def scored(
    program: Program,
    sequences: Sequences,
    logits: Float32Array,
    labels: npt.NDArray[np.bool_] | None,
    forecasts: Float32Array | None = None,
) -> Report:
    """Partial sum, calibrated forecast and, with labels, a Platt step, each at the steps of the table.

    logits (N, T, K). Labels (N,) score a model with one output; without them the model's own number at step T does.
    `forecasts` (N, T - 1, K) of a calibration that has not seen these sequences; without them they are cross-fitted.
    """
    timesteps, fitted_here = logits.shape[1], forecasts is None
    if forecasts is None:
        forecasts = cross_fitted_forecasts(logits, program.activation, sequences.recordings)
    final = program.outputs_of(logits[:, -1])
    published = np.concatenate([forecasts, final[:, None]], axis=1)[:, :, -1]
    naive = np.stack([program.outputs_of(logits[:, t])[:, -1] for t in range(timesteps)], axis=1)
    contenders: dict[str, npt.NDArray[np.floating]] = {"partial sum": naive, "calibrated": published}
    labelled = labels is not None and logits.shape[2] == 1
    targets = final[:, -1].astype(np.float64)
    if labels is not None and labelled:
        targets = labels.astype(np.float64)
        if fitted_here:
            contenders["Platt"] = platt_forecasts(logits[:, :, 0], labels, sequences.recordings)
    early = STEPS_SHOWN if timesteps > SHORT_SEQUENCE else range(1, timesteps)
    steps = [step for step in early if step < timesteps] + [timesteps]
    rows = scores_by_step(contenders, targets, sequences.recordings, steps, labelled=labelled)
    base = log_loss(np.full(len(targets), targets.mean()), targets)
    against = "labels" if labelled else f"the model at step {timesteps}"
    return Report(rows, published, targets, against, base, drift(published), logits.shape[2])


def summary(report: Report, sequences: Sequences) -> str:
    """What the table shows, in a line."""
    recordings = len(set(sequences.recordings))
    return (
        f"{len(sequences)} sequences of {recordings} recordings, none scored by what was fitted on it, against "
        f"{report.against}; 95 % intervals resample recordings; the base rate alone costs {report.base_rate:.3f}"
    )


def table_of(report: Report) -> tuple[list[str], list[list[str]]]:
    """Headings and rows."""
    labelled = report.scores[0].auc is not None
    headings = ["step", "forecast", "log loss", *(["AUC"] if labelled else []), "calibration error"]
    rows = []
    for score in report.scores:
        numbers = [score.log_loss, *([score.auc] if score.auc is not None else []), score.calibration_error]
        cells = [f"{_short(each.value)} ({_short(each.low)}-{_short(each.high)})" for each in numbers]
        rows.append([str(score.step), score.contender, *cells])
    return headings, rows


def _short(number: float) -> str:
    return f"{number:.3f}".removeprefix("0")


def print_report(console: Console, report: Report, sequences: Sequences) -> None:
    """The table, and whether the forecast drifts."""
    console.print(summary(report, sequences), soft_wrap=True)
    headings, rows = table_of(report)
    table = Table()
    for heading in headings:
        table.add_column(heading, justify="left" if heading == "forecast" else "right")
    for before, row in zip([None, *rows], rows, strict=False):
        table.add_row("" if before is not None and before[0] == row[0] else row[0], *row[1:])
    console.print(table)
    for line in [drift_line(report), *decision_lines(report)]:
        console.print(line, soft_wrap=True)


def decision_lines(report: Report) -> list[str]:
    """What early decisions would be, a line for each promise."""
    if report.outputs > 1:
        return []
    found = [decision_scores(report.published, report.targets, error) for error in MAX_ERRORS]
    last = report.published.shape[1]
    return [
        f"decide.max_error = {each.max_error}: {each.early:.0%} decided early, on average at step "
        f"{each.mean_step:.1f}; step {last} took back {each.taken_back:.1%} of these; {each.right:.1%} right against "
        f"{report.against}"
        for each in found
    ]


def drift_line(report: Report) -> str:
    """A forecast that can be trusted has neither a mean increment nor a slope."""
    mean, slope = report.drift
    return f"mean increment of the forecast a step {mean:+.4f}, its slope on the forecast before {slope:+.3f}"


def write_report(folder: Path, model: Path, report: Report, sequences: Sequences) -> list[Path]:
    """calibration.md, calibration.png and calibration.svg. Raises ConfigError where they cannot be written."""
    timesteps = report.published.shape[1]
    reliability = sorted({max(1, timesteps // 4), max(1, timesteps // 2), timesteps})
    try:
        folder.mkdir(parents=True, exist_ok=True)
        pictures = draw_report(
            folder,
            title=f"{model.name}: {len(sequences)} sequences of {len(set(sequences.recordings))} recordings",
            scores=report.scores,
            base_rate=report.base_rate,
            forecasts=report.published,
            targets=report.targets,
            reliability_steps=reliability,
        )
        headings, rows = table_of(report)
        lines = [f"# {model.name}", "", summary(report, sequences) + ".", "", "![calibration](calibration.svg)", ""]
        lines += [f"| {' | '.join(headings)} |", "|---" * len(headings) + "|"]
        lines += [f"| {' | '.join(row)} |" for row in rows]
        lines += ["", drift_line(report).capitalize() + ".", "", *[f"- {line}" for line in decision_lines(report)], ""]
        (folder / "calibration.md").write_text("\n".join(lines), "utf-8")
    except OSError as error:
        raise ConfigError(f"report {folder} cannot be written: {error.strerror}", "name another --report") from error
    return [folder / "calibration.md", *pictures]
