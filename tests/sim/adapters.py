"""The worker's ports over the simulated Kafka and the simulated disks; each call may be interrupted."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from random import Random
from typing import Any

import numpy as np

from tests.sim.client import SimulatedMember, SimulatedProducer
from tests.sim.disk import SimulatedDisk
from tests.sim.kafka import Kafka, Reply
from tests.sim.stepwise import Stepwise
from worker.adapters.kafka_changelog import ChangelogBatch
from worker.core.group_metadata import GroupMetadata, parse_group_metadata
from worker.core.types import RecordBatch
from worker.errors import Retriable, StoreCorrupted
from worker.ports import RebalanceListener, StorePosition

TICK_SECONDS = 0.05
CHANGELOG_OFFSETS_MAX = 6
STABLE_QUESTIONS_MAX = 4


class TickClock:
    """Time passes by the steps of the world."""

    def __init__(self, kafka: Kafka) -> None:
        self._kafka = kafka

    def now_ms(self) -> int:
        return round(self._kafka.now * TICK_SECONDS * 1000)

    def monotonic(self) -> float:
        return self._kafka.now * TICK_SECONDS


class DiskStore:
    """A `Store` over a simulated disk. Damage shows at the next access."""

    def __init__(self, disk: SimulatedDisk, kafka: Kafka, process: Stepwise) -> None:
        self._disk = disk
        self._kafka = kafka
        self._process = process

    @property
    def position(self) -> StorePosition | None:
        position: Any = self._disk.position
        return position if position is None else StorePosition(*position)

    @property
    def written_at_ms(self) -> int:
        written_at = self._disk.written_at
        return -1 if written_at < 0 else round(written_at * TICK_SECONDS * 1000)

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        rows: Mapping[str, Any] = self._checked().rows()
        return [rows.get(key.decode()) for key in keys]

    def write(self, rows: Iterable[tuple[bytes, bytes | None]], position: StorePosition) -> None:
        self._process.pause()
        named: Any = {key.decode(): row for key, row in rows}
        place: Any = (position.input_next_offset, position.changelog_next_offset, position.watermark_ms)
        self._checked().write(named, place, self._kafka.now)

    def scan(self) -> Iterator[tuple[bytes, bytes]]:
        rows: Mapping[str, Any] = self._checked().rows()
        for key in sorted(rows):
            yield key.encode(), rows[key]

    def is_empty(self) -> bool:
        return not self._checked().rows()

    def close(self) -> None:
        self._process.pause()
        self._disk.flush()

    def _checked(self) -> SimulatedDisk:
        if self._disk.corrupted:
            raise StoreCorrupted("simulated", "damaged")
        return self._disk


class StepwiseProducer:
    """What `TransactionalKafkaProducer` offers, over the simulated producer."""

    def __init__(self, producer: SimulatedProducer, process: Stepwise) -> None:
        self._producer = producer
        self._process = process

    @property
    def suspect(self) -> bool:
        return self._producer.suspect

    def init_transactions(self, timeout: float) -> None:
        del timeout
        self._process.wait(self._producer.init_transactions())

    def begin(self) -> None:
        self._producer.begin()

    def produce_many(
        self,
        topic: str,
        partitions: Sequence[int],
        keys: Sequence[bytes | None],
        values: Sequence[Any],
        timestamps_ms: Sequence[int],
        headers: object = None,
    ) -> None:
        del timestamps_ms, headers
        for partition, key, value in zip(partitions, keys, values, strict=True):
            self._produce(topic, partition, key, value)

    def produce_tracked(self, topic: str, partition: int, key: bytes, value: Any, timestamp_ms: int) -> Tracked:
        del timestamp_ms
        return Tracked(self._produce(topic, partition, key, value))

    def _produce(self, topic: str, partition: int, key: bytes | None, value: Any) -> int:
        return self._process.wait(self._producer.produce((topic, partition), (key or b"").decode(), value))

    def flush(self, timeout: float) -> None:
        del timeout
        self._process.pause()

    def send_offsets(
        self, topic: str, offsets: dict[int, tuple[int, str]], group: GroupMetadata, timeout: float
    ) -> None:
        del topic, timeout
        self._process.wait(self._producer.send_offsets(dict(offsets), group.generation, group.member_id))

    def commit(self, timeout: float) -> None:
        del timeout
        self._process.wait(self._producer.commit())

    def abort(self, timeout: float) -> None:
        del timeout
        self._process.wait(self._producer.abort())

    def recycle(self, timeout: float) -> None:
        self._producer.suspect = True
        self.init_transactions(timeout)

    def close(self) -> None:
        self._process.pause()


class Tracked:
    """A delivered record."""

    def __init__(self, offset: int) -> None:
        self.offset = offset


class StepwiseConsumer:
    """What `KafkaConsumer` offers. A partition is read from where `start_at` put it."""

    def __init__(self, kafka: Kafka, member: SimulatedMember, process: Stepwise, random: Random) -> None:
        self._kafka = kafka
        self._member = member
        self._assigned_to: dict[int, str] = {}
        self._process = process
        self._random = random
        self._listener: RebalanceListener | None = None
        self._owned: set[int] = set()
        self._positions: dict[int, int] = {}

    def subscribe(self, listener: RebalanceListener) -> None:
        self._listener = listener

    def poll_batch(self, records_max: int, timeout: float) -> RecordBatch | None:
        del timeout
        self._process.pause()
        self._rebalance()
        self._process.pause()
        taken: list[tuple[int, int]] = []
        for index in self._random.sample(sorted(self._positions), len(self._positions)):
            start, end = self._positions[index], len(self._kafka.input[index])
            count = min(end - start, self._random.randint(0, 3), records_max - len(taken))
            taken += [(index, offset) for offset in range(start, start + count)]
            self._positions[index] = start + count
        return self._batch(taken) if taken else None

    def _batch(self, taken: list[tuple[int, int]]) -> RecordBatch:
        records = [self._kafka.input[index][offset] for index, offset in taken]
        return RecordBatch(
            partitions=np.array([index for index, _ in taken], np.int32),
            offsets=np.array([offset for _, offset in taken], np.int64),
            event_times=np.array([record.number for record in records], np.int64),
            keys=[record.key.encode() for record in records],
            values=[record.kind.encode() for record in records],
        )

    def _rebalance(self) -> None:
        assert self._listener is not None
        group = self._kafka.group
        if self._member.expelled:
            self._member.joined = self._member.rejoined = False
            self._gone(self._owned, self._listener.on_lost)
        if not self._member.joined:
            self._member.join()
            group.balance(self._kafka.partitions, self._random)
        rejoined, unwanted = self._member.rejoined, self._member.unwanted()
        self._gone(unwanted & self._owned, self._listener.on_revoked)
        new = self._member.sync(unwanted)
        if rejoined:
            self._gone(self._owned - new, self._listener.on_revoked)
            self._gone(self._owned, self._listener.on_lost)
        if new:
            self._owned |= new
            self._assigned_to |= dict.fromkeys(new, self.group_metadata().member_id)
            self._listener.on_assigned(sorted(new))

    def _gone(self, partitions: set[int], callback: Any) -> None:
        if partitions:
            callback(sorted(partitions))
        for index in set(partitions):
            self._owned.discard(index)
            self._positions.pop(index, None)

    def start_at(self, offsets: dict[int, int]) -> None:
        assert offsets.keys() <= self._owned
        self._positions.update(offsets)

    def committed_with_metadata(self, partitions: Sequence[int], timeout: float) -> dict[int, tuple[int, str] | None]:
        del timeout
        return {index: self._committed(index) for index in partitions}

    def _committed(self, index: int) -> tuple[int, str] | None:
        for _ in range(STABLE_QUESTIONS_MAX):
            self._process.pause()
            reply = self._kafka.committed(index)
            if not isinstance(reply, Reply):
                return reply
        raise Retriable("unstable offset commit")

    def group_metadata(self) -> GroupMetadata:
        return parse_group_metadata(self._member.group_metadata())

    def assigned_to(self, partition: int) -> str:
        return self._assigned_to[partition]

    def consumer_lag(self) -> dict[int, int]:
        return {}

    def held_back(self) -> dict[int, tuple[int, int]]:
        return {}

    def close(self) -> None:
        assert self._listener is not None
        self._process.pause()
        self._gone(self._owned, self._listener.on_lost if self._member.expelled else self._listener.on_revoked)
        self._member.leave()


class StepwiseChangelogReader:
    """What `KafkaChangelogReader` offers: committed rows, up to the last stable offset."""

    def __init__(self, kafka: Kafka, process: Stepwise) -> None:
        self._kafka = kafka
        self._process = process
        self._positions: dict[int, int] = {}

    def begin(self, partition: int, offset: int) -> None:
        assert partition not in self._positions
        self._positions[partition] = offset

    def end(self, partition: int) -> None:
        del self._positions[partition]

    def read(self, timeout: float) -> dict[int, ChangelogBatch]:
        del timeout
        self._process.pause()
        batches = {}
        for index, start in self._positions.items():
            log = self._kafka.logs["changelog", index]
            end = max(start, min(start + CHANGELOG_OFFSETS_MAX, log.last_stable_offset))
            entries = log.read(start, end)
            rows = [(str(entry.key).encode(), entry.value) for entry in entries]
            batches[index] = ChangelogBatch(end, [entry.offset for entry in entries], rows)
            self._positions[index] = end
        return batches
