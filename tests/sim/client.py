"""The clients of one worker process: requests that take time, are lost, or arrive again later.

Each call is a generator; every `yield` is a moment at which anything else may happen, a kill -9 included. What a call
raises is what the worker's adapters raise.
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Generator
from dataclasses import dataclass
from random import Random
from typing import Any, TypeVar

from tests.sim.kafka import OFFSETS, Kafka, ProducerFenced, Refused, Reply, TopicPartition
from worker.errors import Fenced, OutcomeUnknown, Retriable, TransactionAborted

Result = TypeVar("Result")
Steps = Generator[None, None, Result]


@dataclass(slots=True)
class Weather:
    """How often things go wrong, as probabilities of one call."""

    request_lost: float = 0.25
    reply_lost: float = 0.25
    duplicate_delayed: float = 0.10
    produce_failed: float = 0.01
    failure_seen_late: float = 0.5
    init_failed: float = 0.15
    begin_failed: float = 0.01


CALM = Weather(0, 0, 0, 0, 0, 0, 0)


class SimulatedProducer:
    """A transactional producer. `suspect`: a request may still be on its way, so that it must be replaced."""

    def __init__(self, kafka: Kafka, name: str, random: Random, weather: Weather, counts: Counter[str]) -> None:
        self.name = name
        self.weather = weather
        self.suspect = False
        self._kafka = kafka
        self._random = random
        self._counts = counts
        self._epoch = -1
        self._added: set[TopicPartition] = set()
        self._undelivered = False

    def _happens(self, probability: float) -> bool:
        return self._random.random() < probability

    def init_transactions(self) -> Steps[None]:
        """Raises Retriable when it took too long, Fenced when another client did the same in the meantime."""
        began = self._kafka.epoch(self.name)
        while True:
            yield
            if self._kafka.epoch(self.name) > began + 1:
                raise Fenced("another client initialised the same id")
            found = self._kafka.init_producer_id(self.name)
            if not isinstance(found, Reply):
                self._epoch = found[1]
            if self._happens(self.weather.init_failed):
                raise Retriable("initialising took too long")
            if not isinstance(found, Reply):
                self.suspect = False
                self._added = set()
                return

    def begin(self) -> None:
        """Local. Raises OutcomeUnknown when the client has become unusable without having been fenced."""
        self._added = set()
        self._undelivered = False
        if self._happens(self.weather.begin_failed):
            raise OutcomeUnknown("the client is unusable")

    def produce(self, partition: TopicPartition, key: object, value: Any) -> Steps[int]:
        yield
        if self._happens(self.weather.produce_failed):
            # The client may tell it at once, or only when the transaction is to be committed.
            self._undelivered = True
            if not self._happens(self.weather.failure_seen_late):
                raise TransactionAborted("a record was not delivered in time")
        try:
            yield from self._add(partition)
            return self._kafka.produce(self.name, self._epoch, partition, key, value)
        except ProducerFenced:
            raise Fenced("fenced") from None
        except Refused as error:
            raise TransactionAborted(str(error)) from None

    def send_offsets(self, offsets: dict[int, tuple[int, str]], generation: int, member_id: str) -> Steps[None]:
        yield
        try:
            yield from self._add(OFFSETS)
            yield
            self._kafka.send_offsets(self.name, self._epoch, offsets, generation, member_id)
        except ProducerFenced:
            raise Fenced("fenced") from None
        except Refused as error:
            self._counts[f"refused: {error}"] += 1
            raise TransactionAborted(str(error)) from None

    def commit(self) -> Steps[None]:
        """Raises Retriable when it was not answered in time: only `commit` may follow, or a new producer."""
        if self._undelivered:
            self.suspect = True
            raise TransactionAborted("a record was not delivered in time")
        yield from self._end(commit=True)

    def abort(self) -> Steps[None]:
        """A transaction without any request is ended locally. Raises Retriable."""
        self.suspect = True
        if self._added:
            yield from self._end(commit=False)

    def _end(self, commit: bool) -> Steps[None]:
        yield
        if self._happens(self.weather.request_lost):
            self.suspect = True
            raise Retriable("not answered in time")
        if self._happens(self.weather.duplicate_delayed):
            # The connection broke: the request is sent again, the first one arrives some time later.
            self.suspect = True
            self._kafka.delayed.append((self.name, self._epoch, commit))
            self._counts["duplicates delayed"] += 1
        try:
            reply = self._kafka.end_transaction(self.name, self._epoch, commit)
            while reply is Reply.CONCURRENT_TRANSACTIONS:
                yield
                reply = self._kafka.end_transaction(self.name, self._epoch, commit)
        except ProducerFenced:
            raise Fenced("fenced") from None
        if reply is Reply.INVALID_TXN_STATE:
            raise OutcomeUnknown("invalid transaction state")
        yield
        if self._happens(self.weather.reply_lost):
            self.suspect = True
            raise Retriable("not answered in time")

    def _add(self, partition: TopicPartition) -> Steps[None]:
        if partition not in self._added:
            while self._kafka.add_partition(self.name, self._epoch, partition) is not Reply.OK:
                yield
            self._added.add(partition)


class SimulatedMember:
    """The worker's membership; what it knows may be older than what the coordinator knows."""

    def __init__(self, kafka: Kafka, name: str) -> None:
        self.member_id = ""
        self.generation = -1
        self.joined = False
        self.rejoined = False
        """Under another id, in the background: the callbacks that tell it are still to come."""
        self._kafka = kafka
        self._name = name

    @property
    def expelled(self) -> bool:
        return self.joined and self.member_id not in self._kafka.group.members

    def heartbeat(self) -> None:
        """In the background: a client that learns that it is no member forgets its id and keeps the generation."""
        if self.expelled:
            self.member_id = ""

    def join(self) -> None:
        self.member_id = self._kafka.group.join(self._name)
        self.joined = True

    def rejoin(self) -> bool:
        """As librdkafka's static members do when they are expelled while they join; nobody is told of a loss."""
        if not self.expelled:
            return False
        self.join()
        self.generation = self._kafka.group.generation
        self.rejoined = True
        return True

    def leave(self) -> None:
        self._kafka.group.remove(self.member_id)
        self.member_id, self.joined, self.rejoined = "", False, False

    def unwanted(self) -> set[int]:
        return self._kafka.group.unwanted(self.member_id)

    def sync(self, given_up: set[int]) -> set[int]:
        """Give partitions up, learn the generation, take partitions over."""
        group = self._kafka.group
        group.give_up(self.member_id, given_up)
        self.generation = group.generation
        self.rejoined = False
        return group.take(self.member_id) if self.member_id in group.members else set()

    def group_metadata(self) -> bytes:
        """As the client serialises it."""
        return struct.pack("=7si", b"CGMDv2:", self.generation) + f"group\0{self.member_id}\0\x01".encode()
