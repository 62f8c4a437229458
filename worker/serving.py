"""The model that a worker serves, and what must be true before it joins the group."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from worker.adapters.kafka_admin import KafkaAdmin
from worker.config import PreviousModel, Settings
from worker.core.slots import HoldsStates
from worker.core.types import ModelLabel
from worker.errors import ConfigError, InputChanged, ModelNotStreamable, printable
from worker.model.buffered import BUFFER_CLASS
from worker.model.early_decisions import promised_threshold, smallest_promise
from worker.model.engines import operations_of, stepper_for, verify_engine
from worker.model.load import load_program
from worker.model.precision import note
from worker.model.program import StepProgram
from worker.model.published import with_readout
from worker.model.readout import Readout
from worker.model.rules.context import OR_BUFFER
from worker.model.tensorflow_stepper import TensorFlowStepper
from worker.ports import Stepper

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ServedModel:
    """A verified model and what is published of it."""

    program: StepProgram
    stepper: Stepper
    readout: Readout
    length: int

    @property
    def label(self) -> ModelLabel:
        """What output records say of it."""
        return ModelLabel(self.program.fingerprint[:8], self.readout.calibration_id, self.length or None)


def load_models(settings: Settings) -> list[ServedModel]:
    """The served model, then those of `model.previous`, whose open sequences it lets them finish.

    Raises ModelNotStreamable, ConfigError.
    """
    served = load_model(settings)
    models = {served.program.fingerprint: served}
    for entry in settings.model.previous:
        older = load_previous(settings, entry)
        for name, ours, theirs in (
            ("features", served.program.features, older.program.features),
            ("outputs", served.program.outputs, older.program.outputs),
        ):
            if ours != theirs:
                raise ConfigError(
                    f"model.previous: {entry.path} has {theirs} {name}, {settings.model.path} has {ours}",
                    "end its sequences with model.on_change = 'reset'",
                )
        models.setdefault(older.program.fingerprint, older)
    return list(models.values())


def load_model(settings: Settings) -> ServedModel:
    """Read, compile and verify the model; decide how long a sequence is. Raises ModelNotStreamable, ConfigError."""
    model, features = settings.model, settings.input.features
    with _named_in("model.path", model.path):
        program = load_program(
            Path(model.path),
            timesteps=settings.sequence.length or None,
            architecture=Path(model.architecture) if model.architecture else None,
            mode=model.mode,
        )
    if features and len(features) != program.features:
        raise ConfigError(
            f"input.features names {len(features)} fields, the model takes {program.features} features",
            "name one field per feature, in the model's order",
        )
    if model.engine == "auto" and (reason := operations_of(program)[1]):
        log.info("steps by NumPy, not by the kernel: %s", reason)

    def stepper_of(program: StepProgram) -> Stepper:
        return stepper_for(program, model.engine)

    return _served(
        program, stepper_of, Path(model.path), model.calibration, settings.sequence.length, "sequence.length"
    )


def load_previous(settings: Settings, entry: PreviousModel) -> ServedModel:
    """An older model as it was served. Raises ModelNotStreamable, ConfigError."""
    # The settings' length is for files that fix none: what a file fixes held for its sequences.
    length = settings.sequence.length if entry.length is None else entry.length
    with _named_in("model.previous", entry.path):
        program = _previous_program(entry, length)

        def stepper_of(program: StepProgram) -> Stepper:
            try:
                return stepper_for(program, settings.model.engine)
            except ConfigError:
                # The engine was chosen for the model that replaces it.
                return stepper_for(program)

        return _served(program, stepper_of, Path(entry.path), entry.calibration, entry.length or 0, "length")


def _previous_program(entry: PreviousModel, length: int) -> StepProgram:
    architecture = Path(entry.architecture) if entry.architecture else None
    try:
        return load_program(entry.path, timesteps=length or None, architecture=architecture, mode=entry.mode or "step")
    except ModelNotStreamable as error:
        if entry.mode is not None or not error.hint.endswith(OR_BUFFER):
            raise
    # What cannot be stepped can only have been served so.
    return load_program(entry.path, timesteps=length or None, mode="buffer")


def _served(
    program: StepProgram,
    stepper_of: Callable[[StepProgram], Stepper],
    path: Path,
    calibration: str,
    length: int,
    setting: str,
) -> ServedModel:
    """`length`: samples a sequence, 0 for the program's; `setting`: where it comes from."""
    program, readout = with_readout(program, path, calibration)
    stepper = stepper_of(program)
    verify_engine(program, stepper)
    length = length or program.timesteps or 0
    if program.exactness == "end" and length != program.timesteps:
        raise ConfigError(
            f"{setting} = {length}: {path} has {program.timesteps} steps and is exact at the last only",
            f"leave {setting} at 0",
        )
    if readout.calibration_id is not None and length != program.timesteps:
        raise ConfigError(
            f"{setting} = {length}: the calibration of {path} forecasts step {program.timesteps}",
            f"leave {setting} at 0, or remove the calibration",
        )
    stepped = all(node.class_name != BUFFER_CLASS for node in program.nodes)
    if stepped and (precision := note(program.keras_precision)):
        log.warning("model %s: %s", path.name, precision)
    log.info("model %s (%s): %s", path.name, program.fingerprint[:8], readout.describe())
    return ServedModel(program, stepper, readout, length)


