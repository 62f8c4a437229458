"""Small models for end-to-end tests, committed as files so that no test needs TensorFlow for them."""

from __future__ import annotations

import functools
import shutil
from pathlib import Path

import numpy as np

from worker.model.load import load_program

FOLDER = Path(__file__).parent / "models"
PREFIX_FEATURES = 2
"""Features of `prefix.keras`: SimpleRNN, Dense, ELU, ReLU, LSTM (last output), Dense 1, sigmoid; any length."""


def prefix_model(folder: Path) -> Path:
    """A copy of the small model whose output is defined at every step."""
    return Path(shutil.copy(FOLDER / "prefix.keras", folder / "prefix.keras"))


@functools.cache
def _program():
    return load_program(FOLDER / "prefix.keras")


def logit_and_probability(samples: tuple[tuple[float, ...], ...]) -> tuple[float, float]:
    """The float64 evaluation of one sequence: logit and probability after its last sample."""
    logit = float(_program().whole(np.array([samples]))[0, -1, 0])
    return logit, 1.0 / (1.0 + float(np.exp(-logit)))
