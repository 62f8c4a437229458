"""`lstm-worker calibrate`: fit the probability before the last step on complete sequences of a model's data."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
import numpy.typing as npt
import typer
from rich.console import Console
from rich.table import Table

from worker.cli.progress import progress
from worker.core.types import Float32Array
from worker.errors import ConfigError
from worker.model.calibration import Program, area_under_curve, log_loss, side_car_path
from worker.model.calibration_fit import (
    FOLDS,
    check_calibratable,
    cross_fitted_forecasts,
    fit_calibration,
    partial_logits,
)
from worker.model.datasets import Recording, Sequences, is_positive, of_split, read_csv, sequences_of
from worker.model.load import load_program

STEPS_SHOWN = (1, 5, 10, 25, 50, 75)
"""Steps of the printed table; the last one is added."""

SHORT_SEQUENCE = 10
"""Up to this length every step is shown."""


def register(app: typer.Typer) -> None:
    """Add the command to the program."""
    app.command("calibrate")(calibrate)


def calibrate(
    model: Annotated[Path, typer.Argument(help="The trained model, .keras or .h5.")],
    data: Annotated[Path, typer.Argument(help="CSV: recording and features; optional split, step, label.")],
    split: Annotated[str, typer.Option(help="Which split of the data, where they have one.")] = "train",
    output: Annotated[Path | None, typer.Option(help="The side-car. Default: beside the model.")] = None,
    positive: Annotated[str, typer.Option(help="The label that means 1: adds scores against the labels.")] = "",
    label: Annotated[str, typer.Option(help="The label's column. Default: `label`, or the only text column.")] = "",
    features: Annotated[str, typer.Option(help="Feature columns in order, with commas. Default: all others.")] = "",
) -> None:
    """Fit what the model is expected to say at its last step, given the steps so far.

    No labels are needed. Use recordings that the model was not trained on: on its own training recordings it is surer
    than it will be later, and a calibration on them is too.
    """
    console = Console(markup=False)
    program = load_program(model)
    timesteps = check_calibratable(program, str(model))
    recordings = read_csv(data, [name.strip() for name in features.split(",") if name.strip()], label)
    if any(recording.split for recording in recordings):
        recordings = of_split(recordings, split)
    sequences = complete_sequences(program, recordings, timesteps)
    labels = is_positive(sequences.labels, positive) if positive else None
    with progress(console, "stepping", len(sequences) * timesteps) as advance:
        logits = partial_logits(program, sequences.features, advance)
    method = f"{len(set(sequences.recordings))} recordings of {data.name}"
    calibration = fit_calibration(program, logits, method)
    forecasts = cross_fitted_forecasts(logits, program.activation, sequences.recordings)
    title = f"{len(sequences)} sequences, each forecast by a calibration fitted without its recording ({FOLDS} folds)"
    print_scores(console, program, title, logits, forecasts, labels)
    destination = output or side_car_path(model)
    calibration.save(destination)
    console.print(f"calibration {calibration.id} of {method}: written to {destination}", soft_wrap=True)


def complete_sequences(program: Program, recordings: Sequence[Recording], timesteps: int) -> Sequences:
    """Sequences of T samples that fit the model. Raises ConfigError where features differ or none is long enough."""
    found = recordings[0].features.shape[1]
    if found != program.features:
        raise ConfigError(
            f"the data have {found} feature columns, the model takes {program.features}", "name them with --features"
        )
    sequences = sequences_of(recordings, timesteps)
    if not len(sequences):
        raise ConfigError(f"no recording has the model's {timesteps} samples", "give longer recordings")
    return sequences


def print_scores(
    console: Console,
    program: Program,
    title: str,
    logits: Float32Array,
    forecasts: Float32Array,
    labels: npt.NDArray[np.bool_] | None,
) -> None:
    """Table of the naive partial sum and the forecast, step by step.

    logits (N, T, K), forecasts (N, T - 1, K). labels (N,) score a model with one output; without them both are scored
    against the model's own number at step T.
    """
    timesteps = logits.shape[1]
    final = program.outputs_of(logits[:, -1])
    scored = labels is not None and logits.shape[2] == 1
    targets = labels[:, None].astype(np.float32) if labels is not None and scored else final
    against = "labels" if scored else f"the model at step {timesteps}"
    base_rate = log_loss(np.broadcast_to(targets.mean(axis=0), targets.shape), targets)
    console.print(f"log loss against {against} (the base rate alone: {base_rate:.3f}); {title}", soft_wrap=True)
    table = Table()
    for heading in ("step", "partial sum", "calibrated", *(["AUC"] if scored else [])):
        table.add_column(heading, justify="right")
    early = STEPS_SHOWN if timesteps > SHORT_SEQUENCE else range(1, timesteps)
    for step in [step for step in early if step < timesteps] + [timesteps]:
        naive = program.outputs_of(logits[:, step - 1])
        shown = final if step == timesteps else forecasts[:, step - 1]
        row = [str(step), f"{log_loss(naive, targets):.3f}", f"{log_loss(shown, targets):.3f}"]
        if scored:
            row.append(f"{area_under_curve(shown[:, 0], targets[:, 0]):.3f}")
        table.add_row(*row)
    console.print(table)
