"""The life of one stream's sequences: which record starts, continues or ends one.

`advance` is the specification, one record at a time; `routing.py` applies it to whole batches.

Two counters: the *model step* counts the samples stepped (it drives the length and the per-step weights), the
*producer step* is the record's own `step` (it detects duplicates and gaps). A sequence without an end stays open.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from worker.core.types import EndedBy, Kind


class OnGap(Enum):
    """What a `step` that skips ahead means for its sequence."""

    TAINT = "taint"
    RESET = "reset"
    REJECT = "reject"


@dataclass(frozen=True, slots=True)
class SequenceRules:
    """`length`: samples in a complete sequence, 0 for no fixed length. `idle_timeout_ms`: event time, 0 for never."""

    length: int = 0
    on_gap: OnGap = OnGap.TAINT
    idle_timeout_ms: int = 0
    older_lengths: tuple[int, ...] = ()
    """`length` of the models 1, 2, … whose open sequences are finished; model 0 is the one that begins sequences."""

    def length_of(self, model: int) -> int:
        return self.older_lengths[model - 1] if model else self.length


@dataclass(slots=True)
class OpenSequence:
    """What the rules need to know of a stream; `step` 0 means that no sequence is open."""

    step: int = 0
    producer_step: int = 0
    first_offset: int = 0
    last_offset: int = 0
    event_time: int = 0
    sequence_id: bytes = b""
    tainted: bool = False
    not_finite: bool = False
    decided: bool = False
    """Its early decision has been published."""
    model: int = 0
    """Of those of `SequenceRules`; a sequence ends with the model that it began with."""

    @property
    def is_open(self) -> bool:
        return self.step > 0


@dataclass(frozen=True, slots=True)
class SequenceRecord:
    """A decoded record as the rules see it. `step` 0 and `sequence_id` None: not given."""

    kind: Kind
    offset: int
    event_time: int
    end: bool = False
    step: int = 0
    sequence_id: bytes | None = None


class Effect(Enum):
    """What happens to the record itself; a closing of the old sequence comes on top (`Verdict.closed_by`)."""

    STEPPED = "stepped"
    DUPLICATE = "duplicate"
    GAP_REJECTED = "gap_rejected"
    BOUNDARY = "boundary"
    """A record without a sample that ended the open sequence."""
    NO_SEQUENCE = "no_sequence"
    """A boundary, or an unusable record, on a stream without an open sequence."""
    TAINTED = "tainted"
    """An unusable record that tainted the open sequence."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """The rules' answer to one record.

    `closed_by`: the open sequence ended *before* this record and gets a closing record; NONE where it did not.
    `ended_by`: the record's own sample is its sequence's last; NONE where it is not.
    """

    effect: Effect
    closed_by: EndedBy = EndedBy.NONE
    ended_by: EndedBy = EndedBy.NONE
    gap: bool = False


def advance(sequence: OpenSequence, record: SequenceRecord, rules: SequenceRules) -> Verdict:
    """Apply one record of the stream, in offset order. Changes `sequence` in place.

    After a verdict with `closed_by` or `ended_by` the sequence's identity and last step are still readable until the
    next call; `closed_by` with effect STEPPED has already replaced them by the new sequence's.
    """
    if record.kind == Kind.REJECTED:
        if not sequence.is_open:
            return Verdict(Effect.NO_SEQUENCE)
        sequence.tainted = True
        return Verdict(Effect.TAINTED)
    if record.kind == Kind.END:
        return _boundary(sequence, record)
    return _sample(sequence, record, rules)


def close(sequence: OpenSequence) -> None:
    """Forget the open sequence; the next sample is step 1 of a new one."""
    sequence.step = 0
    sequence.producer_step = 0
    sequence.sequence_id = b""
    sequence.tainted = False
    sequence.not_finite = False
    sequence.decided = False
    sequence.model = 0


def _boundary(sequence: OpenSequence, record: SequenceRecord) -> Verdict:
    if not sequence.is_open:
        return Verdict(Effect.NO_SEQUENCE)
    changed = record.sequence_id is not None and record.sequence_id != sequence.sequence_id
    close(sequence)
    return Verdict(Effect.BOUNDARY, EndedBy.SEQUENCE_CHANGE if changed else EndedBy.END_MARKER)


def _sample(sequence: OpenSequence, record: SequenceRecord, rules: SequenceRules) -> Verdict:
    closed_by = EndedBy.NONE
    gap = False
    if sequence.is_open and record.sequence_id is not None and record.sequence_id != sequence.sequence_id:
        closed_by = EndedBy.SEQUENCE_CHANGE
        close(sequence)
    if record.step > 0:
        if sequence.is_open and record.step <= sequence.producer_step:
            if not (record.step == 1 and record.event_time > sequence.event_time):
                return Verdict(Effect.DUPLICATE, closed_by)
            closed_by = EndedBy.RESTART
            close(sequence)
        gap = record.step > (sequence.producer_step if sequence.is_open else 0) + 1
        if gap and rules.on_gap is OnGap.REJECT:
            if sequence.is_open:
                sequence.tainted = True
                sequence.producer_step = record.step
            return Verdict(Effect.GAP_REJECTED, closed_by, gap=True)
        if gap and rules.on_gap is OnGap.RESET and sequence.is_open:
            closed_by = EndedBy.GAP
            close(sequence)
    _apply(sequence, record)
    if gap and rules.on_gap is OnGap.TAINT:
        sequence.tainted = True
    return Verdict(Effect.STEPPED, closed_by, _ended_by(sequence, record, rules), gap)


def _apply(sequence: OpenSequence, record: SequenceRecord) -> None:
    if not sequence.is_open:
        sequence.first_offset = record.offset
        sequence.sequence_id = record.sequence_id or b""
    sequence.step += 1
    if record.step > 0:
        sequence.producer_step = record.step
    sequence.last_offset = record.offset
    sequence.event_time = record.event_time


def _ended_by(sequence: OpenSequence, record: SequenceRecord, rules: SequenceRules) -> EndedBy:
    length = rules.length_of(sequence.model)
    if length and sequence.step >= length:
        return EndedBy.LENGTH
    return EndedBy.END_MARKER if record.end else EndedBy.NONE
