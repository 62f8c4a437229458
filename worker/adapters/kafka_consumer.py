"""The consumer-group member of one input topic, through confluent-kafka."""

from __future__ import annotations

import json
import logging
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from operator import itemgetter
from typing import cast

import numpy as np
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from worker.adapters.kafka_errors import KafkaFailed, translate, translate_consumed
from worker.adapters.kafka_properties import RECONNECT
from worker.core.group_metadata import GroupMetadata, parse_group_metadata
from worker.core.types import Headers, RecordBatch
from worker.errors import Fenced, PositionOutOfRange, Retriable, WorkerError
from worker.ports import RebalanceListener

log = logging.getLogger(__name__)

DEFAULTS: dict[str, object] = {
    "fetch.wait.max.ms": 50,
    # librdkafka waits 1,000 ms by default before it refills a full queue.
    "fetch.queue.backoff.ms": 20,
    "queued.min.messages": 50_000,
    "queued.max.messages.kbytes": 32 << 10,
    "statistics.interval.ms": 1_000,
    "isolation.level": "read_committed",
    **RECONNECT,
}

FORCED: dict[str, object] = {
    # The worker decides where a partition starts; an offset that is not there must be an error, never a jump.
    "auto.offset.reset": "error",
    "enable.auto.commit": False,
    "enable.auto.offset.store": False,
    "enable.partition.eof": False,
}

_MESSAGE_TIME = itemgetter(1)


