"""Which engine steps a program."""

from __future__ import annotations

import importlib.util

from worker.errors import ConfigError
from worker.model.kernel.operations import KernelOp, KernelTables, tables
from worker.model.kernel.stepper import KernelStepper
from worker.model.numpy_stepper import NumpyStepper
from worker.model.program import StepProgram
from worker.ports import Stepper


def stepper_for(program: StepProgram, engine: str = "auto") -> Stepper:
    """`auto` and `numpy`: waves of streams, cheapest where a batch holds many; `kernel`: the same cost a sample for any
    number of streams, thirty times less than a wave of one. Raises ConfigError for a kernel that cannot be had.
    """
    if engine != "kernel":
        return NumpyStepper(program)
    found, reason = kernel_tables(program)
    if found is not None and importlib.util.find_spec("numba") is None:
        found, reason = None, "numba is not installed, pip install 'lstm-worker[kernel]'"
    if found is None:
        raise ConfigError(f"model.engine = 'kernel' is not possible: {reason}", "or use numpy")
    return KernelStepper(program, found)


def kernel_tables(program: StepProgram) -> tuple[KernelTables | None, str]:
    """The program for the kernel, else why not."""
    operations: list[tuple[KernelOp, int]] = []
    column = 0
    if not program.is_chain:
        return None, "the kernel steps layers one after the other, without branches, strides or masks"
    for node in program.nodes:
        if node.kernel is None:
            return None, f"the kernel has no {node.class_name} like that of layer {node.layer!r}"
        operations.extend((op, column) for op in node.kernel)
        column += node.state_floats
    return tables(operations, program.features), ""
