"""`lstm-worker check`: what the worker makes of a trained file, and whether its numbers are the model's."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.console import Console
from rich.table import Table

from worker.bench.step_cost import WAVES, step_microseconds
from worker.core.types import BoolArray, Float32Array
from worker.errors import ConfigError, ModelNotStreamable
from worker.model.calibration import side_car_path
from worker.model.contract import drawn_samples
from worker.model.engines import stepper_for, verify_engine
from worker.model.files.reading import open_model_file
from worker.model.load import check_timesteps, load_program
from worker.model.npz import read_npz
from worker.model.precision import TOLERANCES, note
from worker.model.program import StepProgram
from worker.model.published import published, stepped, with_readout
from worker.model.readout import Readout
from worker.model.training import KERAS_2, KERAS_3
from worker.ports import Stepper

SEQUENCES = 16
TIMESTEPS = 12
"""Of the comparison with Keras where neither the file nor the user fixes them."""
KERAS_TOLERANCE = 1e-5
"""Of a probability by Keras in float32. It computes in that itself, in an order that depends on the machine."""
KERAS_SECONDS_MAX = 300


def register(app: typer.Typer) -> None:
    """Add the command to the program."""
    app.command("check")(check)


def check(
    model: Annotated[Path, typer.Argument(help="The trained model: .keras, .h5 or .safetensors.")],
    timesteps: Annotated[
        int | None, typer.Option(min=1, help="Steps of a sequence, where the file does not fix them.")
    ] = None,
    architecture: Annotated[
        Path | None, typer.Option(help="JSON of the architecture, for a file that holds only weights.")
    ] = None,
    inputs: Annotated[
        Path | None, typer.Option(help="npz with x, float32 (N, T, F): sequences to step; needs --outputs.")
    ] = None,
    outputs: Annotated[
        Path | None, typer.Option(help="npz to write: outputs (N, T, K), NaN where there is none, and exact (T,).")
    ] = None,
    mode: Annotated[
        str, typer.Option(help="step | buffer: keep the samples and run the whole model by Keras.")
    ] = "step",
    keras: Annotated[bool, typer.Option(help="Compare with Keras' own predictions of the file.")] = True,
) -> None:
    """Print the plan of a model, verify it, and compare it with Keras. Exits with 2 if it cannot be served."""
    if (inputs is None) != (outputs is None):
        raise ConfigError("one of --inputs and --outputs is missing", "give both, or none")
    if inputs is not None and outputs is not None and inputs.exists() and outputs.exists() and inputs.samefile(outputs):
        raise ConfigError(f"--inputs and --outputs are the same file, {inputs}", "name another for --outputs")
    console = Console(markup=False, highlight=False)
    if mode not in ("step", "buffer"):
        raise ConfigError(f"--mode {mode}", "step or buffer")
    program = load_program(model, timesteps=timesteps, architecture=architecture, mode=mode)
    check_timesteps(program, timesteps, model)
    samples = None if inputs is None else _read_inputs(inputs, program)
    _print_plan(console, program)
    if mode == "step" and (precision := note(program.keras_precision)):
        console.print(precision, soft_wrap=True)
    stepper = stepper_for(program)
    verification = verify_engine(program, stepper)
    other = "a float64 evaluation" if mode == "step" else "the same model on whole sequences"
    console.print(
        f"verified: {verification.sequences} sequences of {verification.timesteps} steps, largest difference from "
        f"{other} {verification.largest_difference:.1e}",
        soft_wrap=True,
    )
    # The last step is the dearest where every sample runs the model on all samples so far.
    step = 2 if mode == "step" else program.timesteps or 2
    costs = ", ".join(f"{step_microseconds(program, stepper, wave, step):.2f} µs at {wave}" for wave in WAVES)
    what = "one step of one stream" if mode == "step" else "one run of the whole model for one stream"
    console.print(f"{what}, by streams per call: {costs}", soft_wrap=True)
    if keras:
        with open_model_file(model, architecture) as file:
            keras_major = file.keras_major
        _compare_with_keras(console, model, architecture, program, stepper, keras_major)
    served, readout = _readout(console, model, program)
    if samples is not None and outputs is not None:
        if readout is None:
            answers, exact = own_numbers(program, stepper, samples)
        else:
            answers, exact = published(served, stepper_for(served), readout, samples)
        try:
            with outputs.open("wb") as file:
                np.savez_compressed(file, outputs=answers, exact=exact)
        except OSError as error:
            raise ConfigError(f"--outputs {outputs} cannot be written: {error.strerror}", "name another") from error
        console.print(f"written: {outputs}", soft_wrap=True)


def _print_plan(console: Console, program: StepProgram) -> None:
    table = Table("layer", "class", "output", "state floats", "exact", title=program.name)
    for row in program.plan:
        table.add_row(row.layer, row.class_name, row.kind, str(row.state_floats), row.exact)
    console.print(table)
    steps = program.timesteps or "any number of"
    told = len(program.inputs) > 1 or program.inputs[0].shape is not None
    for number, each in enumerate(program.inputs if told else (), 1):
        what = "the newest sample's" if each.is_static else "a sequence"
        if each.shape is not None:
            grid = " x ".join(map(str, each.shape))
            what += f" of ids from 0 to {each.ids - 1}" if each.ids else f" of {grid} numbers in C order"
        last = each.first + each.width
        console.print(f"input {number}, {each.name!r}: features {each.first + 1} to {last}, {what}", soft_wrap=True)
    console.print(
        f"input: {steps} timesteps of {program.features} features; output: "
        + " + ".join(f"{width} {activation}" for activation, width in program.heads)
        + f", {_exact_when(program)}",
        soft_wrap=True,
    )
    console.print(f"state: {program.state_size} floats, {program.state_size * 4} bytes a stream")
    if not program.is_probability:
        console.print(
            "the head gives no probability: `lstm-worker run` serves models that end in sigmoid or softmax",
            soft_wrap=True,
        )
    console.print(f"fingerprint: {program.fingerprint}", soft_wrap=True)


def _exact_when(program: StepProgram) -> str:
    if program.exactness == "end":
        return f"exact at step {program.timesteps} only"
    return "exact at every step" if program.exact_from == 1 else f"exact from step {program.exact_from} on"


def _readout(console: Console, model: Path, program: StepProgram) -> tuple[StepProgram, Readout | None]:
    """The program that `run` steps and by what it publishes; None where it publishes nothing, for want of a
    probability. Raises ConfigError."""
    if not program.is_probability:
        return program, None
    side_car = side_car_path(model)
    if program.timesteps is None and side_car.exists():
        raise ConfigError(
            f"{side_car} calibrates sequences of one length, which {model} does not fix", "give it with --timesteps"
        )
    program, readout = with_readout(program, model)
    if readout.calibration_id is not None:
        console.print(f"calibration: {side_car}, {readout.calibration_id}", soft_wrap=True)
    console.print(f"published: {readout.describe()}", soft_wrap=True)
    return program, readout


def own_numbers(program: StepProgram, stepper: Stepper, samples: Float32Array) -> tuple[Float32Array, BoolArray]:
    """The model's own outputs of sequences (N, T, F), whatever its head and calibration.

    Outputs (N, T, K), NaN where it has none yet, and at which steps (T,) it has some.
    """
    sequences, timesteps, _ = samples.shape
    logits, _ = stepped(program, stepper, samples)
    answers = (
        program.outputs_of(logits[:, : program.outputs]).reshape(timesteps, sequences, -1).transpose(1, 0, 2).copy()
    )
    numbers = np.arange(1, timesteps + 1)
    exact = numbers == program.timesteps if program.exactness == "end" else numbers >= program.exact_from
    answers[:, ~exact] = np.nan
    return answers, exact


def _read_inputs(path: Path, program: StepProgram) -> Float32Array:
    samples = read_npz(path).samples
    if samples.shape[2] != program.features:
        raise ConfigError(
            f"{path}: x has the shape {samples.shape}", f"give (sequences, timesteps, {program.features})"
        )
    if program.timesteps is not None and samples.shape[1] > program.timesteps:
        raise ConfigError(
            f"{path}: sequences of {samples.shape[1]} steps",
            f"the model's have {program.timesteps}, or fewer: a worker would begin a new one there",
        )
    return samples


def _compare_with_keras(
    console: Console, model: Path, architecture: Path | None, program: StepProgram, stepper: Stepper, keras_major: int
) -> None:
    """Print the largest difference from `model.predict`, or why Keras has none. Raises ModelNotStreamable."""
    timesteps = program.timesteps or TIMESTEPS
    samples = drawn_samples(program, SEQUENCES, timesteps, np.random.default_rng(2))
    for each in program.inputs:
        if each.is_static:  # Keras is given them once
            samples[:, :, each.columns] = samples[:, -1:, each.columns]
    generation, predictions = _predicted_by_generation(model, architecture, samples, keras_major)
    if isinstance(predictions, str):
        console.print(f"not compared with Keras: {predictions}", soft_wrap=True)
        return
    answers, _ = own_numbers(program, stepper, samples)
    predicted: BoolArray = np.asarray(~np.isnan(predictions).all(axis=0), np.bool_)
    predicted[-1] = True
    found, wanted = answers[:, predicted], predictions[:, predicted]
    difference = float(np.abs((found - wanted) / np.maximum(1, np.abs(wanted))).max())
    per_step = " at every step" if predicted[:-1].any() else ""
    console.print(
        f"largest difference from {generation}'s model.predict{per_step}, {SEQUENCES} sequences: {difference:.1e}",
        soft_wrap=True,
    )
    allowed = TOLERANCES.get(program.keras_precision, KERAS_TOLERANCE)
    if not difference <= allowed:
        raise ModelNotStreamable(
            f"{model} differs from {generation} by {difference:.1e}, {allowed:.0e} are allowed",
            "do not serve it; report this output and the model's configuration",
        )


def _predicted_by_generation(
    model: Path, architecture: Path | None, samples: Float32Array, keras_major: int
) -> tuple[str, Float32Array | str]:
    """Which Keras, and its predictions (N, T, K) or one line on why there are none: that which wrote the file first."""
    reason = ""
    if is_older := keras_major < 3 and find_spec(KERAS_2) is not None:
        predictions = _predicted_by_keras(model, architecture, samples, KERAS_2)
        if not isinstance(predictions, str):
            return "Keras 2", predictions
        reason = f"Keras 2: {predictions}"
    predictions = _predicted_by_keras(model, architecture, samples, KERAS_3)
    if isinstance(predictions, str):
        if keras_major < 3 and not is_older:
            found = f"Keras {version(KERAS_3)} cannot load the file ({predictions})"
            return "", f"{found}; pip install tf-keras compares it with Keras 2"
        return "", reason or predictions
    return "Keras 3", predictions


def _predicted_by_keras(
    model: Path, architecture: Path | None, samples: Float32Array, package: str
) -> Float32Array | str:
    """Keras' predictions (N, T, K), or one line on why it has none; in a process that takes TensorFlow away again."""
    with tempfile.TemporaryDirectory() as folder:
        given, answered = Path(folder, "samples.npy"), Path(folder, "predictions.npy")
        np.save(given, samples)
        command = [sys.executable, "-m", "worker.model.training", str(model), str(given), str(answered), package]
        command += [] if architecture is None else [str(architecture)]
        environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, errors="replace", env=environment, timeout=KERAS_SECONDS_MAX
            )
        except subprocess.TimeoutExpired:
            return f"it took more than {KERAS_SECONDS_MAX} s"
        if done.returncode == 0:
            return np.asarray(np.load(answered), np.float32)
    return _raised(done.stderr) or f"its process ended with {done.returncode}"


def _raised(written: str) -> str:
    """The error of the last traceback, its first line; nothing where there is none."""
    _, found, traceback = written.rpartition("Traceback (most recent call last):\n")
    lines = [line for line in traceback.splitlines() if found and line.strip()]
    error = next((line for line in lines if line[:1].strip()), "")
    if error.endswith("in user code:"):  # TensorFlow puts the traceback of what it traced before the error
        error = lines[-1].strip()
    return re.sub(r"^worker\.errors\.\w+: ", "", error)[:300]
