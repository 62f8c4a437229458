"""`model.mode = "buffer"`: a bidirectional model on a live stream."""

from __future__ import annotations

import numpy as np
import pytest

from tests.e2e.harness import sample
from tests.model_files import FOLDER
from worker.model.buffered import load_buffered

MODEL = FOLDER / "bidirectional.keras"


def test_a_bidirectional_model_answers_at_its_last_step_and_not_before(job):
    pytest.importorskip("tensorflow")
    samples = np.random.default_rng(1).standard_normal((7, 3)).astype(np.float32)
    one = job()
    one.sections["model"] = {"path": str(MODEL), "mode": "buffer"}
    one.send([sample(*map(float, row)) for row in samples[:4]])
    one.start()
    one.wait_processed(4)
    assert one.stop() == 0
    one.send([sample(*map(float, row)) for row in samples[4:]], times=[5, 6, 7])
    one.start()
    one.wait_processed(3)
    assert one.stop() == 0
    outputs = one.published()
    assert [output["step"] for output in outputs] == [1, 2, 3, 4, 5, 6, 7], "the samples outlive the process"
    assert [(output["probability"], output["logit"]) for output in outputs[:-1]] == [(None, None)] * 6
    program = load_buffered(MODEL)
    logit = float(program.whole(samples[None])[0, -1, 0])
    assert outputs[-1]["exact"]
    assert abs(outputs[-1]["probability"] - 1 / (1 + np.exp(-logit))) < 1e-6
