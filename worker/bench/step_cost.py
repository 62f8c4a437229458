"""What one step of the model costs, at several wave sizes, beside Keras stepping a stateful model of batch 1."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np

from worker.adapters.clock import SystemClock
from worker.model.contract import drawn_samples
from worker.model.program import StepProgram
from worker.ports import Stepper

WAVES = (1, 64, 1024)
SECONDS_A_WAVE = 0.2
STREAMS = 4096
"""Rows of the states; a wave is spread over them."""
KERAS_STEPS = 300


def step_microseconds(program: StepProgram, stepper: Stepper, wave: int, step: int = 2) -> float:
    """Microseconds a sample of a call with `wave` streams, gather and scatter included: the fastest call, as others on
    the machine only ever add time."""
    clock, generator = SystemClock(), np.random.default_rng(1)
    states = np.zeros((STREAMS, program.state_size), np.float32)
    features = drawn_samples(program, wave, 1, generator)[:, 0]
    slots = generator.permutation(STREAMS)[:wave].astype(np.int64)
    steps = np.full(wave, step, np.int32)
    best, began = float("inf"), clock.monotonic()
    while (started := clock.monotonic()) < began + SECONDS_A_WAVE or best == float("inf"):
        stepper.step_batch(slots, features, states, steps)
        best = min(best, clock.monotonic() - started)
    return best / wave * 1e6


def keras_microseconds(model: Path) -> float:
    """Microseconds a sample of `predict_on_batch` on the model rebuilt stateful with batch 1, in its own process."""
    command = [sys.executable, "-m", "worker.bench.step_cost", str(model)]
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
    return float(done.stdout.strip().splitlines()[-1])


def _time_keras(model: Path) -> float:
    """The usual advice: the recurrent layers again with stateful=True and batch 1, weights copied, one step a call."""
    import keras

    trained = keras.models.load_model(model, compile=False)
    features = trained.input_shape[-1]
    layers = [keras.Input(batch_shape=(1, 1, features))]
    weights = []
    for layer in trained.layers:
        if not isinstance(layer, keras.layers.LSTM | keras.layers.GRU | keras.layers.SimpleRNN):
            continue
        config = {**layer.get_config(), "stateful": True, "return_sequences": True}
        layers.append(type(layer).from_config(config))
        weights.append(layer.get_weights())
    stateful = keras.Sequential(layers)
    for layer, values in zip(stateful.layers, weights, strict=True):
        layer.set_weights(values)
    clock = SystemClock()
    sample = np.zeros((1, 1, features), np.float32)
    for _ in range(20):
        stateful.predict_on_batch(sample)
    started = clock.monotonic()
    for _ in range(KERAS_STEPS):
        stateful.predict_on_batch(sample)
    return (clock.monotonic() - started) / KERAS_STEPS * 1e6


if __name__ == "__main__":
    sys.stdout.write(f"{_time_keras(Path(sys.argv[1])):.1f}\n")
