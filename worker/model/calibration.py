"""The probability before the last step: what the model is expected to say there.

A Flatten → Dense head sums one part per step. The sum so far is exact as a sum, but read as a probability it says "the
missing parts are 0", which is no forecast: it starts at one half whatever the base rate is, and can even rank sequences
the wrong way round. A head on the last state is defined at every step, but was trained at step T only: before it it is
often far too sure. What is published in place of either is p_t = E[p_T | logit so far], the number that the model is
expected to give at its last step T:

    p_t = sigmoid(intercept_t + slope_t * log-odds of the logit so far)

two numbers a step, fitted by `calibration_fit` on complete sequences. Step T is the model's own and has no entry here.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from worker.core.types import Float32Array, Float64Array, Int32Array, Int64Array
from worker.errors import ConfigError
from worker.model.early_decisions import ERRORS, DecisionCounts

FORMAT = 2
FILE_BYTES_MAX = 64 * 1024 * 1024
"""Far above any real side-car (80 bytes a step and output); stops a wrong path from being read into memory."""

CALIBRATED_ACTIVATIONS = ("sigmoid", "softmax")
"""Heads with log-odds."""

MODEL_SUFFIXES = (".keras", ".h5", ".hdf5", ".safetensors")

_ARRAYS = ("intercepts", "slopes", "lowest", "highest")
_COUNTS = {"decided_early": (int,), "taken_back": (int, float)}


class Program(Protocol):
    """What calibration and readout need of a step program."""

    @property
    def features(self) -> int:
        """F, features per sample."""

    @property
    def timesteps(self) -> int | None:
        """T, the length of a complete sequence; None where the model takes any."""

    @property
    def outputs(self) -> int:
        """K, numbers per step."""

    @property
    def state_size(self) -> int:
        """S, float32 values of one stream's state."""

    @property
    def fingerprint(self) -> str:
        """64 hex digits of configuration and weights."""

    @property
    def activation(self) -> str:
        """The head's activation."""

    @property
    def exact_from(self) -> int:
        """The first step at which a `prefix` program's output is exact."""

    @property
    def computed_from(self) -> int:
        """The first step whose logits say anything."""

    @property
    def exactness(self) -> str:
        """`prefix`: the model's output is defined at every step; `end`: only at step T."""

    @property
    def one_output_per_step(self) -> bool:
        """Whether the model was trained on an answer of each step's own, so that no step speaks of the last."""

    @property
    def is_probability(self) -> bool:
        """Whether the head's numbers are probabilities."""

    def step(self, features: Float32Array, state: Float32Array, steps: Int32Array) -> tuple[Float32Array, Float32Array]:
        """features (B, F), state (B, S), steps (B,) 1-based → logits (B, K), next state (B, S)."""

    def outputs_of(self, logits: Float32Array) -> Float32Array:
        """The head's activation: logits (B, K) → outputs (B, K)."""


@dataclass(frozen=True, slots=True, eq=False)
class Calibration:
    """Two numbers per step and output, bound to one model; arrays (T - 1, K) float64, row 0 is step 1.

    Log-odds outside `lowest`..`highest`, the range that the fit has seen at this step, are cut to it: a steep line
    fitted on early, nearly equal sums must not be extrapolated.
    """

    fingerprint: str
    timesteps: int
    outputs: int
    activation: str
    method: str
    """One line for a person: what it was fitted on."""
    sequences: int
    """Complete sequences it was fitted on."""
    intercepts: Float64Array
    slopes: Float64Array
    lowest: Float64Array
    highest: Float64Array
    decided_early: Int64Array
    taken_back: Float64Array
    """See `decisions`."""

    @property
    def decisions(self) -> DecisionCounts:
        """What early decisions did on recordings that were forecast without themselves."""
        return DecisionCounts(self.decided_early, self.taken_back)

    @property
    def id(self) -> str:
        """First 8 hex digits of the sha256 of the canonical content; published beside every probability."""
        return hashlib.sha256(_canonical(self).encode()).hexdigest()[:8]

    def table(self) -> Float32Array:
        """(T - 1, 4, K) float32: intercept, slope, lowest, highest; what `forecast` takes."""
        return np.stack([getattr(self, name) for name in _ARRAYS], axis=1).astype(np.float32)

    def save(self, path: Path) -> None:
        """Write the side-car. Raises ConfigError where the file cannot be written."""
        lines = [f" {json.dumps(name)}: {json.dumps(value)}" for name, value in _content(self).items()]
        try:
            path.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")
        except OSError as error:
            raise ConfigError(f"calibration {path} cannot be written: {error.strerror}", "name another file") from error


