"""`lstm-worker train`: the reference model on a CSV file, with its calibration."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import numpy.typing as npt
import typer
from rich.console import Console

from worker.cli.calibration_report import print_report, scored
from worker.cli.progress import progress
from worker.core.types import Float32Array
from worker.errors import ConfigError
from worker.model.calibration import Calibration, side_car_path
from worker.model.calibration_fit import (
    SEQUENCES_MIN,
    CrossFit,
    fit_calibration,
    forecasts_of,
    partial_logits,
    states_by_step,
)
from worker.model.datasets import Recording, Sequences, is_positive, of_split, read_recordings, sequences_of
from worker.model.folds import FOLDS, folds_of
from worker.model.load import load_program
from worker.model.training import train_reference


def register(app: typer.Typer) -> None:
    """Add the command to the program."""
    app.command("train")(train)


def train(
    data: Annotated[Path, typer.Option(help="CSV (recording, label, features; split, step) or npz (x, y).")],
    output: Annotated[Path, typer.Option(help="The model to write, .keras; its calibration goes beside it.")],
    positive: Annotated[str, typer.Option(help="The label that means 1; all others mean 0.")] = "1",
    label: Annotated[str, typer.Option(help="The label's column. Default: `label`, or the only text column.")] = "",
    features: Annotated[str, typer.Option(help="Feature columns in order, with commas. Default: all others.")] = "",
    timesteps: Annotated[int, typer.Option(min=0, help="Cut recordings into sequences of it. 0: whole ones.")] = 0,
    epochs: Annotated[int, typer.Option(min=1)] = 60,
    batch_size: Annotated[int, typer.Option(min=1)] = 10,
    seed: Annotated[int, typer.Option(min=0)] = 1,
    cross_fit: Annotated[bool, typer.Option(help=f"Train {FOLDS} more models to calibrate on unseen data.")] = True,
) -> None:
    """Train the reference model on the train split and print its accuracy on the test split.

    The calibration is fitted on logits of recordings that a model has not seen: the training is repeated with a fifth
    of the recordings left out, five times. `--no-cross-fit` takes the training recordings as they are; it is six times
    faster and surer than it should be early in a sequence.
    """
    console = Console(markup=False)
    if output.suffix != ".keras":
        raise ConfigError(f"{output} does not end in .keras", "name the model so, Keras asks for it")
    if not output.parent.is_dir():
        raise ConfigError(f"{output.parent} is no directory", "create it first")
    recordings = read_recordings(data, [name.strip() for name in features.split(",") if name.strip()], label)
    split_given = any(recording.split for recording in recordings)
    train_recordings = of_split(recordings, "train") if split_given else recordings
    length = timesteps or _common_length(train_recordings)
    sequences = sequences_of(train_recordings, length)
    labels = is_positive(sequences.labels, positive)
    test_recordings = [recording for recording in recordings if recording.split == "test"]
    test_sequences = sequences_of(test_recordings, length)
    if len(test_sequences):
        is_positive(test_sequences.labels, positive)  # told before the training, not after it
    if len(sequences) < SEQUENCES_MIN:
        raise ConfigError(f"{len(sequences)} training sequences are too few", f"give at least {SEQUENCES_MIN}")

    calibration = _train(console, sequences, labels, output, _Plan(epochs, batch_size, seed, cross_fit, data.name))
    calibration.save(side_car_path(output))

    console.print(f"accuracy on {len(sequences)} training sequences: {_accuracy(output, sequences, labels)}")
    if len(test_sequences):
        _report_test(console, output, calibration, test_sequences, positive)
    console.print(f"written: {output} and {side_car_path(output)} (calibration {calibration.id})", soft_wrap=True)


@dataclass(frozen=True, slots=True)
class _Plan:
    """How to train."""

    epochs: int
    batch_size: int
    seed: int
    cross_fit: bool
    data_name: str


def _train(
    console: Console, sequences: Sequences, labels: npt.NDArray[np.bool_], output: Path, plan: _Plan
) -> Calibration:
    """Train and save the model, and fit its calibration."""
    count = len(set(sequences.recordings))
    with progress(console, "training", plan.epochs * (1 + FOLDS * plan.cross_fit)) as advance:
        _train_one(sequences.features, labels, output, plan, advance)
        program = load_program(output)
        if not plan.cross_fit:
            logits, states = partial_logits(program, sequences.features), states_by_step(program, sequences.features)
            method = f"{count} training recordings of {plan.data_name}"
            # Of training recordings forecasts are too sure, so no early decision is promised on them.
            return fit_calibration(program, logits, sequences.recordings, method, states=states, promises=False)[0]
        logits = np.empty((*sequences.features.shape[:2], program.outputs), np.float32)
        folds = folds_of(labels[:, None].astype(np.float32), sequences.recordings).of_sequence
        with tempfile.TemporaryDirectory() as directory:
            for fold in range(int(folds.max()) + 1):
                path = Path(directory, f"without-{fold}.keras")
                left_out = folds == fold
                _train_one(sequences.features[~left_out], labels[~left_out], path, plan, advance)
                logits[left_out] = partial_logits(load_program(path), sequences.features[left_out])
    method = f"{count} training recordings of {plan.data_name}, each stepped by a model trained without it"
    # The models' logits mean the same, their states do not.
    return fit_calibration(program, logits, sequences.recordings, method)[0]


def _train_one(
    features: Float32Array, labels: npt.NDArray[np.bool_], path: Path, plan: _Plan, advance: Callable[[int], None]
) -> None:
    train_reference(
        features, labels, path, epochs=plan.epochs, batch_size=plan.batch_size, seed=plan.seed, on_epoch=advance
    )


def _common_length(recordings: list[Recording]) -> int:
    """Samples per recording. Raises ConfigError where they differ."""
    lengths = sorted({len(recording.features) for recording in recordings})
    if len(lengths) > 1:
        raise ConfigError(
            f"recordings have from {lengths[0]} to {lengths[-1]} samples", "cut them into sequences with --timesteps"
        )
    return lengths[0]


def _accuracy(model: Path, sequences: Sequences, labels: npt.NDArray[np.bool_]) -> str:
    """`n of N` sequences whose last number is on the right side of one half, as a worker would publish it."""
    program = load_program(model)
    final = program.outputs_of(partial_logits(program, sequences.features)[:, -1])[:, 0]
    return f"{int(((final > 0.5) == labels).sum())} of {len(sequences)}"


def _report_test(console: Console, model: Path, calibration: Calibration, sequences: Sequences, positive: str) -> None:
    """Print accuracy and the scores before the last step on sequences that nothing was fitted on."""
    labels = is_positive(sequences.labels, positive)
    console.print(f"accuracy on {len(sequences)} test sequences: {_accuracy(model, sequences, labels)}")
    program = load_program(model)
    logits = partial_logits(program, sequences.features)
    forecasts = forecasts_of(program, calibration, sequences.features)
    print_report(
        console,
        scored(
            program,
            sequences,
            logits,
            labels[:, None],
            CrossFit(forecasts, np.zeros(len(sequences), np.int64), by_recording=True),
            calibration.decisions,
            with_platt=False,
        ),
        sequences,
    )
