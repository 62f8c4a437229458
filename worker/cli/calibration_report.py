"""The report on early probabilities: scores by step as a table, as Markdown and as pictures."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.table import Table

from worker.cli.calibration_pictures import CALIBRATED, OWN_NUMBER, PARTIAL_SUM, PLATT, draw_report
from worker.core.types import Float32Array
from worker.errors import ConfigError
from worker.model.calibration import Program, own_predictors
from worker.model.calibration_fit import CrossFit, published_paths
from worker.model.calibration_scores import (
    Estimate,
    StepScores,
    drift,
    platt_forecasts,
    scores_by_step,
)
from worker.model.datasets import Sequences
from worker.model.early_decisions import DecisionCounts, decision_scores, promised_threshold, smallest_promise
from worker.model.scores import counted_once, log_loss_score

STEPS_SHOWN = (1, 5, 10, 25, 50, 75)
"""Steps of the table; the last one is added."""

MAX_ERRORS = (0.01, 0.05, 0.1)
"""Of early decisions that are shown."""

SHORT_SEQUENCE = 10
"""Up to this length every step is shown."""

SCORING_PARTS = 100
"""Of the progress of scoring."""


@dataclass(frozen=True, slots=True)
class Report:
    """Scores, and the numbers that the pictures show."""

    scores: list[StepScores]
    published: Float32Array
    """(N, T, K) what a worker would publish, cross-fitted; NaN before the first step that says anything."""
    own: Float32Array
    """(N, T, K) what the model itself has at each step."""
    targets: npt.NDArray[np.float64]
    """(N, K)."""
    against: str
    base_rate: float
    """Log loss of the mean target."""
    drift: tuple[float, float]
    first: int
    """The first step that says anything."""
    classes: bool
    """Whether the K are classes that exclude each other."""
    decisions: DecisionCounts
    """Of the calibration that is served."""
    by_recording: bool
    """Whether no sequence was forecast by what was fitted on others of its recording."""


def scored(
    program: Program,
    sequences: Sequences,
    logits: Float32Array,
    labels: npt.NDArray[np.bool_] | None,
    cross_fit: CrossFit,
    decisions: DecisionCounts,
    *,
    with_platt: bool,
    on_progress: Callable[[float], None] | None = None,
) -> Report:
    """The model's own number, calibrated forecast and, with labels, a Platt step at the table's steps.

    logits (N, T, K). Scored against labels (N, K), without them against the model's own numbers at step T.
    `on_progress` is called with parts done of SCORING_PARTS.
    """
    timesteps, first = logits.shape[1], program.computed_from
    own = np.stack([program.outputs_of(logits[:, t]) for t in range(timesteps)], axis=1)
    published = published_paths(program, logits, cross_fit.forecasts)
    contenders: dict[str, npt.NDArray[np.floating]] = {
        PARTIAL_SUM if program.exactness == "end" else OWN_NUMBER: own,
        CALIBRATED: published,
    }
    targets = (own[:, -1] if labels is None else labels).astype(np.float64)
    classes = program.activation == "softmax"
    steps = _steps_shown(first, timesteps)
    if labels is not None and with_platt:
        flat = logits.reshape(-1, logits.shape[2]).astype(np.float64)
        predictors = own_predictors(flat, program.activation).reshape(logits.shape)
        contenders[PLATT] = platt_forecasts(predictors, labels, cross_fit.folds, steps, classes=classes)
    a_score = SCORING_PARTS / len(steps) / len(contenders)
    rows = scores_by_step(
        contenders,
        targets,
        sequences.recordings,
        cross_fit.folds,
        steps,
        labelled=labels is not None,
        classes=classes,
        on_progress=None if on_progress is None else lambda count: on_progress(count * a_score),
    )
    mean = np.broadcast_to(targets.mean(axis=0), targets.shape)
    base = counted_once(log_loss_score(mean, targets, classes=classes), len(targets))
    against = f"the model at step {timesteps}" if labels is None else "labels"
    paths = published[:, first - 1 :].transpose(0, 2, 1).reshape(-1, timesteps - first + 1)
    return Report(
        scores=rows,
        published=published,
        own=own,
        targets=targets,
        against=against,
        base_rate=base,
        drift=drift(paths),
        first=first,
        classes=classes,
        decisions=decisions,
        by_recording=cross_fit.by_recording,
    )


def _steps_shown(first: int, timesteps: int) -> list[int]:
    shown = {*(STEPS_SHOWN if timesteps > SHORT_SEQUENCE else range(1, timesteps)), first, timesteps}
    return sorted(step for step in shown if first <= step <= timesteps)


def summary(report: Report, sequences: Sequences) -> str:
    """What the table shows, in a line."""
    recordings = len(set(sequences.recordings))
    of_what = "one recording" if recordings == 1 else f"{recordings} recordings"
    how = "95 % intervals resample recordings"
    if recordings == 1:
        how = "no intervals: they would resample recordings"
    apart = "none scored by what was fitted on its recording"
    if not report.by_recording:
        apart = "scored by what was fitted on others of the same recording: too few remain without one"
    return (
        f"{len(sequences)} sequences of {of_what}, {apart}, against {report.against}; {how}; "
        f"the base rate alone costs {report.base_rate:.3f}"
    )


def table_of(report: Report) -> tuple[list[str], list[list[str]]]:
    """Headings and rows."""
    labelled = report.scores[0].auc is not None
    several = report.published.shape[2] > 1
    area = "mean AUC" if several else "AUC"
    of_what = " of the likeliest class" if report.classes else (", mean of outputs" if several else "")
    headings = [
        "step",
        "sequences",
        "forecast",
        "log loss",
        *([area] if labelled else []),
        f"calibration error{of_what}",
    ]
    rows = []
    for score in report.scores:
        numbers = [score.log_loss, *([score.auc] if score.auc is not None else []), score.calibration_error]
        rows.append([str(score.step), str(len(report.published)), score.contender, *(_cell(each) for each in numbers)])
    return headings, rows


def _cell(estimate: Estimate) -> str:
    if estimate.interval is None or math.isnan(estimate.value):
        return _short(estimate.value)
    return f"{_short(estimate.value)} ({'-'.join(map(_short, estimate.interval))})"


def _short(number: float) -> str:
    return "-" if math.isnan(number) else f"{number:.3f}".removeprefix("0")


def print_report(console: Console, report: Report, sequences: Sequences) -> None:
    """The table, whether the forecast drifts, and what early decisions can be promised."""
    console.print(summary(report, sequences), soft_wrap=True)
    headings, rows = table_of(report)
    table = Table()
    for heading in headings:
        table.add_column(heading, justify="left" if heading == "forecast" else "right")
    for before, row in zip([None, *rows], rows, strict=False):
        again = before is not None and before[0] == row[0]
        table.add_row(*(["", ""] if again else row[:2]), *row[2:])
    console.print(table)
    for line in [drift_line(report), *decision_lines(report)]:
        console.print(line, soft_wrap=True)


def decision_lines(report: Report) -> list[str]:
    """What early decisions would be, a line for each promise."""
    if report.published.shape[2] > 1 and not report.classes:
        return []
    last, lines = report.published.shape[1], []
    for error in MAX_ERRORS:
        threshold = promised_threshold(report.decisions, error)
        if threshold is None:
            least = smallest_promise(report.decisions)
            possible = "no error can be promised" if least is None else f"{least} can be promised"
            lines.append(f"decide.max_error = {error}: refused, {possible}")
            continue
        each = decision_scores(report.published, report.targets, threshold)
        lines.append(
            f"decide.max_error = {error}: from a probability of {threshold:.6g} on; {each.early:.0%} decided early, on "
            f"average at step {each.mean_step:.1f}; step {last} took back {each.taken_back:.1%} of these; "
            f"{each.right:.1%} right against {report.against}"
        )
    return lines


def drift_line(report: Report) -> str:
    """A forecast that can be trusted has neither a mean increment nor a slope."""
    mean, slope = report.drift
    return f"mean increment of the forecast a step {mean:+.4f}, its slope on the forecast before {slope:+.3f}"


def write_report(folder: Path, model: Path, report: Report, sequences: Sequences) -> list[Path]:
    """calibration.md, calibration.png and calibration.svg. Raises ConfigError where they cannot be written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        recordings = len(set(sequences.recordings))
        pictures = draw_report(
            folder,
            title=f"{model.name}: {len(sequences)} sequences of {recordings} recording{'s' * (recordings > 1)}",
            scores=report.scores,
            base_rate=report.base_rate,
            own=report.own,
            published=report.published,
            targets=report.targets,
            recordings=sequences.recordings,
            first=report.first,
            classes=report.classes,
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