def forecast(table: Float32Array, activation: str, logits: Float32Array, steps: Int32Array) -> Float32Array:
    """E[p_T | logits] for rows before step T.

    table (T - 1, 4, K) of `Calibration.table`; logits (N, K); steps (N,) in 1..T - 1. Softmax heads: the classes'
    log-odds are calibrated one by one and the K probabilities scaled to sum to 1. NaN stays NaN.
    """
    rows = table.take(steps - 1, axis=0)
    odds = np.clip(log_odds(logits, activation), rows[:, 2], rows[:, 3])
    odds *= rows[:, 1]
    odds += rows[:, 0]
    # exp(80) is finite in float32; beyond it the probability is 0 or 1 in float32 anyway.
    probabilities: Float32Array = 1 / (1 + np.exp(-np.clip(odds, -80, 80)))
    if activation == "softmax":
        probabilities /= probabilities.sum(axis=1, keepdims=True)
    return probabilities


def forecasts_of(table: Float32Array, activation: str, logits: Float32Array) -> Float32Array:
    """`forecast` of whole sequences: logits (N, T, K) → (N, T - 1, K)."""
    sequences, timesteps, outputs = logits.shape
    steps = np.tile(np.arange(1, timesteps, dtype=np.int32), sequences)
    return forecast(table, activation, logits[:, :-1].reshape(-1, outputs), steps).reshape(sequences, -1, outputs)


def log_odds(logits: npt.NDArray[Any], activation: str) -> npt.NDArray[Any]:
    """Log-odds of each output: the logits (N, K) of a sigmoid head; of a softmax head, class k against all others."""
    if activation != "softmax":
        return logits
    by_class = np.array(logits.T, order="C")  # sums over classes are several times faster along the first axis
    by_class -= by_class.max(axis=0)
    powers = np.exp(by_class)
    # The sum over the other classes from both sides: total - own would lose the digits where own is nearly all of it.
    others = np.zeros_like(powers)
    others[1:] = np.cumsum(powers[:-1], axis=0)
    others[:-1] += np.cumsum(powers[:0:-1], axis=0)[::-1]
    by_class -= np.log(np.maximum(others, 1e-37))  # the smallest normal float32: log-odds end at 85
    odds: npt.NDArray[Any] = by_class.T
    return odds


def side_car_path(model_path: Path) -> Path:
    """Where a model's calibration lies unless configured otherwise: model.keras → model.calibration.json."""
    return model_path.with_suffix(".calibration.json")


def check_replaceable(path: Path, program: Program, model_path: Path) -> None:
    """Raises ConfigError where `path` is that of another model beside it: a.keras and a.h5 name the same side-car."""
    others = [model_path.with_suffix(suffix) for suffix in MODEL_SUFFIXES if suffix != model_path.suffix]
    others = [other for other in others if other.exists() and side_car_path(other) == path]
    if not others or not path.exists():
        return
    way_out = "name another --output and set model.calibration to it, or remove the file"
    found = _parsed(_decoded(path, way_out), path, way_out).fingerprint
    if found != program.fingerprint:
        raise ConfigError(f"{path} is the calibration of {others[0]}", way_out)


def calibration_for(program: Program, model_path: Path, configured: str = "") -> Calibration | None:
    """The calibration to serve with: the configured file, else the side-car beside the model, else None.

    Raises ConfigError for a configured file that is missing, and as `load_calibration`.
    """
    path = Path(configured) if configured else side_car_path(model_path)
    if not configured and not path.exists():
        return None
    return load_calibration(path, program, model_path)


