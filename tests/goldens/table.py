"""The tables of docs/model_files.md and docs/exactness.md, on standard output: `python -m tests.goldens.table`.

How far stepping is from what the program that wrote each golden file predicted, what compiling costs, and how large the
state is. Files that are added later appear by themselves.
"""

from __future__ import annotations

import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from worker.model.contract import largest_difference
from worker.model.load import load_program
from worker.model.numpy_stepper import NumpyStepper
from worker.model.program import StepProgram

GOLDENS = Path(__file__).parent
FOLDER = GOLDENS / "generations"
ARCHITECTURES = (GOLDENS, GOLDENS / "graphs")
COMPILATIONS = 5
"""Of which the fastest counts."""
MEMORY = """
import pathlib, re, resource, sys
from worker.model.load import load_program
def resident():
    return int(re.search(r"VmRSS:\\s*(\\d+)", pathlib.Path("/proc/self/status").read_text())[1])
imported = resident()
program = load_program(sys.argv[1], timesteps=int(sys.argv[2]))
print(imported, resident(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""
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


def all_outputs(program: StepProgram, inputs: np.ndarray) -> np.ndarray:
    """Outputs (N, T, K) of sequences (N, T, F), stepped one sample at a time."""
    stepper = NumpyStepper(program)
    count, timesteps, _ = inputs.shape
    states = np.full((count, program.state_size), np.nan, np.float32)
    outputs = []
    for t in range(timesteps):
        logits = stepper.step_batch(np.arange(count), inputs[:, t], states, np.full(count, t + 1, np.int32))
        outputs.append(np.array(program.outputs_of(logits)))
    return np.stack(outputs, axis=1)


def last_outputs(file: Path, inputs: np.ndarray) -> np.ndarray:
    """Outputs after the last step of sequences (N, T, F)."""
    return all_outputs(load_program(file), inputs)[:, -1]


def largest(outputs: np.ndarray, predicted: np.ndarray) -> float:
    """The largest difference where there is a prediction: Keras gives none before a window is full."""
    known = ~np.isnan(predicted)
    return largest_difference(outputs[known], predicted[known])


def compile_milliseconds(file: Path, timesteps: int) -> float:
    """Opening, reading and compiling."""
    took = []
    for _ in range(COMPILATIONS):
        began = time.perf_counter()
        load_program(file, timesteps=timesteps)
        took.append(time.perf_counter() - began)
    return min(took) * 1e3


def shown(difference: float) -> str:
    return f"{difference:.0e}" if difference else "0"


def write(line: str) -> None:
    sys.stdout.write(line + "\n")


def write_generations() -> None:
    """One row a file."""
    write("| written by | file | layers | largest difference |")
    write("|---|---|---|---|")
    for writer, title in WRITERS.items():
        for file in sorted(FOLDER.glob(f"{writer}_*")):
            if file.suffix not in (".h5", ".keras", ".safetensors"):
                continue
            model = re.sub(r"_alone|_hdf5_inside", "", file.name.split(".")[0])
            golden = np.load(FOLDER / f"{model}.npz")
            difference = largest(last_outputs(file, golden["inputs"]), golden["outputs"])
            layers = ", ".join(row.class_name for row in load_program(file).plan)
            name = file.name.removeprefix(writer + "_")
            write(f"| {title} | `{name}` | {layers} | {shown(difference)} |")


def write_architectures() -> None:
    """One row a model; Keras' predictions of every prefix are in `graphs`, those of whole sequences everywhere."""
    write("| model | layers | steps | last step | any prefix | compiled in, ms | state, bytes a stream |")
    write("|---|---|---|---|---|---|---|")
    for file in [file for folder in ARCHITECTURES for file in sorted(folder.glob("*.keras"))]:
        golden = np.load(file.with_suffix(".npz"))
        inputs = golden["inputs"]
        timesteps = inputs.shape[1]
        program = load_program(file, timesteps=timesteps)
        outputs = all_outputs(program, inputs)
        if "prefixes" in golden:
            begun = slice(program.exact_from - 1, None)
            last = largest(outputs[:, -1], golden["prefixes"][:, -1])
            prefixes = shown(largest(outputs[:, begun], golden["prefixes"][:, begun]))
        else:
            last, prefixes = largest(outputs[:, -1], golden["outputs"]), ""
        classes = ", ".join(dict.fromkeys(row.class_name for row in program.plan))
        cost, state = compile_milliseconds(file, timesteps), program.state_size * 4
        write(f"| {file.stem} | {classes} | {timesteps} | {shown(last)} | {prefixes} | {cost:.1f} | {state} |")


def write_memory() -> None:
    """Of a process that reads and compiles the largest of the files."""
    file = max(
        (file for folder in ARCHITECTURES for file in folder.glob("*.keras")), key=lambda file: file.stat().st_size
    )
    timesteps = np.load(file.with_suffix(".npz"))["inputs"].shape[1]
    command = [sys.executable, "-c", MEMORY, str(file), str(timesteps)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    imported, compiled, peak = (int(each) / 1024 for each in done.stdout.split())
    size = file.stat().st_size / 1024
    write(
        f"Memory: {imported:.1f} MiB after the imports, {compiled:.1f} MiB with {file.name} ({size:.0f} KiB) compiled, "
        f"{peak:.1f} MiB at the most."
    )


def main() -> None:
    """Print all of them."""
    write_generations()
    write("")
    write_architectures()
    write("")
    write_memory()


if __name__ == "__main__":
    main()
