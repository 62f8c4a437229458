"""The kernel's product by itself, compiled: importing it needs numba."""

from __future__ import annotations

from typing import Any

from numba import njit

from worker.model.kernel.pointers import add_product, pointer


@njit
def product(z: Any, x: Any, weights: Any, width: int) -> None:
    """z[:width] += x · W, W laid out by `in_blocks`."""
    add_product(pointer(z), pointer(x), len(x), pointer(weights), width)
