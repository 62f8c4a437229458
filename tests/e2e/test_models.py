"""Models of other shapes on a live stream: graphs, windows, several heads, and what can only be run whole."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tests.e2e.harness import sample
from tests.model_files import FOLDER
from worker.adapters.http_client import metrics_of_running_worker
from worker.errors import ConfigError
from worker.model.buffered import load_buffered
from worker.model.calibration_fit import fit_calibration, forecasts_of, partial_logits, states_by_step
from worker.model.load import load_program

GOLDENS = Path(__file__).parents[1] / "goldens"
GRAPHS = GOLDENS / "graphs"
MODEL = FOLDER / "bidirectional.keras"


def test_a_bidirectional_model_answers_at_its_last_step_and_not_before(job):
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


@pytest.mark.parametrize(
    "name", ["strided_windows", "two_heads", "masked_recurrent", "skip_connections", "masked_per_step"]
)
def test_a_graph_publishes_what_its_float64_evaluation_says_and_null_before_its_first_window(job, name):
    program = load_program(GRAPHS / f"{name}.keras")
    steps = program.timesteps or 8
    samples = np.random.default_rng(2).standard_normal((steps, program.features)).astype(np.float32)
    if program.mask_values:
        samples[2] = program.mask_values[0]
    one = job()
    one.sections["model"] = {"path": str(GRAPHS / f"{name}.keras")}
    one.send([sample(*map(float, row)) for row in samples[: steps // 2]])
    one.start()
    one.wait_processed(steps // 2)
    assert one.stop() == 0, one.errors()
    rest = samples[steps // 2 :]
    one.send([sample(*map(float, row)) for row in rest], times=list(range(steps // 2 + 1, steps + 1)))
    one.start()
    one.wait_processed(len(rest))
    assert one.stop() == 0
    outputs = one.published()
    wanted = program.outputs_of(program.whole(samples[None])[0])
    for step, output in enumerate(outputs, 1):
        found = output["probabilities"] if program.outputs > 1 else [output["probability"]]
        defined = step == program.timesteps if program.exactness == "end" else step >= program.exact_from
        assert output["exact"] == defined
        if not defined:
            assert found in (None, [None])
        else:
            np.testing.assert_allclose(found, wanted[step - 1], atol=1e-6)
    assert [output["step"] for output in outputs] == list(range(1, steps + 1))


def test_a_calibrated_model_publishes_forecasts_in_place_of_its_own_numbers_until_its_last_step(job, tmp_path):
    path, side_car = GOLDENS / "lstm_dropout.keras", tmp_path / "calibration.json"
    program = load_program(path)
    samples = np.random.default_rng(4).standard_normal((200, 6, 3)).astype(np.float32)
    logits, names = partial_logits(program, samples), [str(i) for i in range(200)]
    calibration, _ = fit_calibration(program, logits, names, "test", states=states_by_step(program, samples))
    assert calibration.state_weights is not None
    calibration.save(side_car)
    one = job()
    one.sections["model"] = {"path": str(path), "calibration": str(side_car)}
    one.sections["decide"] = {"threshold": 0.999}
    one.send([sample(*map(float, row)) for row in samples[0]])
    one.send([sample(*map(float, row)) for row in samples[0][:2]], times=[7, 8])
    one.send([b'{"end": true}'], times=[9])
    one.start()
    one.wait_processed(9)
    assert one.stop() == 0, one.errors()
    outputs = one.published()
    closed = outputs.pop()
    assert (closed["final"], closed["exact"], closed["decision"]) == (True, False, None), "step 6 was not reached"
    assert closed["probability"] == outputs.pop()["probability"]
    outputs.pop()
    forecasts = forecasts_of(program, calibration, samples[:1])[0, :, 0]
    wanted = [*forecasts, program.outputs_of(logits[0, -1:])[0, 0]]
    np.testing.assert_allclose([output["probability"] for output in outputs], wanted, atol=1e-6)
    np.testing.assert_allclose([output["logit"] for output in outputs], logits[0, :, 0], atol=1e-6)
    assert [output["exact"] for output in outputs] == [False] * 5 + [True]
    assert {output["calibration"] for output in outputs} == {calibration.id}


def test_states_that_stay_on_the_device_of_tensorflow_are_there_after_a_restart(job):
    path = GRAPHS / "skip_connections.keras"
    program = load_program(path)
    samples = np.random.default_rng(3).standard_normal((2, 6, program.features)).astype(np.float32)
    one = job()
    one.sections["model"] = {"path": str(path), "engine": "tensorflow"}
    keys = [b"a", b"b"]
    for part in ([0, 1, 2], [3, 4, 5]):
        for t in part:
            one.send([sample(*map(float, each)) for each in samples[:, t]], keys=keys, times=[t + 1, t + 1])
        one.start()
        one.wait_processed(6)
        assert one.stop() == 0, one.errors()
    wanted = program.outputs_of(program.whole(samples).reshape(12, 1)).reshape(2, 6)
    outputs = [(keys.index(record.key), json.loads(record.value)) for record in one.read()]
    assert sorted((row, output["step"]) for row, output in outputs) == [(i, t) for i in (0, 1) for t in range(1, 7)]
    exact = [(row, output) for row, output in outputs if output["exact"]]
    assert exact
    for row, output in exact:
        assert abs(output["probability"] - wanted[row, output["step"] - 1]) < 1e-6


def metrics_of(job):
    try:
        return metrics_of_running_worker("127.0.0.1", job.port)
    except ConfigError:
        return ""


def test_an_open_sequence_keeps_its_length_when_sequence_length_changes(job):
    path = str(FOLDER / "prefix.keras")
    one = job(sequence={"length": 5})
    one.send([sample(0.1, 0.2)] * 3)
    one.start()
    one.wait_processed(3)
    assert one.stop() == 0, one.errors()
    one.sections["sequence"] = {"length": 3}
    one.sections["model"] = {"path": path, "on_change": "finish"}
    one.start("--set", f"model.previous={path}")
    assert one.wait() == 2
    assert "name its file in model.previous" in one.errors()
    assert "with its length where that was another" in one.errors()
    one.start("--set", "model.previous=" + json.dumps({"path": path, "length": 5}))
    older = load_program(path, timesteps=5).fingerprint[:8]
    one.wait_until(lambda: f'older_model_sequences{{model="{older}"}} 1.0' in metrics_of(one))
    one.send([sample(0.1, 0.2)] * 5, times=[4, 5, 6, 7, 8])
    one.wait_until(lambda: f'older_model_sequences{{model="{older}"}} 0.0' in metrics_of(one))
    one.wait_processed(5)
    assert one.stop() == 0, one.errors()
    told = [(output["step"], output["length"], output["ended_by"]) for output in one.published()]
    old = [(step, 5, "length" if step == 5 else None) for step in (1, 2, 3, 4, 5)]
    assert told == [*old, (1, 3, None), (2, 3, None), (3, 3, "length")]
