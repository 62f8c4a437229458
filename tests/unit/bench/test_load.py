import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.bench.load import PARTITIONS, Load, stream_key, stream_partition


def test_without_skew_the_streams_take_turns():
    assert Load(5, 3, 2).stream_numbers().tolist() == [0, 1, 2, 0, 1]


@given(streams=st.integers(1, 500), zipf=st.floats(0.1, 3), seed=st.integers(0, 9))
def test_skewed_keys_stay_within_the_streams(streams, zipf, seed):
    numbers = Load(200, streams, 1, zipf=zipf, seed=seed).stream_numbers()
    assert len(numbers) == 200
    assert numbers.min() >= 0
    assert numbers.max() < streams


def test_the_kth_most_frequent_stream_has_a_share_in_proportion_to_k_to_the_minus_s():
    load = Load(200_000, 1_000, 1, zipf=1.2)
    counts = np.bincount(load.stream_numbers(), minlength=1_000)
    assert counts[0] / counts[1] == pytest.approx(2**1.2, rel=0.05)
    assert counts[0] / counts[9] == pytest.approx(10**1.2, rel=0.1)
    assert counts[0] / load.records == pytest.approx(1 / sum(k**-1.2 for k in range(1, 1_001)), rel=0.05)


def test_the_same_seed_gives_the_same_load_and_another_seed_another():
    first, again, other = (Load(100, 50, 2, zipf=1.2, seed=seed) for seed in (1, 1, 2))
    assert (first.stream_numbers() == again.stream_numbers()).all()
    assert first.values() == again.values()
    assert (first.stream_numbers() != other.stream_numbers()).any()
    assert first.values() != other.values()


def test_binary_values_are_little_endian_float32_and_json_values_hold_the_same_numbers():
    binary, text = Load(10, 2, 3), Load(10, 2, 3, "json")
    decoded = np.frombuffer(b"".join(binary.values()), "<f4").reshape(10, 3)
    assert (decoded == binary.samples()).all()
    assert np.array([orjson.loads(value)["features"] for value in text.values()]) == pytest.approx(decoded, abs=1e-6)


@given(st.integers(0, 9_999_999))
def test_a_stream_has_one_key_and_one_partition(stream):
    assert int(stream_key(stream)[1:]) == stream
    assert 0 <= stream_partition(stream) < PARTITIONS
