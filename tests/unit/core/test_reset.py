"""Where a reset moves offsets to."""

from __future__ import annotations

import pytest

from worker.core.reset import ResetTo, reset_targets
from worker.core.restore import Log
from worker.errors import ConfigError

LOGS = {0: Log(5, 50), 1: Log(0, 9)}


def test_earliest_is_the_first_sample_that_is_still_there():
    assert reset_targets(ResetTo("earliest"), LOGS) == {0: 5, 1: 0}


def test_latest_is_the_end():
    assert reset_targets(ResetTo("latest"), LOGS) == {0: 50, 1: 9}


def test_an_offset_holds_for_each_partition_and_may_be_its_end():
    assert reset_targets(ResetTo("offset", 9), LOGS) == {0: 9, 1: 9}


@pytest.mark.parametrize("offset", [4, 10])
def test_an_offset_that_a_partition_does_not_hold_is_refused_with_what_it_holds(offset):
    with pytest.raises(ConfigError, match=f"holds offsets .* not {offset}"):
        reset_targets(ResetTo("offset", offset), LOGS)


def test_a_timestamp_after_every_sample_is_the_end():
    assert reset_targets(ResetTo("timestamp"), LOGS, {0: 20, 1: None}) == {0: 20, 1: 9}
