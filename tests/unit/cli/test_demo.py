"""What the demo compares the worker with."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from worker.cli.demo import keras_predictions
from worker.model.calibration_fit import partial_logits
from worker.model.datasets import of_split, read_csv
from worker.model.load import load_program

EXAMPLE = Path(__file__).parents[3] / "examples" / "basic_motions"


def test_keras_predicts_the_recordings_in_a_process_of_its_own(tmp_path):
    recordings = of_split(read_csv(EXAMPLE / "basic_motions.csv"), "test")[:3]
    predicted = keras_predictions(EXAMPLE / "badminton.keras", recordings, tmp_path)
    program = load_program(EXAMPLE / "badminton.keras")
    logits = partial_logits(program, np.stack([recording.features for recording in recordings]))
    np.testing.assert_allclose(predicted, program.outputs_of(logits[:, -1]), atol=1e-6)