def load_calibration(path: Path, program: Program, model_path: Path) -> Calibration:
    """Read a side-car for this model. Raises ConfigError for an unreadable file and for another model's."""
    way_out = f"make one with `lstm-worker calibrate {model_path} DATA.csv`"
    calibration = _parsed(_decoded(path, way_out), path, way_out)
    if program.timesteps is None:
        raise ConfigError(
            f"calibration {path} forecasts step {calibration.timesteps} of {model_path}, which takes any length",
            f"set sequence.length = {calibration.timesteps}, or remove the calibration",
        )
    if calibration.fingerprint != program.fingerprint:
        raise ConfigError(
            f"calibration {path} belongs to model {calibration.fingerprint}, but {model_path} is {program.fingerprint}",
            way_out,
        )
    shape = (calibration.timesteps, calibration.outputs, calibration.activation)
    if shape != (program.timesteps, program.outputs, program.activation):
        raise ConfigError(f"{path} does not fit {model_path}: timesteps, outputs, activation {shape}", way_out)
    return calibration


def _decoded(path: Path, way_out: str) -> Any:
    try:
        if path.stat().st_size > FILE_BYTES_MAX:
            raise ConfigError(f"{path} is larger than {FILE_BYTES_MAX} bytes and no calibration", way_out)
        return json.loads(path.read_bytes())
    except OSError as error:
        raise ConfigError(f"calibration {path} cannot be read: {error.strerror}", way_out) from error
    except (ValueError, RecursionError) as error:  # JSON and UTF-8 errors are ValueErrors
        raise ConfigError(f"{path} is not a calibration: no valid JSON", way_out) from error


def _parsed(content: Any, path: Path, way_out: str) -> Calibration:
    """The calibration in decoded JSON. Raises ConfigError naming what is wrong."""

    def refuse(why: str) -> ConfigError:
        return ConfigError(f"{path} is not a calibration: {why}", way_out)

    if not isinstance(content, dict):
        raise refuse("no JSON object")
    if content.get("format") != FORMAT:
        raise refuse(f"format {content.get('format')!r}, this version reads {FORMAT}")
    names = {field.name for field in fields(Calibration)}
    if set(content) != names | {"format"}:
        raise refuse(f"unexpected or missing fields {sorted(set(content) ^ (names | {'format'}))}")
    values = {name: content[name] for name in names}
    for name in ("timesteps", "outputs", "sequences"):
        if type(values[name]) is not int or values[name] < 1:
            raise refuse(f"{name} is no positive integer")
    for name in ("fingerprint", "activation", "method"):
        if not isinstance(values[name], str):
            raise refuse(f"{name} is no string")
    for name in _ARRAYS:
        try:
            values[name] = np.array(values[name], np.float64)
        except (TypeError, ValueError) as error:
            raise refuse(f"{name} is no table of numbers") from error
        if values[name].shape != (values["timesteps"] - 1, values["outputs"]) or not np.isfinite(values[name]).all():
            raise refuse(f"{name} is not a finite (timesteps - 1, outputs) table")
    for name, kind in _COUNTS.items():
        numbers = values[name]
        if not isinstance(numbers, list) or not all(type(number) in kind and number >= 0 for number in numbers):
            raise refuse(f"{name} is no list of counts")
        if len(numbers) != len(ERRORS):
            raise refuse(f"{name} has {len(numbers)} counts for {len(ERRORS)} thresholds")
        values[name] = np.array(numbers, np.int64 if kind == (int,) else np.float64)
    if not (values["taken_back"] <= values["decided_early"]).all():
        raise refuse("taken_back is more than decided_early")
    return Calibration(**values)


def _content(calibration: Calibration) -> dict[str, Any]:
    content: dict[str, Any] = {"format": FORMAT}
    for field in fields(Calibration):
        value = getattr(calibration, field.name)
        content[field.name] = value.tolist() if isinstance(value, np.ndarray) else value
    return content


def _canonical(calibration: Calibration) -> str:
    return json.dumps(_content(calibration), sort_keys=True, separators=(",", ":"))
