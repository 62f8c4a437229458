"""The probability before the last step: what the model is expected to say there.

A Flatten → Dense head sums one part per step. The sum so far is exact as a sum, but read as a probability it says "the
missing parts are 0", which is no forecast: it starts at one half whatever the base rate is, and can even rank sequences
the wrong way round. A head on the last state is defined at every step, but was trained at step T only: before it it is
often far too sure. What is published in place of either is p_t = E[p_T | state_t], the number that the model is
expected to give at its last step T. With the head's activation, a sigmoid or softmax,

    p_t = activation(intercept_t + own predictor so far · slopes_t + state_t · state_slopes_t)

fitted by `calibration_fit` on complete sequences. Step T is the model's own and has no entry here.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from worker.core.types import Float32Array, Float64Array, Int32Array, Int64Array
from worker.errors import ConfigError
from worker.model.activations import sigmoid, softmax
from worker.model.early_decisions import ERRORS, DecisionCounts

FORMAT = 3
FILE_BYTES_MAX = 64 * 1024 * 1024
"""Above any side-car (20 bytes a number); stops a wrong path from being read into memory."""
NUMBERS_MAX = 1 << 20
"""Of a side-car's slopes, and of its state slopes."""

CALIBRATED_ACTIVATIONS = ("sigmoid", "softmax")
"""Heads of probabilities."""

MODEL_SUFFIXES = (".keras", ".h5", ".hdf5", ".safetensors")


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


class Table(NamedTuple):
    """What `forecast` takes, float32; row 0 is step 1."""

    intercepts: Float32Array
    """(T - 1, K)."""
    slopes: Float32Array
    """(T - 1, K, K), from each own predictor to each of the forecast's."""
    lowest: Float32Array
    highest: Float32Array
    """(T - 1, K)."""


@dataclass(frozen=True, slots=True, eq=False)
class Calibration:
    """The numbers of each step, bound to one model; arrays float64, row 0 is step 1.

    The forecast's predictors are cut to `lowest`..`highest`, the range of the fit at this step: a steep line fitted on
    early, nearly equal sums must not be extrapolated.
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
    """(T - 1, K)."""
    slopes: Float64Array
    """(T - 1, K, K), from each own predictor to each of the forecast's."""
    state_slopes: Float64Array
    """(T - 1, S, K), from the state after the step; S is 0 where no step uses it."""
    lowest: Float64Array
    highest: Float64Array
    """(T - 1, K)."""
    drift: Float64Array
    """(2,) mean and slope of the forecasts' increments on the calibration's own recordings, forecast without
    themselves."""
    decided_early: Int64Array
    decided_share: Float64Array
    taken_back: Float64Array
    """See `decisions`."""

    @property
    def decisions(self) -> DecisionCounts:
        """What early decisions did on recordings that were forecast without themselves."""
        return DecisionCounts(self.decided_early, self.decided_share, self.taken_back)

    @property
    def id(self) -> str:
        """First 8 hex digits of the sha256 of the canonical content; published beside every probability."""
        return hashlib.sha256(_canonical(self).encode()).hexdigest()[:8]

    def table(self) -> Table:
        """What `forecast` takes."""
        return Table(*(getattr(self, name).astype(np.float32) for name in Table._fields))

    @property
    def state_weights(self) -> Float32Array | None:
        """(T - 1, S, K) for `StepProgram.with_state_weights`; None where forecasts do not use the state."""
        return self.state_slopes.astype(np.float32) if self.state_slopes.shape[1] else None

    def save(self, path: Path) -> None:
        """Write the side-car. Raises ConfigError where the file cannot be written."""
        content = {**_content(self), "id": self.id}
        lines = [f" {json.dumps(name)}: {json.dumps(value)}" for name, value in content.items()]
        try:
            path.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")
        except OSError as error:
            raise ConfigError(f"calibration {path} cannot be written: {error.strerror}", "name another file") from error


def own_predictors(logits: npt.NDArray[Any], activation: str) -> npt.NDArray[Any]:
    """What the model's own numbers so far are a sigmoid or softmax of, (N, K): its logits; of a softmax, in which only
    their differences count, the logarithms of its probabilities."""
    if activation != "softmax":
        return logits
    apart = logits - logits.max(axis=1, keepdims=True)
    own: npt.NDArray[Any] = apart - np.log(np.exp(apart).sum(axis=1, keepdims=True))
    return own


def forecast(
    table: Table, activation: str, logits: Float32Array, from_state: Float32Array | None, steps: Int32Array
) -> Float32Array:
    """E[p_T | state] for rows before step T.

    logits (N, K); steps (N,) in 1..T - 1; from_state (N, K), the state's part of the predictors as engines give it with
    `Calibration.state_weights`, None where there are none. NaN stays NaN.
    """
    rows = steps - 1
    own = own_predictors(logits, activation)
    predictors = table.intercepts.take(rows, axis=0)
    if own.shape[1] == 1:
        predictors += own * table.slopes[:, 0].take(rows, axis=0)
    else:  # by step, as a table of slopes for each row would be large for many classes
        for row in np.unique(rows).tolist():
            mine = rows == row
            predictors[mine] += own[mine] @ table.slopes[row]
    if from_state is not None:
        predictors += from_state
    predictors = np.clip(predictors, table.lowest.take(rows, axis=0), table.highest.take(rows, axis=0))
    return probabilities_of(predictors, activation)