class KafkaConsumer:
    """A member of the group; single-threaded: callbacks run inside `poll_batch` and `close`.

    `config` holds librdkafka properties; `bootstrap.servers` and `group.id` are required. Newly assigned partitions
    are not fetched at all until `start_at` gives them an offset, so no placeholder position can leak into a batch.
    """

    def __init__(self, config: Mapping[str, object], topic: str, listener: RebalanceListener | None = None) -> None:
        self.topic = topic
        self.error_counts: Counter[str] = Counter()
        """Errors that librdkafka reported and retries by itself, by name."""
        properties = {**DEFAULTS, **config, **FORCED}
        if properties.get("group.protocol", "classic") == "classic":
            properties.setdefault("partition.assignment.strategy", "cooperative-sticky")
        strategy = properties.get("partition.assignment.strategy", "cooperative-sticky")
        self._incremental = strategy == "cooperative-sticky"
        self._statistics = "{}"
        self._listener: RebalanceListener | None = None
        self._owned: set[int] = set()
        self._started: dict[int, int] = {}
        self._newly_assigned: set[int] = set()
        self._assigned_to: dict[int, str] = {}
        self._kept_by_rejoining: set[int] = set()
        self._revoked_in_poll: set[int] = set()
        self._pending_errors: deque[WorkerError] = deque()
        self._fenced = False
        self._closed = False
        self._consumer = Consumer({**properties, "error_cb": self._count_error, "stats_cb": self._keep_statistics})
        if listener is not None:
            self.subscribe(listener)

    def subscribe(self, listener: RebalanceListener) -> None:
        """Join the group; the listener hears of partitions from the next `poll_batch` on."""
        self._listener = listener
        self._consumer.subscribe(
            [self.topic],
            on_assign=lambda _, partitions: self._on_assign(partitions),
            on_revoke=lambda _, partitions: self._on_revoke(partitions),
            # Without this one lost partitions would come to on_revoke, where the listener commits.
            on_lost=lambda _, partitions: self._on_lost(partitions),
        )

    def poll_batch(self, records_max: int, timeout: float) -> RecordBatch | None:
        """Up to `records_max` records; None when nothing came within `timeout` seconds. Runs rebalance callbacks.

        Raises PositionOutOfRange, ConfigError, Fenced or KafkaFailed for errors that arrive in place of records,
        after the records that came with them.
        """
        self._raise_pending_error()
        self._revoked_in_poll.clear()
        messages = self._poll_messages(records_max, timeout)
        self._announce_assigned()
        if messages:
            return _to_batch(messages)
        self._raise_pending_error()
        return None

    def start_at(self, offsets: dict[int, int]) -> None:
        """Begin to fetch assigned partitions at these next offsets (partition → offset).

        A partition that is being fetched is rewound or forwarded; records of the old position do not come any more.
        """
        unknown = offsets.keys() - self._owned
        if unknown:
            raise ValueError(f"partitions {sorted(unknown)} of {self.topic} are not assigned")
        begun = {partition: offset for partition, offset in offsets.items() if partition not in self._started}
        for partition in offsets.keys() - begun.keys():
            self._move(partition, offsets[partition])
        if begun:
            self._assign(begun)
        self._started.update(offsets)

    def committed(self, partitions: Sequence[int]) -> dict[int, int | None]:
        """The group's committed next offsets; None where there is none. Raises Retriable on a timeout."""
        pairs = self.committed_with_metadata(partitions)
        return {partition: pair[0] if pair else None for partition, pair in pairs.items()}

    def committed_with_metadata(
        self, partitions: Sequence[int], timeout: float = 10.0
    ) -> dict[int, tuple[int, str] | None]:
        """Committed next offset and the commit's metadata; None where there is none.

        `timeout` seconds bound each partition's question: they are asked one by one, because one partition whose
        former owner's transaction is open would hold back the answer for all.
        """
        return {partition: self._committed(partition, timeout) for partition in partitions}

    def commit(self, offsets: dict[int, tuple[int, str]]) -> None:
        """Commit next offsets (partition → offset, metadata) and wait for the answer.

        Raises Retriable while the group rebalances.
        """
        if not offsets:
            return
        positions = [
            TopicPartition(self.topic, partition, offset, metadata) for partition, (offset, metadata) in offsets.items()
        ]
        try:
            answers = self._consumer.commit(offsets=positions, asynchronous=False)
        except KafkaException as error:
            raise translate(error.args[0], "committing offsets") from error
        for answer in answers or ():
            if answer.error is not None:
                raise translate(answer.error, f"committing the offset of {self.topic}[{answer.partition}]")

    def group_metadata(self) -> GroupMetadata:
        """This member's identity as of now; take it anew for every transactional commit. Raises KafkaFailed."""
        try:
            return parse_group_metadata(self._consumer.consumer_group_metadata())
        except ValueError as error:
            raise KafkaFailed(str(error)) from error

    def assigned_to(self, partition: int) -> str:
        """The member id under which a partition was assigned; "" where it is not known.

        A static member that was expelled while it was rejoining joins again in the background under another id: until
        its next callback the broker accepts its commits for partitions that are somebody else's.
        """
        return self._assigned_to.get(partition, "")

    def consumer_lag(self) -> dict[int, int]:
        """Records between what was handed out and the log's (stable) end, per partition that is being fetched.

        From librdkafka's own statistics, at most `statistics.interval.ms` old and without asking the broker;
        partitions whose end is not known yet are left out.
        """
        return {
            # Not its `consumer_lag`: that one counts from commits, and transactional commits pass it by.
            partition: max(0, entry["ls_offset"] - max(entry["app_offset"], self._started[partition]))
            for partition, entry in self._partition_statistics().items()
        }

    def held_back(self) -> dict[int, tuple[int, int]]:
        """Partition → last stable offset and records behind it, where a producer's transaction is open.

        From the same statistics as `consumer_lag`; a marker counts as a record.
        """
        return {
            partition: (entry["ls_offset"], entry["hi_offset"] - entry["ls_offset"])
            for partition, entry in self._partition_statistics().items()
            if entry["hi_offset"] > entry["ls_offset"]
        }

    def _partition_statistics(self) -> dict[int, dict[str, int]]:
        """Of the partitions that are being fetched and whose end is known."""
        topic = json.loads(self._statistics).get("topics", {}).get(self.topic, {})
        entries = {int(number): entry for number, entry in topic.get("partitions", {}).items()}
        return {
            partition: entry
            for partition, entry in entries.items()
            if partition in self._started and entry["ls_offset"] >= 0
        }

    def close(self) -> None:
        """Revoke everything (lost, when fenced) while still a member, then leave; static members stay. Idempotent."""
        if self._closed:
            return
        self._closed = True
        try:
            # A rebalance that waits for its callback would make librdkafka leave before the listener could commit,
            # and hang for ever when the callback then takes longer than the leaving.
            self._consumer.poll(0)
            self._revoke_all()
            self._consumer.poll(0)
        finally:
            self._consumer.close()

    def _poll_messages(self, records_max: int, timeout: float) -> list[Message]:
        try:
            # consume() with a timeout would wait until the whole batch is full.
            first = self._consumer.poll(timeout)
            # Compared with None: a message without a value is falsy.
            if first is None:
                return []
            messages = [first]
            if records_max > 1:
                messages += self._consumer.consume(records_max - 1, 0)
        except KafkaException as error:
            raise translate(error.args[0], f"consuming {self.topic}") from error
        if any(map(Message.error, messages)):
            messages = self._split_off_errors(messages)
        if self._revoked_in_poll:
            messages = [message for message in messages if message.partition() not in self._revoked_in_poll]
        return messages

    def _split_off_errors(self, messages: list[Message]) -> list[Message]:
        records = []
        for message in messages:
            error = message.error()
            if error is None:
                records.append(message)
            elif error.code() == KafkaError._MAX_POLL_EXCEEDED:
                # The partitions are reported as lost by the next poll.
                self.error_counts[error.name()] += 1
            else:
                translated = translate_consumed(error, self.topic, message.partition(), message.offset())
                if isinstance(translated, Retriable):
                    # The client tries again by itself, e.g. after a leader moved.
                    self.error_counts[error.name()] += 1
                    continue
                self._fenced = self._fenced or isinstance(translated, Fenced)
                self._pending_errors.append(translated)
        return records

    def _raise_pending_error(self) -> None:
        while self._pending_errors:
            error = self._pending_errors.popleft()
            if not isinstance(error, PositionOutOfRange) or error.partition in self._started:
                raise error

    def _committed(self, partition: int, timeout: float) -> tuple[int, str] | None:
        doing = f"reading the committed offset of {self.topic}[{partition}]"
        try:
            (answer,) = self._consumer.committed([TopicPartition(self.topic, partition)], timeout)
        except KafkaException as error:
            raise translate(error.args[0], doing) from error
        if answer.error is not None:
            raise translate(answer.error, doing)
        return None if answer.offset < 0 else (answer.offset, answer.metadata or "")

    def _move(self, partition: int, offset: int) -> None:
        position = TopicPartition(self.topic, partition, offset)
        try:
            self._consumer.seek(position)
        except KafkaException as error:
            # After an offset out of range a partition stays dead until it is assigned anew.
            if error.args[0].code() != KafkaError._STATE:
                raise translate(error.args[0], f"seeking {self.topic}[{partition}]") from error
            if self._incremental:
                self._consumer.incremental_unassign([position])
            del self._started[partition]
            self._assign({partition: offset})

    def _assign(self, offsets: Mapping[int, int]) -> None:
        begun = [TopicPartition(self.topic, partition, offset) for partition, offset in offsets.items()]
        if self._incremental:
            self._consumer.incremental_assign(begun)
            return
        # An eager assignment replaces the whole one, so the others go on from where they are.
        others = self._consumer.position([TopicPartition(self.topic, partition) for partition in self._started])
        for other in others:
            if other.offset < 0:
                other.offset = self._started[other.partition]
        self._consumer.assign(others + begun)

    def _announce_assigned(self) -> None:
        """Tell the listener outside of librdkafka's callback, where it may fail loudly and call `start_at`."""
        if self._kept_by_rejoining:
            self._assign_anew(set(self._kept_by_rejoining))
        if self._newly_assigned and self._listener is not None:
            partitions = sorted(self._newly_assigned)
            self._newly_assigned.clear()
            self._listener.on_assigned(partitions)

    def _assign_anew(self, numbers: set[int]) -> None:
        """Partitions that a new membership kept may have been somebody else's meanwhile: lost, then assigned."""
        log.warning("rejoined as another member: partitions %s are lost and taken over again", sorted(numbers))
        self._on_lost([TopicPartition(self.topic, partition) for partition in numbers])
        self._add_assigned(numbers)

    def _on_assign(self, partitions: list[TopicPartition]) -> None:
        numbers = {each.partition for each in partitions}
        # Accepts the rebalance with nothing to fetch.
        if self._incremental:
            self._consumer.incremental_assign([])
        else:
            self._consumer.assign([])
            self._started.clear()
        self._add_assigned(numbers)
        # Called after every join, also without any new partition. librdkafka rejoins without on_lost when the broker
        # answers a static member's JoinGroup with UNKNOWN_MEMBER_ID (rd_kafka_cgrp_handle_JoinGroup).
        member_id = self.group_metadata().member_id
        self._kept_by_rejoining = {each for each in self._owned if self._assigned_to[each] != member_id}
        self._revoked_in_poll |= self._kept_by_rejoining

    def _add_assigned(self, numbers: set[int]) -> None:
        self._owned |= numbers
        self._newly_assigned |= numbers
        self._assigned_to |= dict.fromkeys(numbers, self.group_metadata().member_id)

    def _on_revoke(self, partitions: list[TopicPartition]) -> None:
        announced = self._announced(partitions)
        if announced and self._listener is not None:
            self._listener.on_revoked(announced)
        self._forget(partitions)

    def _on_lost(self, partitions: list[TopicPartition]) -> None:
        announced = self._announced(partitions)
        if announced and self._listener is not None:
            self._listener.on_lost(announced)
        self._forget(partitions)

    def _announced(self, partitions: list[TopicPartition]) -> list[int]:
        """Those of them that the listener heard of and has not given back."""
        return sorted({each.partition for each in partitions} & self._owned - self._newly_assigned)

    def _revoke_all(self) -> None:
        announced = sorted(self._owned - self._newly_assigned)
        everything = [TopicPartition(self.topic, partition) for partition in self._owned]
        if announced and self._listener is not None:
            if self._fenced:
                self._listener.on_lost(announced)
            else:
                self._listener.on_revoked(announced)
        try:
            self._forget(everything)
        except KafkaException as error:
            # After a callback that failed the client has emptied its assignment by itself.
            if error.args[0].code() != KafkaError._INVALID_ARG:
                raise

    def _forget(self, partitions: list[TopicPartition]) -> None:
        numbers = {each.partition for each in partitions}
        fetched = [TopicPartition(self.topic, partition) for partition in numbers & self._started.keys()]
        self._owned -= numbers
        self._newly_assigned -= numbers
        self._kept_by_rejoining -= numbers
        self._revoked_in_poll |= numbers
        for partition in numbers & self._started.keys():
            del self._started[partition]
        if self._incremental:
            self._consumer.incremental_unassign(fetched)
        else:
            self._consumer.unassign()

    def _count_error(self, error: KafkaError) -> None:
        self.error_counts[error.name()] += 1

    def _keep_statistics(self, statistics: str) -> None:
        # Parsed when somebody asks: this runs inside poll().
        self._statistics = statistics


def _to_batch(messages: list[Message]) -> RecordBatch:
    count = len(messages)
    # The stubs also allow a dictionary, which is never given back.
    headers = cast("list[Headers | None]", list(map(Message.headers, messages)))
    return RecordBatch(
        partitions=np.fromiter(map(Message.partition, messages), np.int32, count),
        offsets=np.fromiter(map(Message.offset, messages), np.int64, count),
        event_times=np.fromiter(map(_MESSAGE_TIME, map(Message.timestamp, messages)), np.int64, count),
        keys=list(map(Message.key, messages)),
        values=list(map(Message.value, messages)),
        headers=headers if any(headers) else None,
    )
