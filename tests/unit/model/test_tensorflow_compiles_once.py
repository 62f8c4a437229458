"""XLA compiles the TensorFlow engine before the first batch, and never again: a live batch would wait for it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

REFERENCE = Path(__file__).parents[3] / "examples" / "basic_motions" / "badminton.keras"
STEPPED = """
import sys
from pathlib import Path
import numpy as np
from worker.model.load import load_program
from worker.model.tensorflow_stepper import ROWS, TensorFlowStepper

dumps = Path(sys.argv[1])
program = load_program(Path(sys.argv[2]))
stepper = TensorFlowStepper(program)
stepper.hold_states()

def stepped(slots):
    features = np.zeros((len(slots), program.features), np.float32)
    stepper.step_batch(slots, features, np.zeros((slots.max() + 1, program.state_size), np.float32),
                       np.full(len(slots), 2, np.int32))

compiled = len(list(dumps.glob("*before_optimizations.txt")))
generator = np.random.default_rng(1)
for streams in (1, *ROWS):
    for samples in generator.integers(1, 3 * ROWS[-1], 3):
        stepped(generator.integers(0, streams, samples))
print(compiled, len(list(dumps.glob("*before_optimizations.txt"))), len(ROWS))
"""


def test_no_batch_waits_for_xla(tmp_path):
    environment = {**os.environ, "XLA_FLAGS": f"--xla_dump_to={tmp_path} --xla_dump_hlo_as_text"}
    command = [sys.executable, "-c", STEPPED, str(tmp_path), str(REFERENCE)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    before, after, rows = map(int, done.stdout.split())
    assert before >= rows  # the dumps are what is counted
    assert after == before
