"""What a step costs by engine, LSTM units and streams a wave: `python -m benchmarks.engines [RESULTS.json]`.

Each engine runs in a process of its own, so that its memory and its start are its own; weights are random, so that no
training library is needed. Every engine is verified against the float64 evaluation first.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from worker.model.compile import compile_model
from worker.model.contract import verify
from worker.model.engines import stepper_for
from worker.model.files.reading import ModelFile
from worker.model.program import StepProgram
from worker.model.tensorflow_stepper import TensorFlowStepper

ENGINES = ("numpy", "kernel", "tensorflow")
UNITS = (16, 32, 64, 128, 256, 512)
WAVES = (1, 64, 1024)
FEATURES, TIMESTEPS = 3, 100
SECONDS = 0.5
"""Of measuring; the fastest call counts, because others on the machine only ever add time."""


def lstm_classifier(units: int) -> StepProgram:
    """LSTM(units) → Dense(1, sigmoid) on (T, 3), random weights."""
    generator = np.random.default_rng(units)

    def weights(name: str, class_name: str, k: int) -> list[Any]:
        del name, k
        shapes = {
            "LSTM": [(FEATURES, 4 * units), (units, 4 * units), (4 * units,)],
            "Dense": [(units, 1), (1,)],
        }[class_name]
        return [(generator.standard_normal(shape) / np.sqrt(shape[0])).astype(np.float32) for shape in shapes]

    layers = [
        {"class_name": "InputLayer", "config": {"name": "input", "batch_shape": [None, TIMESTEPS, FEATURES]}},
        {"class_name": "LSTM", "config": {"name": "lstm", "units": units, "return_sequences": False}},
        {"class_name": "Dense", "config": {"name": "dense", "units": 1, "activation": "sigmoid"}},
    ]
    configuration = {"class_name": "Sequential", "config": {"name": f"lstm_{units}", "layers": layers}}
    return compile_model(ModelFile(Path(f"lstm_{units}"), configuration, 3, weights))


def measured(engine: str, units: int) -> dict[str, Any]:
    """Microseconds a sample by wave, seconds to the first answer, memory, and how far from float64 it is."""
    program = lstm_classifier(units)
    began = time.perf_counter()
    stepper = stepper_for(program, engine)
    difference = verify(program, stepper).largest_difference
    if isinstance(stepper, TensorFlowStepper):  # as a worker does it
        stepper.hold_states()
    ready = time.perf_counter() - began
    generator = np.random.default_rng(1)
    costs = {}
    for wave in WAVES:
        states = np.zeros((max(4096, wave), program.state_size), np.float32)
        slots = generator.permutation(len(states))[:wave].astype(np.int64)
        features = generator.standard_normal((wave, FEATURES)).astype(np.float32)
        steps, best, until = np.full(wave, 2, np.int32), float("inf"), time.perf_counter() + SECONDS
        while (start := time.perf_counter()) < until:
            stepper.step_batch(slots, features, states, steps)
            best = min(best, time.perf_counter() - start)
        costs[wave] = best / wave * 1e6
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {
        "engine": engine,
        "units": units,
        "microseconds": costs,
        "difference": difference,
        "ready_s": ready,
        "memory_mib": memory,
    }


def say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def main() -> None:
    """One process an engine and size; a Markdown table on standard output."""
    if sys.argv[1:2] == ["--one"]:
        sys.stdout.write(json.dumps(measured(sys.argv[2], int(sys.argv[3]))) + "\n")
        return
    rows = []
    say(
        "| engine | LSTM units | "
        + " | ".join(f"µs a sample, {wave} streams" for wave in WAVES)
        + " | ready, s | MiB |"
    )
    say("|---" * (len(WAVES) + 4) + "|")
    for units in UNITS:
        for engine in ENGINES:
            command = [sys.executable, "-m", "benchmarks.engines", "--one", engine, str(units)]
            environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
            done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
            row = json.loads(done.stdout.splitlines()[-1])
            rows.append(row)
            costs = " | ".join(f"{cost:.2f}" for cost in row["microseconds"].values())
            say(f"| {engine} | {units} | {costs} | {row['ready_s']:.1f} | {row['memory_mib']:.0f} |")
    if len(sys.argv) > 1:
        Path(sys.argv[1]).write_text(json.dumps(rows, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
