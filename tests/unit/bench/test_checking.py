import math
from pathlib import Path

import numpy as np
import pytest

from worker.bench.checking import Numbers, difference, numbers_of, reference, sampled, wrong
from worker.bench.load import Load, stream_key
from worker.config import Settings
from worker.serving import load_model

MODEL = Path(__file__).resolve().parents[3] / "examples" / "basic_motions" / "badminton.keras"
RIGHT = [Numbers(1, 0.25), Numbers(2, math.nan), Numbers(3, 0.5)]


@pytest.mark.parametrize(
    ("actual", "problem"),
    [
        (RIGHT, ""),
        ([Numbers(1, 0.250001), *RIGHT[1:]], ""),
        ([Numbers(1, 0.2501), *RIGHT[1:]], "probabilities differ by 1.0e-04"),
        ([*RIGHT[:1], Numbers(2, 0.3), *RIGHT[2:]], "probabilities differ"),
        (RIGHT[:2], "steps are missing"),
        ([RIGHT[0], *RIGHT], "steps are missing, doubled"),
        ([RIGHT[1], RIGHT[0], RIGHT[2]], "out of order"),
    ],
)
def test_outputs_are_wrong_when_a_step_or_a_number_is(actual, problem):
    found = difference(actual, RIGHT)
    assert problem in found
    assert bool(found) == bool(problem)


def test_the_sample_holds_the_first_and_the_last_stream_with_all_their_first_samples():
    load = Load(1_000, 100, 3)
    found = sampled(load)
    assert {0, 99} <= set(found)
    assert (found[99] == load.samples()[99::100]).all()


def test_samples_of_json_loads_are_those_that_the_text_says():
    found = sampled(Load(10, 2, 1, "json"))[0]
    assert found == pytest.approx(np.round(Load(10, 2, 1).samples()[0::2], 6), abs=1e-7)


def test_a_sequence_begins_anew_after_the_models_length():
    model = load_model(Settings(model={"path": str(MODEL)}))
    samples = np.tile(np.ones(3, np.float32), (205, 1))
    found = reference(model, samples)
    assert [each.step for each in found] == [*range(1, 101), *range(1, 101), *range(1, 6)]
    assert found[0] == found[100] == found[200]
    assert found[99] == found[199]


def test_outputs_are_read_from_both_formats():
    packed = np.array([(7, 0.5, 3, 9)], np.dtype([("s", "<i4"), ("p", "<f4"), ("f", "u1"), ("o", "<i8")])).tobytes()
    assert numbers_of(packed, "binary") == Numbers(7, 0.5)
    assert numbers_of(b'{"step":7,"probability":0.5}', "json") == Numbers(7, 0.5)
    assert math.isnan(numbers_of(b'{"step":7,"probability":null}', "json").probability)


def test_streams_without_records_are_not_in_the_sample():
    load = Load(50, 10_000, 1, zipf=2.0)
    assert all(len(samples) for samples in sampled(load).values())
    assert 0 in sampled(load)


def test_of_a_broker_that_forgets_the_outputs_that_it_still_holds_are_compared():
    model, load = load_model(Settings(model={"path": str(MODEL)})), Load(1_200, 2, 3)
    everything = {stream_key(stream): reference(model, rows) for stream, rows in sampled(load, None).items()}
    newest = {key: outputs[-250:] for key, outputs in everything.items()}
    assert wrong(everything, load, model, newest_only=False) == ""
    assert wrong(newest, load, model, newest_only=True) == ""
    assert "steps are missing" in wrong(newest, load, model, newest_only=False)
    assert "no output" in wrong({}, load, model, newest_only=True)
    newest[stream_key(1)][7] = Numbers(newest[stream_key(1)][7].step, 0.123)
    assert wrong(newest, load, model, newest_only=True).startswith("stream 1: probabilities differ")
