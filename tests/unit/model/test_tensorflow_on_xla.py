"""What XLA is given by the TensorFlow engine, by its own dumps: all of it before the first batch, in full float32."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

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


@pytest.fixture(scope="module")
def dumps(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Where the dumps are, and what was printed of them."""
    place = tmp_path_factory.mktemp("xla")
    environment = {**os.environ, "XLA_FLAGS": f"--xla_dump_to={place} --xla_dump_hlo_as_text"}
    command = [sys.executable, "-c", STEPPED, str(place), str(REFERENCE)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    return place, done.stdout


def test_no_live_batch_waits_for_a_compilation(dumps: tuple[Path, str]) -> None:
    before, after, rows = map(int, dumps[1].split())
    assert before >= rows  # the dumps are what is counted
    assert after == before


def test_no_product_may_be_rounded_to_tensor_float_32(dumps: tuple[Path, str]) -> None:
    texts = [file.read_text() for file in dumps[0].glob("*before_optimizations.txt")]
    products = [line for text in texts for line in text.splitlines() if " dot(" in line]
    assert len(products) > len(texts)
    assert [line for line in products if "operand_precision={highest,highest}" not in line] == []
