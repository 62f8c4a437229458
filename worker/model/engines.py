"""Which engine steps a program."""

from __future__ import annotations

import importlib.util

from worker.core.types import Float32Array, Int32Array, Int64Array
from worker.core.waves import deepest
from worker.errors import ConfigError
from worker.model.buffered import BUFFER_CLASS
from worker.model.contract import Verification, verify
from worker.model.kernel.operations import KernelOp, Operation, tables
from worker.model.kernel.stepper import KernelStepper
from worker.model.numpy_stepper import NumpyStepper
from worker.model.program import StepProgram
from worker.model.tensorflow_stepper import TensorFlowStepper
from worker.ports import Stepper

WAVE_STREAMS_MIN = 64
"""Streams a wave from which NumPy is the cheaper engine for small models: a wave costs it 20 to 30 µs whatever its size
(`python -m benchmarks.engines`)."""
KERNEL_ALWAYS_WEIGHTS_MAX = 1 << 15
"""Up to it (an LSTM of 85 units) the kernel is the cheaper engine for any wave: from about 50 units on NumPy needs less
time for waves of many streams, but holds the interpreter's lock, while the kernel runs beside the next poll."""
KERNEL_WEIGHTS_MAX = 1 << 17
"""Above it (an LSTM of more than 180 units) the kernel loses for small waves, too."""


class SmallWavesByKernel:
    """NumPy for batches of many streams, the kernel for those of few: a hot key costs no wave for each sample."""

    def __init__(self, by_waves: NumpyStepper, by_record: KernelStepper) -> None:
        self.features = by_waves.features
        self.state_size = by_waves.state_size
        self.columns = by_waves.columns
        self.releases_lock = False
        self.by_waves = by_waves
        self.by_record = by_record

    def step_batch(
        self, slots: Int64Array, features: Float32Array, states: Float32Array, steps: Int32Array
    ) -> Float32Array:
        """See worker.ports.Stepper."""
        engine = self.by_record if len(slots) < WAVE_STREAMS_MIN * deepest(slots) else self.by_waves
        return engine.step_batch(slots, features, states, steps)


def verify_engine(program: StepProgram, stepper: Stepper) -> Verification:
    """Verify each engine that a stepper may choose; the worst of them. Raises ModelNotStreamable."""
    engines = (stepper.by_waves, stepper.by_record) if isinstance(stepper, SmallWavesByKernel) else (stepper,)
    return max((verify(program, engine) for engine in engines), key=lambda each: each.largest_difference)


def stepper_for(program: StepProgram, engine: str = "auto") -> Stepper:
    """`numpy`: waves of streams, cheapest for large models. `kernel`: the same cost a sample for any number of streams.
    `tensorflow`: waves compiled by XLA, on the GPU where there is one. `auto`: where numba is installed the kernel for
    models within KERNEL_ALWAYS_WEIGHTS_MAX, and for small waves of those within KERNEL_WEIGHTS_MAX; NumPy for all
    others.

    Raises ConfigError for an engine that cannot be had.
    """
    if engine == "numpy":
        return NumpyStepper(program)
    if engine == "tensorflow":
        if importlib.util.find_spec("tensorflow") is None:
            raise _impossible(engine, "tensorflow is not installed, pip install tensorflow")
        if any(node.class_name == BUFFER_CLASS for node in program.nodes):
            raise _impossible(engine, "model.mode = 'buffer' runs the model by Keras")
        return TensorFlowStepper(program)
    found, reason = operations_of(program)
    if found is None:
        if engine == "kernel":
            raise _impossible(engine, reason)
        return NumpyStepper(program)
    weights = sum(_weights_read(op) for op, _ in found)
    if engine == "auto" and weights > KERNEL_WEIGHTS_MAX:
        return NumpyStepper(program)
    by_record = KernelStepper(program, tables(found, program.features))
    if engine == "kernel" or weights <= KERNEL_ALWAYS_WEIGHTS_MAX:
        return by_record
    return SmallWavesByKernel(NumpyStepper(program), by_record)


def _impossible(engine: str, reason: str) -> ConfigError:
    return ConfigError(f"model.engine = {engine!r} is not possible: {reason}", "or use numpy")


def _weights_read(op: KernelOp) -> int:
    """In one step, as far as the choice of an engine is concerned: of the state weights it is one step's slice."""
    if op.operation is Operation.STATE_SCORES:
        return op.inputs * op.outputs
    return sum(weight.size for weight in op.weights)


def operations_of(program: StepProgram) -> tuple[list[tuple[KernelOp, int]] | None, str]:
    """The program's operations for the kernel, each with its first column in the state row; else why it cannot be."""
    operations: list[tuple[KernelOp, int]] = []
    column = 0
    if importlib.util.find_spec("numba") is None:
        return None, "numba is not installed, pip install 'lstm-worker[kernel]'"
    if not program.is_chain:
        return None, "it steps layers one after the other, without branches, strides or masks"
    for node in program.nodes:
        if node.kernel is None:
            return None, f"it has no {node.class_name} like that of layer {node.layer!r}"
        operations.extend((op, column) for op in node.kernel)
        column += node.state_floats
    if program.state_weights is not None:
        scores = KernelOp(Operation.STATE_SCORES, program.state_size, program.outputs, (program.state_weights,))
        operations.append((scores, 0))
    return operations, ""
