"""Nothing that a fault test started outlives it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.faults.exactly_once import kill_what_is_left


@pytest.fixture(autouse=True, scope="module")
def _no_worker_is_left() -> Iterator[None]:
    yield
    kill_what_is_left()
