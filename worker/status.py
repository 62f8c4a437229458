"""What the HTTP endpoints say of the loop: snapshots that the loop leaves behind, and questions that it answers.

The loop's thread writes, HTTP threads read; a question about one stream waits for the loop's next turn, so that no
other thread ever touches the table.
"""

from __future__ import annotations

import queue
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

from worker.core.slots import StreamTable
from worker.core.state_row import DecodedRow, decode_row
from worker.core.types import PredictionBatch
from worker.partitions import OwnedPartition, Ownership
from worker.ports import Clock

TURN_SECONDS_MAX = 30.0
"""A loop that has not turned for so long is not alive; a commit may wait for its transaction timeout (15 s)."""
ANSWER_SECONDS_MAX = 2.0
NEWEST_ROWS = 20


@dataclass(frozen=True, slots=True)
class _Snapshot:
    """All of one turn, replaced as a whole: another thread never sees the counts of one and the offsets of another."""

    partitions: dict[str, dict[str, Any]] = field(default_factory=dict)
    open_streams: int = 0
    records: int = 0
    predictions: int = 0


class StatusBoard:
    """The loop's side calls `started_up`, `turn` and `predicted`; the rest is for HTTP."""

    def __init__(self, clock: Clock, *, about: dict[str, str], ready_while_restoring: bool = False) -> None:
        self._clock = clock
        self._about = about
        self._ready_while_restoring = ready_while_restoring
        self._started = False
        self._last_turn = clock.monotonic()
        self._snapshot = _Snapshot()
        self._newest: tuple[dict[str, Any], ...] = ()
        self._questions: queue.SimpleQueue[tuple[bytes, Future[dict[str, Any] | None]]] = queue.SimpleQueue()
        self._next_snapshot = 0.0
        self._records = self._predictions = 0

    # ---- the loop's side

    def started_up(self) -> None:
        """Configuration is valid, the model is loaded and verified, the group subscribed."""
        self._started = True

    def turn(self, ownership: Ownership, table: StreamTable) -> None:
        """Once a turn: the loop moves. Answers questions, and takes a snapshot twice a second."""
        now = self._last_turn = self._clock.monotonic()
        while not self._questions.empty():
            key, answer = self._questions.get()
            answer.set_result(_stream(ownership, table, key))
        if now >= self._next_snapshot:
            self._next_snapshot = now + 0.5
            self._snapshot = _Snapshot(
                {str(partition.index): _partition(partition) for partition in ownership},
                table.open_streams(),
                self._records,
                self._predictions,
            )

    def predicted(self, records: int, predictions: PredictionBatch) -> None:
        """Count a batch and remember its last rows for the live page."""
        self._records += records
        self._predictions += len(predictions)
        rows = range(max(0, len(predictions) - NEWEST_ROWS), len(predictions))
        # Replaced as a whole: another thread may be reading the old one.
        self._newest = (*self._newest, *(_row(predictions, i) for i in rows))[-NEWEST_ROWS:]

    # ---- the HTTP side

    def started(self) -> bool:
        return self._started

    def alive(self) -> bool:
        """Whether the loop turned lately; says nothing about Kafka."""
        return self._clock.monotonic() - self._last_turn < TURN_SECONDS_MAX

    def ready(self) -> bool:
        """Whether every assigned partition runs; a member without partitions is ready."""
        states = [partition["state"] for partition in self._snapshot.partitions.values()]
        return self._started and (self._ready_while_restoring or all(state == "running" for state in states))

    def status(self) -> dict[str, Any]:
        snapshot = self._snapshot
        return {
            **self._about,
            "ready": self.ready(),
            "partitions": snapshot.partitions,
            "open_streams": snapshot.open_streams,
            "records": snapshot.records,
            "predictions": snapshot.predictions,
            "newest": list(self._newest),
        }

    def stream(self, key: bytes) -> dict[str, Any] | None:
        """One stream's state as of the last batch; None when no owned partition knows it.

        Raises TimeoutError when the loop does not answer within ANSWER_SECONDS_MAX.
        """
        answer: Future[dict[str, Any] | None] = Future()
        self._questions.put((key, answer))
        return answer.result(ANSWER_SECONDS_MAX)


def _row(predictions: PredictionBatch, i: int) -> dict[str, Any]:
    number = float(predictions.probabilities[i, -1])
    return {
        "stream": predictions.keys[i].decode("utf-8", "backslashreplace"),
        "step": int(predictions.steps[i]),
        "probability": None if number != number else number,
        "final": bool(predictions.final[i]),
    }


def _partition(partition: OwnedPartition) -> dict[str, Any]:
    return {
        "state": partition.machine.state.name.lower(),
        "next_offset": partition.next_offset,
        "committed_offset": partition.committed_next_offset,
        "watermark_ms": partition.watermark_ms,
    }


def _stream(ownership: Ownership, table: StreamTable, key: bytes) -> dict[str, Any] | None:
    for partition in ownership:
        if not partition.running or partition.store is None:
            continue
        slot = table.slot_of(partition.index, key)
        if slot is not None:
            if table.rows["step"][slot] == 0:
                continue
            row: bytes | None = table.packed(slot)
        else:
            row = partition.store.get_many([key])[0]
        if row is not None:
            return described(partition.index, decode_row(row))
    return None


def described(partition: int, row: DecodedRow) -> dict[str, Any]:
    """A row as JSON for a person: header, numbers and the state's size and extremes."""
    return {
        "partition": partition,
        "model": row.fingerprint[:4].hex(),
        "sequence_id": row.sequence_id.decode("utf-8", "backslashreplace"),
        **row.header,
        "state": [float(value) for value in row.state],
    }
