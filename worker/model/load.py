"""From a path to a step program."""

from __future__ import annotations

from pathlib import Path

from worker.errors import ConfigError, ModelNotStreamable, printable
from worker.model.buffered import load_buffered
from worker.model.compile import compile_model
from worker.model.files.reading import open_model_file
from worker.model.files.weights import WAY_OUT
from worker.model.program import StepProgram
from worker.model.rules.context import OR_BUFFER


def load_program(
    path: str | Path, *, timesteps: int | None = None, architecture: Path | None = None, mode: str = "step"
) -> StepProgram:
    """Read and compile a trained file; `timesteps` where the file does not fix them, `architecture` where it lacks one.

    `mode`: step | buffer. Raises ModelNotStreamable with one line: file, layer, reason, way out.
    """
    if mode == "buffer":
        if architecture is not None:
            raise ModelNotStreamable(
                "buffer mode needs a whole model, not weights", "save it with model.save('model.keras')"
            )
        return load_buffered(Path(path), timesteps)
    with open_model_file(Path(path), architecture) as file:
        try:
            return compile_model(file, timesteps)
        except ModelNotStreamable as error:
            message = error.message if printable(str(path)) in error.message else f"{path}: {error.message}"
            hint = error.hint.replace(WAY_OUT, file.way_out)
            if architecture is not None or file.way_out != WAY_OUT:
                # Weights without their model cannot be run by Keras.
                hint = hint.removesuffix(OR_BUFFER)
            raise ModelNotStreamable(message, hint) from error


def check_timesteps(program: StepProgram, timesteps: int | None, path: str | Path) -> None:
    """Raises ConfigError where the user gave other timesteps than those that the program's file fixes."""
    if timesteps is not None and timesteps != program.timesteps:
        raise ConfigError(f"--timesteps {timesteps}: {path} fixes {program.timesteps}", "leave --timesteps out")