@contextmanager
def _named_in(setting: str, path: str) -> Iterator[None]:
    """Errors say which setting names the file, and which file."""
    try:
        yield
    except (ModelNotStreamable, ConfigError) as error:
        named = printable(str(Path(path))) in error.message
        file = "" if named else f"{path}: "
        raise type(error)(f"{setting}: {file}{error.message}", error.hint) from error


def states_on_device(models: Sequence[ServedModel]) -> list[HoldsStates]:
    """The engines that hold their states from now on; they compile first, so that no batch waits for it."""
    holders: list[HoldsStates] = []
    for model in models:
        if isinstance(model.stepper, TensorFlowStepper):
            log.info("compiling for waves of %d to %d streams", model.stepper.rows[0], model.stepper.rows[-1])
            model.stepper.hold_states()
            holders.append(model.stepper)
    return holders


def decide_at(settings: Settings, models: Sequence[ServedModel]) -> tuple[float, ...]:
    """The probability that decides a sequence early, of each model's sequences; empty for no early decisions.

    The first model is the served one: raises ConfigError where its numbers cannot keep the promise. A previous model
    that cannot decides at its last step only.
    """
    decide, program = settings.decide, models[0].program
    if not decide.threshold and not decide.max_error:
        return ()
    if program.outputs > 1 and program.activation != "softmax":
        raise ConfigError("decide: the model has several outputs that are not classes", "leave decide off")
    if decide.threshold:
        return (decide.threshold,) * len(models)
    thresholds = [_promised(model, decide.max_error) for model in models]
    if thresholds[0] is None:
        raise _not_promised(models[0], decide.max_error)
    log.info("sequences are decided early from a probability of %.6g on", thresholds[0])
    return tuple(math.inf if threshold is None else threshold for threshold in thresholds)


def _promised(model: ServedModel, max_error: float) -> float | None:
    calibration = model.readout.calibration
    return None if calibration is None else promised_threshold(calibration.decisions, max_error)


def _not_promised(model: ServedModel, max_error: float) -> ConfigError:
    calibration, instead = model.readout.calibration, "set decide.threshold, which promises nothing"
    if calibration is None:
        why = "the model has no calibration, so its early numbers promise nothing about its last step"
        made = "" if model.program.one_output_per_step else "make one with `lstm-worker calibrate MODEL DATA.csv`, or "
        return ConfigError(f"decide.max_error: {why}", made + instead)
    least = smallest_promise(calibration.decisions)
    possible = "no error" if least is None else f"less than {least}"
    return ConfigError(
        f"decide.max_error = {max_error}: the calibration ({calibration.method}) cannot promise {possible}",
        f"calibrate on more recordings, or {instead}",
    )


def refuse_unavailable(settings: Settings) -> None:
    """Settings whose work is not done yet are refused, not ignored. Raises ConfigError."""
    unavailable = {
        "state.standby = 1": (settings.state.standby > 0, "0"),
    }
    for setting, (asked, instead) in unavailable.items():
        if asked:
            raise ConfigError(f"{setting} is not available in this version", f"use {instead}")


def check_topics(admin: KafkaAdmin, settings: Settings) -> int:
    """The input's partition count. Raises ConfigError for a topic that is missing or cannot be used as it is."""
    topics = settings.topics
    names = [topics.input, topics.output, topics.dead_letter]
    if settings.state.changelog:
        names.append(settings.changelog_topic)
    counts = {name: admin.partition_count(name) for name in names}
    missing = [name for name, count in counts.items() if count is None]
    if missing:
        raise ConfigError(f"topic {', '.join(missing)} is missing", "create it, or run `lstm-worker topics`")
    partitions = counts[topics.input] or 0
    if settings.state.changelog and counts[settings.changelog_topic] != partitions:
        raise InputChanged(
            f"topic {topics.input} has {partitions} partitions, its changelog {settings.changelog_topic} has "
            f"{counts[settings.changelog_topic]}: streams moved between partitions",
            "name new output, dead-letter and changelog topics, make them with `lstm-worker topics`, then move offsets "
            "and state together with `lstm-worker reset`",
        )
    same = [topics.dead_letter]
    if settings.output.partitioner == "input":
        same.append(topics.output)
    for name in same:
        if counts[name] != partitions:
            raise ConfigError(
                f"topic {name} has {counts[name]} partitions, {topics.input} has {partitions}",
                "outputs and dead letters need the input's count",
            )
    if settings.state.changelog and "compact" in admin.topic_setting(topics.input, "cleanup.policy"):
        raise ConfigError(f"topic {topics.input} is compacted, which drops samples", "set cleanup.policy=delete on it")
    if settings.state.changelog and admin.topic_setting(settings.changelog_topic, "cleanup.policy") != "compact":
        raise ConfigError(f"topic {settings.changelog_topic} is not compacted", "set cleanup.policy=compact on it")
    return partitions
