"""What a simulated worker holds of one assigned partition."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from tests.sim.disk import Position, Row, Rows, SimulatedDisk
from worker.core.partition import PartitionEvent, PartitionMachine, PartitionState
from worker.core.restore import RestorePlan, RestoreProgress

DIGEST_MODULUS = 1_000_003


class Record(NamedTuple):
    """`kind`: "sample"; "end" closes the key's sequence; "skip" gives neither row nor output, as a duplicate."""

    kind: str
    key: str
    number: int


class Output(NamedTuple):
    offset: int
    key: str
    samples: int
    digest: int


def step(rows: dict[str, Row], record: Record, offset: int) -> tuple[Output | None, Row | None]:
    """What the model makes of one record: its output and the key's new row. Also the oracle."""
    row = rows.get(record.key)
    if record.kind == "sample":
        digest = ((row.digest if row else 0) * 31 + record.number * 7 + offset + 1) % DIGEST_MODULUS
        row = Row((row.samples if row else 0) + 1, digest, offset)
        return Output(offset, record.key, row.samples, row.digest), row
    if record.kind == "end" and row is not None:
        return Output(offset, record.key, -row.samples, row.digest), None
    return None, row


@dataclass(slots=True, eq=False)
class Owned:
    """One assignment of one partition. Rows are stepped in place; `before` holds what they were at the last commit."""

    index: int
    machine: PartitionMachine
    disk: SimulatedDisk
    next_offset: int = 0
    committed_next_offset: int = 0
    watermark: int = -1
    """The highest number of a record that could be used."""
    committed_watermark: int = -1
    changelog_next_offset: int = 0
    committed_changelog_next_offset: int = 0
    rows: dict[str, Row] = field(default_factory=dict)
    before: dict[str, Row | None] = field(default_factory=dict)
    plan: RestorePlan | None = None
    progress: RestoreProgress | None = None

    @property
    def running(self) -> bool:
        return self.machine.state is PartitionState.RUNNING

    @property
    def changed(self) -> bool:
        return self.next_offset != self.committed_next_offset

    def process(self, records: Sequence[Record]) -> list[Output]:
        """Step the next records; only memory changes."""
        outputs = []
        for record in records:
            output, row = step(self.rows, record, self.next_offset)
            if row is not self.rows.get(record.key):
                self.before.setdefault(record.key, self.rows.get(record.key))
                self._put(record.key, row)
            if output is not None:
                outputs.append(output)
            if record.kind != "skip":
                self.watermark = max(self.watermark, record.number)
            self.next_offset += 1
        return outputs

    def changes(self) -> Rows:
        return {key: self.rows.get(key) for key in self.before}

    def position(self) -> Position:
        return Position(self.next_offset, self.changelog_next_offset)

    def committed(self) -> None:
        self.before.clear()
        self.committed_next_offset = self.next_offset
        self.committed_watermark = self.watermark
        self.committed_changelog_next_offset = self.changelog_next_offset

    def roll_back(self) -> None:
        for key, row in self.before.items():
            self._put(key, row)
        self.before.clear()
        self.next_offset = self.committed_next_offset
        self.watermark = self.committed_watermark
        self.changelog_next_offset = self.committed_changelog_next_offset
        self.machine.apply(PartitionEvent.POSITION_RESET)

    def begin_at(self, position: Position, watermark: int) -> None:
        self.rows, self.before = self.disk.rows(), {}
        self.next_offset = self.committed_next_offset = position.input_next_offset
        self.watermark = self.committed_watermark = watermark
        self.changelog_next_offset = self.committed_changelog_next_offset = position.changelog_next_offset

    def _put(self, key: str, row: Row | None) -> None:
        if row is None:
            self.rows.pop(key, None)
        else:
            self.rows[key] = row


@dataclass(slots=True)
class Batch:
    """What a commit is about; a partition that goes while it is undecided leaves it."""

    partitions: dict[int, Owned]
    targets: dict[int, tuple[int, str]]
    changes: dict[int, Rows]
