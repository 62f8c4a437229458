"""What the compiled loop needs below numba's arrays: pointers, and a product that keeps its sums in registers.

Written as LLVM instructions, through llvmlite.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import extending, types
from numba.core import cgutils

from worker.model.kernel.operations import BLOCKS

# Untyped: a caller does not pass the context that the function below it takes.
intrinsic: Any = extending.intrinsic

INT32, FLOAT = ir.IntType(32), ir.FloatType()


@intrinsic
def times_power_of_two(context: Any, value: Any, power: Any) -> Any:
    """value · 2^power by adding to the exponent's bits; Python's integers would widen to 64 bits and not vectorise."""
    del context, value, power

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        value, power = arguments
        shift = builder.shl(builder.fptosi(power, INT32), ir.Constant(INT32, 23))
        return builder.bitcast(builder.add(builder.bitcast(value, INT32), shift), FLOAT)

    return types.float32(types.float32, types.float32), generate


@intrinsic
def pointer(context: Any, array: Any) -> Any:
    """To the first element; the array must outlive it."""
    del context

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return context.make_array(signature.args[0])(context, builder, arguments[0]).data

    return types.CPointer(array.dtype)(array), generate


@intrinsic
def row_pointer(context: Any, array: Any, row: Any) -> Any:
    """To the first element of a row of a two-dimensional array."""
    del context, row

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        found = context.make_array(signature.args[0])(context, builder, arguments[0])
        stride = builder.extract_value(found.strides, 0)
        return cgutils.pointer_add(builder, found.data, builder.mul(stride, arguments[1]), found.data.type)

    return types.CPointer(array.dtype)(array, types.int64), generate


@intrinsic
def after(context: Any, start: Any, count: Any) -> Any:
    """The pointer to the element `count` after the first."""
    del context, count

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return builder.gep(arguments[0], [arguments[1]])

    return start(start, types.int64), generate


@intrinsic
def add_product(context: Any, z: Any, x: Any, rows: Any, weights: Any, width: Any) -> Any:
    """z (width,) += x (rows,) · W, W in blocks of columns (operations.py). Every sum is added up in the order of rows.

    The sums of a block stay in registers while all rows are added.
    """
    del context, x, rows, weights, width

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        begin: Any = ir.Constant(arguments[4].type, 0)
        for lanes, sums in BLOCKS:
            begin = _add_columns(builder, arguments, begin, lanes, sums)
        return cgutils.get_null_value(ir.LiteralStructType([]))

    return types.void(z, z, types.int64, z, types.int64), generate


def _add_columns(builder: Any, arguments: Any, begin: Any, lanes: int, sums: int) -> Any:
    """As many whole blocks of lanes · sums columns as there are from `begin` on; returns the first column not taken."""
    z, x, rows, weights, width = arguments
    word = width.type
    kind: Any = ir.VectorType(FLOAT, lanes) if lanes > 1 else FLOAT
    block = ir.Constant(word, lanes * sums)
    blocks = builder.sdiv(builder.sub(width, begin), block)
    suffix = f"v{lanes}f32" if lanes > 1 else "f32"
    signature = ir.FunctionType(kind, [kind] * 3)
    # Fused where the processor can, two instructions elsewhere.
    multiply_add = cgutils.get_or_insert_function(builder.module, signature, f"llvm.fmuladd.{suffix}")
    totals = [cgutils.alloca_once(builder, kind) for _ in range(sums)]

    def part(start: Any, at: Any, number: int) -> Any:
        at = builder.add(at, ir.Constant(word, lanes * number))
        return builder.bitcast(builder.gep(start, [at]), kind.as_pointer())

    with cgutils.for_range(builder, blocks) as loop:
        column = builder.add(begin, builder.mul(loop.index, block))
        for number, total in enumerate(totals):
            builder.store(builder.load(part(z, column, number), align=4), total)
        first = builder.mul(column, rows)
        with cgutils.for_range(builder, rows) as row:
            factor = builder.load(builder.gep(x, [row.index]))
            if lanes > 1:
                factor = _repeated(builder, factor, kind)
            begins = builder.add(first, builder.mul(row.index, block))
            for number, total in enumerate(totals):
                weight = builder.load(part(weights, begins, number), align=4)
                builder.store(builder.call(multiply_add, [factor, weight, builder.load(total)]), total)
        for number, total in enumerate(totals):
            builder.store(builder.load(total), part(z, column, number), align=4)
    return builder.add(begin, builder.mul(blocks, block))


def _repeated(builder: Any, value: Any, kind: Any) -> Any:
    """A vector with one value in all its lanes."""
    first = builder.insert_element(ir.Constant(kind, ir.Undefined), value, ir.Constant(INT32, 0))
    every = ir.Constant(ir.VectorType(INT32, kind.count), [0] * kind.count)
    return builder.shuffle_vector(first, ir.Constant(kind, ir.Undefined), every)
