"""Whether a drained topic has the right outputs: all of them counted, a sample compared with a float64 reference."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import orjson

from worker.adapters.kafka_follower import Follower
from worker.bench.load import PARTITIONS, Load, stream_key
from worker.bench.setup import admin
from worker.config import load_settings
from worker.core.types import Float32Array
from worker.errors import ConfigError
from worker.model.program import StepProgram
from worker.serving import ServedModel, load_model

SAMPLED_STREAMS = 20
SAMPLES_OF_A_STREAM = 300
DIFFERENCE_MAX = 1e-5
"""Between a float32 step and the float64 evaluation of the whole sequence."""
SILENT_POLLS_MAX = 20


@dataclass(frozen=True, slots=True)
class Numbers:
    """What one output says."""

    step: int
    probability: float


def check_outputs(bootstrap: str, output: str, load: Load, config: Path, *, newest_only: bool = False) -> None:
    """Raises ConfigError when outputs are missing, too many, out of order or wrong. For models of one output.

    `newest_only`: the broker has forgotten the first ones.
    """
    found, count = _read(bootstrap, output, load)
    if count != load.records and not newest_only:
        raise ConfigError(f"{output}: {count:,} outputs of {load.records:,} records", "this is a bug of the worker")
    if problem := wrong(found, load, load_model(load_settings(config, [])), newest_only=newest_only):
        raise ConfigError(f"{output}: {problem}", "this is a bug of the worker")


def wrong(found: Mapping[bytes, list[Numbers]], load: Load, model: ServedModel, *, newest_only: bool) -> str:
    """What is wrong with the outputs of the sampled streams, by key; "" when nothing is.

    Compared are the first outputs of each; with `newest_only` as many of the last ones as there are.
    """
    compared = 0
    for stream, features in sampled(load, None if newest_only else SAMPLES_OF_A_STREAM).items():
        expected, actual = reference(model, features), found.get(stream_key(stream), [])
        if newest_only:
            expected = expected[max(0, len(expected) - len(actual)) :]
        else:
            actual = actual[: len(expected)]
        if problem := difference(actual, expected):
            return f"stream {stream}: {problem}"
        compared += len(expected)
    return "" if compared else "there is no output of the sampled streams"


def sampled(load: Load, samples_max: int | None = SAMPLES_OF_A_STREAM) -> dict[int, Float32Array]:
    """The first samples (n, F) of some streams, most frequent ones included, as the worker reads them; None: all."""
    numbers, rows = load.stream_numbers(), load.samples()
    if load.record_format == "json":
        rows = np.round(rows.astype(np.float64), 6).astype(np.float32)
    streams = np.unique(np.linspace(0, load.streams - 1, SAMPLED_STREAMS).astype(int)).tolist()
    found = {stream: rows[np.flatnonzero(numbers == stream)[:samples_max]] for stream in streams}
    # With skewed keys a rare stream may have no record.
    return {stream: samples for stream, samples in found.items() if len(samples)}


def reference(model: ServedModel, features: Float32Array) -> list[Numbers]:
    """Steps and probabilities of one stream's samples (n, F), sequence by sequence, in float64."""
    length = model.length or len(features) or 1
    expected: list[Numbers] = []
    for first in range(0, len(features), length):
        sequence = features[first : first + length]
        steps = np.arange(1, len(sequence) + 1, dtype=np.int32)
        padded = np.zeros((1, length, features.shape[1]))
        padded[0, : len(sequence)] = sequence
        logits = model.program.whole(padded)[0, : len(sequence)].astype(np.float32)
        probabilities, _ = model.readout.publish(_with_scores(model.program, logits, sequence), steps)
        expected += [Numbers(int(step), float(row[-1])) for step, row in zip(steps, probabilities, strict=True)]
    return expected


def _with_scores(program: StepProgram, logits: Float32Array, sequence: Float32Array) -> Float32Array:
    """Logits (T, K) and what an engine adds to them for a calibration that uses the state: (T, columns)."""
    answers, state = np.empty((len(logits), program.columns), np.float32), np.zeros((1, program.state_size), np.float32)
    for t in range(len(logits) if program.columns > program.outputs else 0):
        answers[t : t + 1], state = program.step(sequence[None, t], state, np.array([t + 1], np.int32))
    answers[:, : program.outputs] = logits
    return answers


def difference(actual: Sequence[Numbers], expected: Sequence[Numbers]) -> str:
    """What is wrong with a stream's outputs, "" when nothing is."""
    if [each.step for each in actual] != [each.step for each in expected]:
        return "steps are missing, doubled or out of order"
    mine, other = (np.array([each.probability for each in outputs]) for outputs in (actual, expected))
    if not np.allclose(mine, other, rtol=0, atol=DIFFERENCE_MAX, equal_nan=True):
        return f"probabilities differ by {np.nanmax(np.abs(mine - other)):.1e}"
    return ""


def _read(bootstrap: str, output: str, load: Load) -> tuple[dict[bytes, list[Numbers]], int]:
    """The outputs of sampled streams by key, and the count of all."""
    wanted = {stream_key(stream) for stream in sampled(load)}
    found: dict[bytes, list[Numbers]] = defaultdict(list)
    ends = admin(bootstrap).end_offsets(output, range(PARTITIONS), read_committed=True)
    follower = Follower(bootstrap, output, range(PARTITIONS), properties={"log_level": 0})
    count, silent = 0, 0
    # Ends count the markers of transactions; a few silent polls after all records are there would show one too many.
    while silent < (2 if count >= load.records else SILENT_POLLS_MAX) and any(ends.values()):
        records = follower.poll(0.1 if count >= load.records else 1.0)
        silent = 0 if records else silent + 1
        count += len(records)
        for record in records:
            if record.key in wanted and record.value is not None:
                found[record.key].append(numbers_of(record.value, load.record_format))
    follower.close()
    return found, count


def numbers_of(value: bytes, record_format: str) -> Numbers:
    """Of one output record; a probability that is null is NaN."""
    if record_format == "binary":
        step, probability = np.frombuffer(value[:8], np.dtype([("step", "<i4"), ("probability", "<f4")]))[0]
        return Numbers(int(step), float(probability))
    fields = orjson.loads(value)
    probability = fields["probability"]
    return Numbers(fields["step"], float("nan") if probability is None else float(probability))
