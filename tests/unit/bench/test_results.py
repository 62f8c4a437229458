import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.bench.results import percentiles, save, spread
from worker.bench.takeover import first_after

NUMBERS = st.lists(st.floats(-1e9, 1e9), min_size=1, max_size=50)


def test_percentiles_interpolate_between_the_nearest_ranks():
    assert percentiles([4.0, 1.0, 3.0, 2.0, 5.0], (0, 50, 75, 99, 100)) == pytest.approx(
        {"p0": 1.0, "p50": 3.0, "p75": 4.0, "p99": 4.96, "p100": 5.0}
    )


@given(NUMBERS)
def test_the_99th_percentile_is_never_below_the_median_and_never_above_the_highest(values):
    found = percentiles(values)
    assert min(values) <= found["p50"] <= found["p99"] <= max(values)


@given(NUMBERS)
def test_a_spread_holds_its_median(values):
    found = spread(values)
    assert found.lowest <= found.median <= found.highest
    assert found.runs == len(values)


def test_nothing_measured_has_no_figures():
    with pytest.raises(ValueError, match="at least one"):
        spread([])
    with pytest.raises(ValueError, match="at least one"):
        percentiles([])


def test_a_spread_shows_its_range_with_thousands():
    assert spread([1000.0, 3000.0, 2000.0]).text() == "2,000 (1,000 to 3,000)"
    assert spread([0.5]).text(2) == "0.50 (0.50 to 0.50)"


def test_a_result_file_says_when_where_and_by_which_command(tmp_path):
    file = save(tmp_path / "results", "restore", "lstm-worker bench restore", {"rate": spread([1.0, 2.0])})
    found = json.loads(file.read_text())
    assert found["command"] == "lstm-worker bench restore"
    assert found["figures"] == {"rate": {"median": 1.5, "lowest": 1.0, "highest": 2.0, "runs": 2}}
    assert found["machine"]["cores"] >= 1
    assert found["machine"]["load_average_1m"] >= 0
    assert len(found["date"]) == len("2026-11-23")


def test_a_later_result_takes_the_place_of_an_earlier_one(tmp_path):
    save(tmp_path, "restore", "", {"rate": 1})
    assert json.loads(save(tmp_path, "restore", "", {"rate": 2}).read_text())["figures"] == {"rate": 2}
    assert [file.name for file in tmp_path.iterdir()] == ["restore.json"]


def test_what_cannot_be_saved_is_an_error(tmp_path):
    with pytest.raises(TypeError, match="object"):
        save(tmp_path, "restore", "", {"rate": object()})


class Seen:
    """Records with offset n in every partition were due at second n."""

    def __init__(self, seen):
        self.seen = seen

    def due(self, partition, offset):
        del partition
        return float(offset)


def test_a_takeover_counts_the_first_output_of_a_record_due_after_the_kill():
    # Partition 0's offset 5 was due at the kill, though seen after it.
    seen = Seen({(0, 5): 9.0, (0, 7): 8.5, (0, 6): 8.0, (1, 4): 7.0})
    assert first_after(seen, killed=5.0) == {0: 8.0}
