"""Why the last worker ended is known to the next one on the same state directory."""

from __future__ import annotations

import pytest

from worker.adapters.clock import SystemClock
from worker.adapters.exit_record import EXIT_FILE, Exit, exit_recorded, previous_exit
from worker.errors import ChangelogTooShort, StateDirectoryInUse


def end_with(directory, error):
    with pytest.raises(type(error)), exit_recorded(directory, SystemClock()):
        raise error


def test_a_reason_that_a_person_must_mend_is_left_with_its_code(tmp_path):
    end_with(tmp_path, ChangelogTooShort("the changelog is short"))
    left = previous_exit(tmp_path)
    assert left == Exit("changelog_too_short", 9, left.at_ms)


def test_a_bug_is_left_as_exit_code_1(tmp_path):
    end_with(tmp_path, ZeroDivisionError())
    assert (previous_exit(tmp_path).reason, previous_exit(tmp_path).code) == ("zero_division_error", 1)


def test_a_clean_end_leaves_nothing(tmp_path):
    end_with(tmp_path, ChangelogTooShort("the changelog is short"))
    with exit_recorded(tmp_path, SystemClock()):
        pass
    assert previous_exit(tmp_path) is None


def test_a_second_process_does_not_write_into_the_directory_of_the_first(tmp_path):
    end_with(tmp_path, StateDirectoryInUse("in use"))
    assert not (tmp_path / EXIT_FILE).exists()


def test_a_note_that_was_cut_short_is_no_note(tmp_path):
    (tmp_path / EXIT_FILE).write_text('{"reason": "fen')
    assert previous_exit(tmp_path) is None
