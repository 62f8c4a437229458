"""`lstm-worker calibrate`: fit the probability before the last step on complete sequences of a model's data."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
import numpy.typing as npt
import typer
from rich.console import Console

from worker.cli.calibration_pictures import check_drawable
from worker.cli.calibration_report import SCORING_PARTS, Report, print_report, scored, write_report
from worker.cli.options import BootstrapOption, ConfigOption, SetOption, settings_from
from worker.cli.progress import progress
from worker.cli.topic_sequences import read_topic
from worker.errors import ConfigError
from worker.model.calibration import Calibration, Program, check_replaceable, side_car_path
from worker.model.calibration_fit import (
    check_calibratable,
    check_logits,
    fit_calibration,
    partial_logits,
    states_by_step,
)
from worker.model.datasets import Recording, Sequences, is_class, is_positive, of_split, read_recordings, sequences_of
from worker.model.load import check_timesteps, load_program

TOPIC = "topic:"
"""Before the name of an input topic, in place of a file."""


def register(app: typer.Typer) -> None:
    """Add the command to the program."""
    app.command("calibrate")(calibrate)


def calibrate(
    model: Annotated[Path, typer.Argument(help="The trained model: .keras, .h5 or .safetensors.")],
    data: Annotated[
        str,
        typer.Argument(help="CSV (recording, features; split, step, label), npz (x, y), or topic:INPUT."),
    ],
    split: Annotated[
        str | None, typer.Option(help="Which split of the data. Default: test, where they have splits.")
    ] = None,
    output: Annotated[Path | None, typer.Option(help="The side-car. Default: beside the model.")] = None,
    save: Annotated[bool, typer.Option(help="Write the side-car, which `run` serves with; or only score.")] = True,
    positive: Annotated[str, typer.Option(help="The label that means 1: scores against the labels.")] = "",
    classes: Annotated[
        str, typer.Option(help="Of a softmax: the labels of its outputs in order, with commas, to score against.")
    ] = "",
    report: Annotated[Path | None, typer.Option(help="Folder for the scores as a table and pictures.")] = None,
    label: Annotated[str, typer.Option(help="The label's column. Default: `label`, or the only text column.")] = "",
    features: Annotated[str, typer.Option(help="Feature columns in order, with commas. Default: all others.")] = "",
    timesteps: Annotated[
        int | None, typer.Option(min=2, help="Steps of a sequence, where the file does not fix them.")
    ] = None,
    architecture: Annotated[
        Path | None, typer.Option(help="JSON of the architecture, for a file that holds only weights.")
    ] = None,
    config: ConfigOption = None,
    overrides: SetOption = None,
    bootstrap_servers: BootstrapOption = None,
) -> None:
    """Fit what the model is expected to say at its last step, given the steps so far.

    No labels are needed. Use recordings that the model was not trained on: on its own training recordings it is surer
    than it will be later, and a calibration on them is too.
    """
    console = Console(markup=False)
    program = load_program(model, timesteps=timesteps, architecture=architecture)
    check_timesteps(program, timesteps, model)
    length = check_calibratable(program, str(model))
    destination = output or side_car_path(model)
    if save:
        check_replaceable(destination, program, model, named=output is not None)
    if report is not None:
        check_drawable()
    if data.startswith(TOPIC):
        settings = settings_from(config, overrides, bootstrap_servers)
        sequences = read_topic(console, settings, data.removeprefix(TOPIC), program, length)
    else:
        recordings = read_recordings(Path(data), _listed(features), label)
        if split is not None or any(recording.split for recording in recordings):
            recordings = of_split(recordings, "test" if split is None else split)
        sequences = complete_sequences(program, recordings, length)
    labels = _labels(program, sequences, positive, _listed(classes))
    calibration, scores = _fitted(console, program, sequences, labels, Path(data).name)
    print_report(console, scores, sequences)
    if report is not None:
        for path in write_report(report, model, scores, sequences):
            console.print(f"written: {path}", soft_wrap=True)
    if save:
        _save(console, calibration, destination, program, needs_length=timesteps is not None)


def _fitted(
    console: Console, program: Program, sequences: Sequences, labels: npt.NDArray[np.bool_] | None, data_name: str
) -> tuple[Calibration, Report]:
    """The calibration, and its scores on sequences forecast without themselves."""
    timesteps = sequences.features.shape[1]
    with progress(console, "stepping", len(sequences) * timesteps) as advance:
        logits = partial_logits(program, sequences.features, advance)
    check_logits(logits, sequences.recordings)
    method = f"{len(set(sequences.recordings))} recordings of {data_name}"
    with progress(console, "fitting", timesteps - 1) as advance:
        states = states_by_step(program, sequences.features)
        calibration, cross_fit = fit_calibration(
            program, logits, sequences.recordings, method, states=states, on_progress=advance
        )
    with progress(console, "scoring", SCORING_PARTS) as advance:
        scores = scored(
            program,
            sequences,
            logits,
            labels,
            cross_fit,
            calibration.decisions,
            with_platt=True,
            on_progress=advance,
        )
    return calibration, scores


def _save(
    console: Console, calibration: Calibration, destination: Path, program: Program, *, needs_length: bool
) -> None:
    """Write the side-car, and say what `run` does with it."""
    calibration.save(destination)
    lines = [f"calibration {calibration.id} of {calibration.method}: written to {destination}"]
    if needs_length:
        lines.append(f"`run` serves with it where sequence.length = {calibration.timesteps}")
    if program.exactness == "prefix":
        lines.append(
            f"`run` publishes it before step {calibration.timesteps} in place of the model's own numbers, with "
            f"exact = false; remove {destination} to publish those"
        )
    for line in lines:
        console.print(line, soft_wrap=True)


def _listed(names: str) -> list[str]:
    return [name.strip() for name in names.split(",") if name.strip()]


def _labels(
    program: Program, sequences: Sequences, positive: str, classes: Sequence[str]
) -> npt.NDArray[np.bool_] | None:
    """Labels (N, K) to score against, None without options. Raises ConfigError where they do not fit the model."""
    outputs, is_softmax = program.outputs, program.activation == "softmax"
    if not positive and not classes:
        return None
    if outputs > 1 and not is_softmax:
        raise ConfigError(
            f"{outputs} outputs that are not classes cannot be scored on labels",
            "leave --positive and --classes out to score against the model's last step",
        )
    if positive and (outputs > 1 or classes):
        way_out = "name the labels of its outputs by --classes" if is_softmax else "leave --classes out"
        raise ConfigError(f"--positive is for a model of one output, without --classes; this has {outputs}", way_out)
    if positive:
        return is_positive(sequences.labels, positive)[:, None]
    if not is_softmax or len(set(classes)) != outputs or len(classes) != outputs:
        way_out = "name the label of each output in order" if is_softmax else "name the label of 1 by --positive"
        raise ConfigError(
            f"--classes names {len(set(classes))}, the model ends in {program.activation} of {outputs}", way_out
        )
    return is_class(sequences.labels, classes)


def complete_sequences(program: Program, recordings: Sequence[Recording], timesteps: int) -> Sequences:
    """Sequences of T samples that fit the model. Raises ConfigError where features differ or none is long enough."""
    found = recordings[0].features.shape[1]
    if found != program.features:
        raise ConfigError(
            f"the data have {found} features, the model takes {program.features}",
            "name the columns of a CSV with --features, or give the model's data",
        )
    sequences = sequences_of(recordings, timesteps)
    if not len(sequences):
        raise ConfigError(f"no recording has the model's {timesteps} samples", "give longer recordings")
    return sequences
