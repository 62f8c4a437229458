"""From a path to a step program."""

from __future__ import annotations

from pathlib import Path

from worker.model.compile import compile_model
from worker.model.files.reading import open_model_file
from worker.model.program import StepProgram


def load_program(path: str | Path, *, timesteps: int | None = None, architecture: Path | None = None) -> StepProgram:
    """Read and compile a trained file; `timesteps` where the file does not fix them, `architecture` where it lacks one.

    Raises ModelNotStreamable with one line: file or layer, reason, way out.
    """
    with open_model_file(Path(path), architecture) as file:
        return compile_model(file, timesteps)
