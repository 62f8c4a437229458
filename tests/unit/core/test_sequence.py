"""The rules of one stream's sequences, one behaviour a test."""

from __future__ import annotations

import pytest

from worker.core.sequence import Effect, OnGap, OpenSequence, SequenceRecord, SequenceRules, advance, close
from worker.core.types import EndedBy, Kind

TAINT, RESET, REJECT = OnGap.TAINT, OnGap.RESET, OnGap.REJECT


def sample(offset: int = 0, time: int = 0, **controls: object) -> SequenceRecord:
    return SequenceRecord(Kind.SAMPLE, offset, time, **controls)


def after(*records: SequenceRecord, rules: SequenceRules | None = None) -> OpenSequence:
    sequence = OpenSequence()
    for record in records:
        if advance(sequence, record, rules or SequenceRules()).ended_by:
            close(sequence)
    return sequence


def test_the_first_sample_opens_a_sequence_that_is_known_by_its_offset():
    sequence = after(sample(offset=41))
    assert (sequence.step, sequence.first_offset) == (1, 41)


def test_the_sample_that_completes_the_length_is_final():
    sequence = after(sample(), sample())
    assert advance(sequence, sample(), SequenceRules(length=3)).ended_by is EndedBy.LENGTH


def test_a_sample_with_an_end_marker_is_final():
    assert advance(OpenSequence(), sample(end=True), SequenceRules()).ended_by is EndedBy.END_MARKER


def test_the_last_sample_of_the_length_that_carries_end_as_well_ends_by_length():
    assert advance(after(sample()), sample(end=True), SequenceRules(length=2)).ended_by is EndedBy.LENGTH


def test_a_boundary_without_a_sample_closes_the_open_sequence():
    sequence = after(sample())
    verdict = advance(sequence, SequenceRecord(Kind.END, 1, 1), SequenceRules())
    assert (verdict.effect, verdict.closed_by) == (Effect.BOUNDARY, EndedBy.END_MARKER)
    assert not sequence.is_open


def test_a_boundary_on_a_stream_without_a_sequence_does_nothing():
    verdict = advance(OpenSequence(), SequenceRecord(Kind.END, 1, 1), SequenceRules())
    assert (verdict.effect, verdict.closed_by) == (Effect.NO_SEQUENCE, EndedBy.NONE)


def test_another_sequence_id_closes_the_old_sequence_and_its_sample_is_step_1_of_the_new():
    sequence = after(sample(sequence_id=b"x"), sample(sequence_id=b"x"))
    verdict = advance(sequence, sample(offset=9, sequence_id=b"y"), SequenceRules())
    assert verdict.closed_by is EndedBy.SEQUENCE_CHANGE
    assert (sequence.step, sequence.first_offset, sequence.sequence_id) == (1, 9, b"y")


def test_a_record_without_a_sequence_id_continues_the_open_sequence():
    assert after(sample(sequence_id=b"x"), sample()).step == 2


def test_an_end_that_names_another_sequence_closes_the_open_one_as_changed():
    sequence = after(sample(sequence_id=b"x"))
    verdict = advance(sequence, SequenceRecord(Kind.END, 1, 1, sequence_id=b"y"), SequenceRules())
    assert verdict.closed_by is EndedBy.SEQUENCE_CHANGE


@pytest.mark.parametrize("step", [1, 2])
def test_a_step_not_above_the_last_one_is_a_duplicate_and_changes_nothing(step):
    sequence = after(sample(step=1), sample(step=2))
    assert advance(sequence, sample(step=step), SequenceRules()).effect is Effect.DUPLICATE
    assert sequence.step == 2


def test_step_1_with_a_later_event_time_is_a_restart_of_the_producer():
    sequence = after(sample(time=5, step=1), sample(time=6, step=2))
    verdict = advance(sequence, sample(offset=7, time=7, step=1), SequenceRules())
    assert (verdict.closed_by, verdict.effect) == (EndedBy.RESTART, Effect.STEPPED)
    assert (sequence.step, sequence.first_offset) == (1, 7)


def test_step_1_with_the_same_event_time_is_a_duplicate():
    sequence = after(sample(time=6, step=1))
    assert advance(sequence, sample(time=6, step=1), SequenceRules()).effect is Effect.DUPLICATE


def test_a_gap_taints_and_the_sample_is_the_next_model_step():
    sequence = after(sample(step=1))
    verdict = advance(sequence, sample(step=4), SequenceRules())
    assert (verdict.effect, verdict.gap) == (Effect.STEPPED, True)
    assert (sequence.step, sequence.producer_step, sequence.tainted) == (2, 4, True)


def test_a_gap_with_reset_closes_the_old_sequence_and_starts_an_untainted_one():
    sequence = after(sample(step=1))
    verdict = advance(sequence, sample(offset=3, step=4), SequenceRules(on_gap=RESET))
    assert verdict.closed_by is EndedBy.GAP
    assert (sequence.step, sequence.producer_step, sequence.tainted) == (1, 4, False)


def test_a_gap_with_reject_taints_without_a_step_and_goes_on_from_the_given_one():
    sequence = after(sample(step=1))
    assert advance(sequence, sample(step=4), SequenceRules(on_gap=REJECT)).effect is Effect.GAP_REJECTED
    assert (sequence.step, sequence.producer_step, sequence.tainted) == (1, 4, True)
    assert advance(sequence, sample(step=5), SequenceRules(on_gap=REJECT)).effect is Effect.STEPPED


@pytest.mark.parametrize(("on_gap", "open_after", "tainted"), [(TAINT, 1, True), (RESET, 1, False), (REJECT, 0, False)])
def test_a_gap_at_the_start_follows_the_same_policies(on_gap, open_after, tainted):
    sequence = OpenSequence()
    verdict = advance(sequence, sample(step=3), SequenceRules(on_gap=on_gap))
    assert verdict.gap
    assert verdict.closed_by is EndedBy.NONE
    assert (sequence.step, sequence.tainted) == (open_after, tainted)


def test_an_unusable_record_taints_the_open_sequence_and_only_that():
    sequence = after(sample(), SequenceRecord(Kind.REJECTED, 1, 1))
    assert sequence.tainted
    assert not after(SequenceRecord(Kind.REJECTED, 1, 1), sample()).tainted


def test_a_new_sequence_is_not_tainted_by_the_old_one():
    sequence = after(sample(), SequenceRecord(Kind.REJECTED, 1, 1), sample(end=True), sample())
    assert not sequence.tainted