def probabilities_of(predictors: npt.NDArray[Any], activation: str) -> npt.NDArray[Any]:
    """Of predictors (N, K): a softmax, or a sigmoid of each."""
    found: npt.NDArray[Any] = (softmax if activation == "softmax" else sigmoid)(np, predictors)
    return found


def side_car_path(model_path: Path) -> Path:
    """Where a model's calibration lies unless configured otherwise: model.keras → model.calibration.json."""
    return model_path.with_suffix(".calibration.json")


def check_replaceable(path: Path, program: Program, model_path: Path, *, named: bool) -> None:
    """Raises ConfigError where a file at `path` must not be replaced by this model's calibration: what is none, and
    another model's where `path` was `named` or that model lies beside it (a.keras and a.h5 name the same side-car).
    """
    if not path.parent.is_dir():
        raise ConfigError(f"{path} cannot be written: no folder {path.parent}", "make it, or name another --output")
    if not path.is_file():
        return
    way_out = "name another --output and set model.calibration to it, or remove the file"
    content = _decoded(path, way_out)
    found = content.get("fingerprint") if isinstance(content, dict) and "intercepts" in content else None
    if not isinstance(found, str):
        raise ConfigError(f"{path} is not a calibration and is not overwritten", way_out)
    others = [model_path.with_suffix(suffix) for suffix in MODEL_SUFFIXES if suffix != model_path.suffix]
    others = [other for other in others if other.exists() and side_car_path(other) == path]
    if found != program.fingerprint and (others or named):
        whose = str(others[0]) if others else f"another model ({found[:8]})"
        raise ConfigError(f"{path} is the calibration of {whose}", way_out)


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
    if calibration.timesteps != program.timesteps:
        raise ConfigError(
            f"calibration {path} forecasts step {calibration.timesteps}, sequences of {model_path} have "
            f"{program.timesteps}",
            f"set sequence.length = {calibration.timesteps} where the model takes any, or {way_out}",
        )
    if calibration.fingerprint != program.fingerprint:
        raise ConfigError(
            f"calibration {path} belongs to model {calibration.fingerprint}, but {model_path} is {program.fingerprint}",
            way_out,
        )
    shape = (calibration.outputs, calibration.activation, calibration.state_slopes.shape[1])
    if shape not in [(program.outputs, program.activation, size) for size in (0, program.state_size)]:
        raise ConfigError(f"{path} does not fit {model_path}: outputs, activation, floats of state {shape}", way_out)
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
    if set(content) != names | {"format", "id"}:
        raise refuse(f"unexpected or missing fields {sorted(set(content) ^ (names | {'format', 'id'}))}")
    values = {name: content[name] for name in names}
    for name in ("timesteps", "outputs", "sequences"):
        if type(values[name]) is not int or values[name] < 1:
            raise refuse(f"{name} is no positive integer")
    for name in ("fingerprint", "activation", "method"):
        if not isinstance(values[name], str):
            raise refuse(f"{name} is no string")
    steps, outputs = values["timesteps"] - 1, values["outputs"]
    shapes: dict[str, tuple[int | None, ...]] = dict.fromkeys(("intercepts", "lowest", "highest"), (steps, outputs))
    shapes |= {"slopes": (steps, outputs, outputs), "state_slopes": (steps, None, outputs), "drift": (2,)}
    shapes |= dict.fromkeys(("decided_early", "decided_share", "taken_back"), (len(ERRORS),))
    for name, shape in shapes.items():
        numbers = _numbers(values[name], shape)
        if numbers is None:
            raise refuse(f"{name} is no finite table of numbers of shape {shape}")
        values[name] = numbers
    if not (values["lowest"] <= values["highest"]).all():
        raise refuse("lowest is above highest")
    early, share, back = values["decided_early"], values["decided_share"], values["taken_back"]
    whole = (early == np.floor(early)) & (early <= values["sequences"])
    if not (whole & (back >= 0) & (back <= share) & (share <= early)).all():
        raise refuse("taken_back, decided_share, decided_early do not count decisions")
    values["decided_early"] = early.astype(np.int64)
    found = Calibration(**values)
    if found.id != content["id"]:
        raise refuse("it was changed after it was made")
    return found


def _numbers(value: Any, shape: tuple[int | None, ...]) -> Float64Array | None:
    """Nested lists of JSON numbers as an array, None for anything else; a dimension of None may have any size."""
    try:
        found = np.array(value)
    except ValueError:  # rows of different lengths
        return None
    if found.size == 0 and None in shape and len(shape) == found.ndim + 1:
        found = np.zeros((*found.shape, shape[-1] or 0))
    fits = found.ndim == len(shape) and all(size in (None, had) for size, had in zip(shape, found.shape, strict=True))
    if not fits or found.dtype.kind not in "if":
        return None
    with np.errstate(over="ignore"):
        finite = bool(np.isfinite(found.astype(np.float32)).all())
    return found.astype(np.float64) if finite else None


def _content(calibration: Calibration) -> dict[str, Any]:
    content: dict[str, Any] = {"format": FORMAT}
    for field in fields(Calibration):
        value = getattr(calibration, field.name)
        content[field.name] = value.tolist() if isinstance(value, np.ndarray) else value
    return content


def _canonical(calibration: Calibration) -> str:
    return json.dumps(_content(calibration), sort_keys=True, separators=(",", ":"))
