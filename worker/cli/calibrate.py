"""`lstm-worker calibrate`: fit the probability before the last step on complete sequences of a model's data."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from worker.cli.calibration_report import print_report, scored, write_report
from worker.cli.options import BootstrapOption, ConfigOption, SetOption, settings_from
from worker.cli.progress import progress
from worker.cli.topic_sequences import read_topic
from worker.errors import ConfigError
from worker.model.calibration import Program, side_car_path
from worker.model.calibration_fit import (
    check_calibratable,
    fit_calibration,
    partial_logits,
)
from worker.model.datasets import Recording, Sequences, is_positive, of_split, read_recordings, sequences_of
from worker.model.load import load_program

TOPIC = "topic:"
"""Before the name of an input topic, in place of a file."""


def register(app: typer.Typer) -> None:
    """Add the command to the program."""
    app.command("calibrate")(calibrate)


def calibrate(
    model: Annotated[Path, typer.Argument(help="The trained model, .keras or .h5.")],
    data: Annotated[
        str,
        typer.Argument(help="CSV (recording, features; split, step, label), npz (x, y), or topic:INPUT."),
    ],
    split: Annotated[str, typer.Option(help="Which split of the data, where they have one.")] = "train",
    output: Annotated[Path | None, typer.Option(help="The side-car. Default: beside the model.")] = None,
    positive: Annotated[str, typer.Option(help="The label that means 1: adds scores against the labels.")] = "",
    report: Annotated[Path | None, typer.Option(help="Folder for the scores as a table and pictures.")] = None,
    label: Annotated[str, typer.Option(help="The label's column. Default: `label`, or the only text column.")] = "",
    features: Annotated[str, typer.Option(help="Feature columns in order, with commas. Default: all others.")] = "",
    config: ConfigOption = None,
    overrides: SetOption = None,
    bootstrap_servers: BootstrapOption = None,
) -> None:
    """Fit what the model is expected to say at its last step, given the steps so far.

    No labels are needed. Use recordings that the model was not trained on: on its own training recordings it is surer
    than it will be later, and a calibration on them is too.
    """
    console = Console(markup=False)
    program = load_program(model)
    timesteps = check_calibratable(program, str(model))
    if data.startswith(TOPIC):
        settings = settings_from(config, overrides, bootstrap_servers)
        sequences = read_topic(console, settings, data.removeprefix(TOPIC), program, timesteps)
    else:
        recordings = read_recordings(Path(data), [name.strip() for name in features.split(",") if name.strip()], label)
        if any(recording.split for recording in recordings):
            recordings = of_split(recordings, split)
        sequences = complete_sequences(program, recordings, timesteps)
    labels = is_positive(sequences.labels, positive) if positive else None
    with progress(console, "stepping", len(sequences) * timesteps) as advance:
        logits = partial_logits(program, sequences.features, advance)
    method = f"{len(set(sequences.recordings))} recordings of {Path(data).name}"
    calibration = fit_calibration(program, logits, method)
    scores = scored(program, sequences, logits, labels)
    print_report(console, scores, sequences)
    if report is not None:
        for path in write_report(report, model, scores, sequences):
            console.print(f"written: {path}", soft_wrap=True)
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
