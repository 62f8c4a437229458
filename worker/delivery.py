"""What the loop needs of a guarantee: where outputs go and what a commit is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from worker.core.codec.dead_letter import dead_letter_record
from worker.core.types import DeadLetter, Headers, PredictionBatch
from worker.errors import TooManyBadRecords
from worker.partitions import OwnedPartition
from worker.ports import RecordSink

BREAKER_RECORDS_MIN = 100
"""Below this many records the share of bad ones says nothing about the format."""


class Delivery(Protocol):
    """One guarantee. `send` may be called any number of times between two commits."""

    def send(self, predictions: PredictionBatch, values: Sequence[bytes]) -> None:
        """Queue output records; they reach read_committed consumers with the next commit at the latest.

        Raises TransactionAborted when nothing since the last commit counts: the caller rolls states and positions back.
        """

    def commit(self, partitions: Sequence[OwnedPartition], letters: Sequence[DeadLetter]) -> None:
        """Make outputs, dead letters, states and input offsets durable, in this guarantee's order.

        Raises TransactionAborted as `send` does.
        """

    def abandon(self, partitions: Sequence[OwnedPartition]) -> bool:
        """Give up what is not committed of partitions that were lost.

        True when this undoes the uncommitted work of all partitions, False when only of these.
        """

    def supersede(self, partition: OwnedPartition, keys: Sequence[bytes]) -> None:
        """Write the stored rows of these streams to the changelog again: their last ones there do not count."""

    def close(self) -> None:
        """Release the clients; nothing uncommitted is sent."""


@dataclass(slots=True)
class OutputTopics:
    """Names and limits of what is written."""

    output: str
    dead_letter: str
    input: str
    worker: str
    value_bytes_max: int
    by_key: bool = False
    """Outputs go where the client's partitioner sends their key instead of to the input's partition number."""


PARTITION_BY_KEY = -1
"""Leaves the choice to the client's partitioner."""


def send_predictions(
    producer: RecordSink, topics: OutputTopics, predictions: PredictionBatch, values: Sequence[bytes]
) -> None:
    """Queue output records with the event time as timestamp, on the input's partition number or by key."""
    by_key = [PARTITION_BY_KEY] * len(predictions)
    producer.produce_many(
        topics.output,
        by_key if topics.by_key else predictions.partitions.tolist(),
        predictions.keys,
        values,
        predictions.event_times.tolist(),
        predictions.headers,
    )


def send_dead_letters(producer: RecordSink, topics: OutputTopics, letters: Sequence[DeadLetter]) -> None:
    """Queue dead letters with the original key, value, headers and timestamp and headers that say why."""
    if not letters:
        return
    records = [
        dead_letter_record(letter, topic=topics.input, worker=topics.worker, value_bytes_max=topics.value_bytes_max)
        for letter in letters
    ]
    headers: list[Headers | None] = [record_headers for _, _, record_headers in records]
    producer.produce_many(
        topics.dead_letter,
        [letter.partition for letter in letters],
        [key for key, _, _ in records],
        [value for _, value, _ in records],
        [letter.event_time for letter in letters],
        headers,
    )


class BadRecordBreaker:
    """Stops the worker when most records are unusable: a mis-configured format must not drain a topic.

    Looks at the last `window` records; checked before each commit.
    """

    def __init__(self, share_max: float, window: int) -> None:
        self._share_max = share_max
        self._window = window
        self._batches: list[tuple[int, int]] = []

    def add(self, records: int, letters: Sequence[DeadLetter]) -> None:
        self._batches.append((records, len(letters)))
        while len(self._batches) > 1 and self._records() - self._batches[0][0] >= self._window:
            del self._batches[0]

    def check(self, letters: Sequence[DeadLetter]) -> None:
        """Raises TooManyBadRecords; `letters` are the open batch's, for the message."""
        records = self._records()
        bad = sum(count for _, count in self._batches)
        if records >= BREAKER_RECORDS_MIN and bad > self._share_max * records:
            reason, count = Counter(letter.rejection.reason for letter in letters).most_common(1)[0]
            example = next(letter for letter in letters if letter.rejection.reason == reason)
            raise TooManyBadRecords(
                f"{bad} of the last {records} records are unusable, mostly '{reason}' ({count} in the open batch; "
                f"partition {example.partition} offset {example.offset}: {example.rejection.detail})",
                "nothing of the open batch was committed; check input.format and input.features, or raise "
                "worker.bad_records_max_share",
            )

    def _records(self) -> int:
        return sum(records for records, _ in self._batches)
