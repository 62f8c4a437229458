"""The table of docs/model_files.md: `python -m tests.goldens.table`. Difference from what each generation predicted."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import numpy as np

from worker.model.load import load_program
from worker.model.numpy_stepper import NumpyStepper

FOLDER = Path(__file__).parent / "generations"
WRITERS = {
    "keras222": "Keras 2.2.2",
    "keras224": "Keras 2.2.4",
    "keras231": "Keras 2.3.1",
    "tf212": "tf.keras 2.12",
    "tf213": "tf.keras 2.13",
    "tf215": "tf.keras 2.15",
    "tf_keras221": "tf_keras 2.21",
    "keras315": "Keras 3.15",
    "torch": "PyTorch 1.10",
}


def last_outputs(file: Path, inputs: np.ndarray) -> np.ndarray:
    """Outputs after the last step of sequences (N, T, F), stepped one sample at a time."""
    program = load_program(file)
    stepper = NumpyStepper(program)
    slots = np.arange(len(inputs))
    states = np.full((len(inputs), program.state_size), np.nan, np.float32)
    for t in range(inputs.shape[1]):
        logits = stepper.step_batch(slots, inputs[:, t], states, np.full(len(inputs), t + 1, np.int32))
    return np.asarray(program.outputs_of(logits))


def main() -> None:
    """Print one row a file."""
    sys.stdout.write("| written by | file | layers | largest difference |\n|---|---|---|---|\n")
    for writer, title in WRITERS.items():
        for file in sorted(FOLDER.glob(f"{writer}_*")):
            if file.suffix not in (".h5", ".keras", ".safetensors"):
                continue
            model = re.sub(r"_alone|_hdf5_inside", "", file.name.split(".")[0])
            golden = np.load(FOLDER / f"{model}.npz")
            largest = np.abs(last_outputs(file, golden["inputs"]) - golden["outputs"]).max()
            layers = ", ".join(row.class_name for row in load_program(file).plan)
            name = file.name.removeprefix(writer + "_")
            sys.stdout.write(f"| {title} | `{name}` | {layers} | {largest:.0e} |\n")


if __name__ == "__main__":
    main()
