"""What is said of a model when it is loaded."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from worker.config import Settings
from worker.serving import load_model

TESTS = Path(__file__).parents[1]
KERNEL_LACKS = TESTS / "goldens" / "graphs" / "branches_of_one_length.keras"
REFERENCE = TESTS.parent / "examples" / "basic_motions" / "badminton.keras"


@pytest.mark.parametrize(
    ("path", "engine", "said"),
    [(KERNEL_LACKS, "auto", True), (KERNEL_LACKS, "numpy", False), (REFERENCE, "auto", False)],
)
def test_a_model_that_auto_cannot_step_by_the_kernel_is_told_with_the_reason(path, engine, said, caplog):
    with caplog.at_level(logging.INFO):
        load_model(Settings(model={"path": str(path), "engine": engine}))
    notices = [record.getMessage() for record in caplog.records if "not by the kernel" in record.getMessage()]
    assert bool(notices) == said
    assert all("without branches" in notice for notice in notices)
