"""Producing, with and without transactions, through confluent-kafka."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager, contextmanager
from typing import Any, cast

from confluent_kafka import KafkaError, KafkaException, Message, Producer, TopicPartition

from worker.adapters.kafka_errors import (
    SUSPICIOUS,
    translate_produced,
    translate_transactional,
    translate_transactional_produced,
)
from worker.adapters.kafka_properties import RECONNECT
from worker.core.group_metadata import GroupMetadata
from worker.core.types import Headers
from worker.errors import OutcomeUnknown, ProduceFailed, Retriable, TransactionAborted, WorkerError

DEFAULTS: dict[str, object] = {
    # At least once an output waits as long for company; under load batches fill while the one before is sent.
    "linger.ms": 1,
    "batch.size": 1 << 20,
    "batch.num.messages": 20_000,
    "queue.buffering.max.messages": 500_000,
    "queue.buffering.max.kbytes": 256 << 10,
    "socket.keepalive.enable": True,
    **RECONNECT,
}

FORCED: dict[str, object] = {"enable.idempotence": True, "acks": "all"}

SOCKET_TIMEOUT_MS = 10_000
"""The client refuses one that is longer than a transaction may last."""
_ANSWER_GRACE_S = 1.0
"""How much longer than its own timeout a client call may take before the client counts as stuck."""

_QUEUE_FULL_POLL_S = 0.05
"""How long to wait for space in librdkafka's queue between two tries."""


class _QueueingProducer(ABC):
    """What both producers share: the tight loop over `produce`."""

    _producer: Producer
    _closed = False

    def produce_many(
        self,
        topic: str,
        partitions: Sequence[int],
        keys: Sequence[bytes | None],
        values: Sequence[bytes | None],
        timestamps_ms: Sequence[int],
        headers: Sequence[Headers | None] | None = None,
    ) -> None:
        """Queue records in order; waits while the local queue is full. All sequences have the same length.

        A timestamp of 0 stands for now, as everywhere in librdkafka. Raises ProduceFailed on a refused record, inside
        of transactions also TransactionAborted, Fenced or OutcomeUnknown; records before it are queued.
        """
        # Positional arguments: half the time of keyword arguments, and produce_batch takes no timestamps. The stubs
        # know headers as a list or dictionary only, and nothing that is passed on as `*arguments`.
        produce = self._producer.produce
        with self._translated(topic):
            if headers is None:
                for value, key, partition, time_ms in zip(values, keys, partitions, timestamps_ms, strict=True):
                    try:
                        produce(topic, value, key, partition, None, None, time_ms)
                    except BufferError:
                        self._produce_when_space(topic, value, key, partition, None, None, time_ms)
            else:
                rows: Iterator[tuple[Any, ...]] = zip(values, keys, partitions, timestamps_ms, headers, strict=True)
                for value, key, partition, time_ms, record_headers in rows:
                    try:
                        produce(topic, value, key, partition, None, None, time_ms, record_headers)
                    except BufferError:
                        self._produce_when_space(topic, value, key, partition, None, None, time_ms, record_headers)
            self._producer.poll(0)

    def _produce_when_space(self, topic: str, *arguments: Any) -> None:
        while True:
            self._producer.poll(_QUEUE_FULL_POLL_S)
            try:
                self._producer.produce(topic, *arguments)
            except BufferError:
                continue
            return

    def _close_now(self) -> None:
        if not self._closed:
            self._closed = True
            # The client's close() would first deliver what is queued, abort, and raise when it is fenced.
            self._producer.purge(blocking=False)
            del self._producer

    @abstractmethod
    def _translated(self, topic: str) -> AbstractContextManager[None]:
        """The client's errors as ours."""


class KafkaProducer(_QueueingProducer):
    """An idempotent producer for at-least-once: whatever was queued is delivered, or `flush` raises."""

    def __init__(self, config: Mapping[str, object], *, flush_timeout: float = 60.0) -> None:
        """`config` holds librdkafka properties, `flush_timeout` is in seconds."""
        self._flush_timeout = flush_timeout
        self._failure: WorkerError | None = None
        properties = {**DEFAULTS, **config, **FORCED, "delivery.report.only.error": True}
        self._producer = Producer({**properties, "on_delivery": self._record_failure, "error_cb": _ignore})

    def flush(self) -> None:
        """Wait until everything queued is delivered. Raises ProduceFailed when a record was not, or not in time."""
        with self._translated("the output topics"):
            remaining = self._producer.flush(self._flush_timeout)
        if remaining:
            raise ProduceFailed(f"{remaining} records were not confirmed within {self._flush_timeout:g} s")

    def close(self) -> None:
        """Drop what is queued and disconnect; idempotent. Call `flush` before to keep it."""
        self._close_now()

    @contextmanager
    def _translated(self, topic: str) -> Iterator[None]:
        self._raise_failure()
        try:
            yield
        except KafkaException as error:
            self._failure = translate_produced(error.args[0], topic, None)
            raise self._failure from error
        except SystemError as error:
            reason = _hidden_reason(self._producer, error)
            if reason is None:
                raise
            self._failure = translate_produced(reason, topic, None)
            raise self._failure from error
        self._raise_failure()

    def _raise_failure(self) -> None:
        # Kept: after one lost record no later flush may claim that all were delivered.
        if self._failure is not None:
            raise self._failure

    def _record_failure(self, error: KafkaError | None, message: Message) -> None:
        if error is not None and self._failure is None:
            self._failure = translate_produced(error, message.topic() or "", message.partition())


class TrackedRecord:
    """One produced record whose offset is wanted; known after `TransactionalKafkaProducer.flush`."""

    def __init__(self) -> None:
        self._offset: int | None = None
        self._error: KafkaError | None = None

    @property
    def offset(self) -> int:
        """The record's offset. Raises TransactionAborted when it was not delivered (yet)."""
        if self._offset is None:
            reason = self._error.name() if self._error else "not confirmed"
            raise TransactionAborted(f"a tracked record was not delivered: {reason}")
        return self._offset

    def delivered(self, error: KafkaError | None, message: Message) -> None:
        """The delivery report."""
        if error is None:
            self._offset = message.offset()
        else:
            self._error = error


class TransactionalKafkaProducer(_QueueingProducer):
    """A transactional producer; `transactional.id` is required in `config`.

    Of Kafka's errors each call raises only Retriable, TransactionAborted, OutcomeUnknown, Fenced and ConfigError; it
    never tries again by itself and never guesses.
    """

    def __init__(self, config: Mapping[str, object]) -> None:
        self._properties = {
            **DEFAULTS,
            # A connection that hangs longer makes an outcome unknown; the default of 60 s would outlast transactions.
            "socket.timeout.ms": min(
                SOCKET_TIMEOUT_MS, int(str(config.get("transaction.timeout.ms", SOCKET_TIMEOUT_MS)))
            ),
            **config,
            **FORCED,
            # Tracked records need their reports of success.
            "delivery.report.only.error": False,
        }
        self.suspect = False
        """Whether since `begin` an error occurred after which a request may still be on its way."""
        self._producer = self._new_producer()

    def init_transactions(self, timeout: float) -> None:
        """Fence earlier producers of this id and end their open transaction; waits for its outcome."""
        self._call("initialising transactions", lambda: self._producer.init_transactions(timeout))

    def begin(self) -> None:
        """Open a transaction; local, so a fenced producer learns of it only later."""
        self.suspect = False
        self._call("beginning a transaction", self._producer.begin_transaction)

    def produce_tracked(
        self,
        topic: str,
        partition: int,
        key: bytes | None,
        value: bytes | None,
        timestamp_ms: int,
        headers: Headers | None = None,
    ) -> TrackedRecord:
        """Queue one record whose offset is known after `flush`."""
        tracked = TrackedRecord()
        # The fifth argument is the callback; given by position, even as None, it hides `on_delivery`, the sixth.
        arguments: tuple[Any, ...] = (value, key, partition, tracked.delivered, None, timestamp_ms, headers)
        with self._translated(topic):
            try:
                self._producer.produce(topic, *arguments)
            except BufferError:
                self._produce_when_space(topic, *arguments)
        return tracked

    def flush(self, timeout: float) -> None:
        """Wait until everything queued is answered. Raises Retriable when `timeout` seconds were not enough.

        Returning proves nothing about delivery: only tracked records and `commit` do.
        """
        remaining = 0

        def flush() -> None:
            nonlocal remaining
            remaining = self._producer.flush(timeout)

        self._call("flushing", flush)
        if remaining:
            raise Retriable(f"flushing: {remaining} records were not answered within {timeout:g} s")

    def send_offsets(
        self, topic: str, offsets: Mapping[int, tuple[int, str]], group: GroupMetadata, timeout: float
    ) -> None:
        """Add the group's next offsets (partition → offset, metadata of at most 4,095 bytes) to the transaction.

        Raises OutcomeUnknown when the client did not return in time: the transaction is not committed, but only
        `recycle` can end it.
        """
        positions = [
            TopicPartition(topic, partition, offset, metadata) for partition, (offset, metadata) in offsets.items()
        ]
        producer = self._producer
        self._call(
            "sending offsets",
            lambda: _within(timeout, lambda: producer.send_offsets_to_transaction(positions, group.raw, timeout)),
        )

    def commit(self, timeout: float) -> None:
        """Commit. After Retriable only `commit` may be called again, or the producer be recycled."""
        self._call("committing", lambda: self._producer.commit_transaction(timeout))

    def abort(self, timeout: float) -> None:
        """Abort the open transaction; the producer counts as suspect until it is recycled."""
        self._call("aborting", lambda: self._producer.abort_transaction(timeout))
        self.suspect = True

    def recycle(self, timeout: float) -> None:
        """Replace the client by a new one of the same id and initialise it, which resolves an unknown outcome."""
        self._producer.purge(blocking=False)
        # Not closed: that would send an abort, which must not follow a commit that may still be on its way.
        self._producer = self._new_producer()
        self.suspect = False
        self.init_transactions(timeout)

    def close(self) -> None:
        """Drop what is queued and disconnect; idempotent. A transaction left open is ended by the id's next owner."""
        self._close_now()

    def _new_producer(self) -> Producer:
        return Producer({**self._properties, "error_cb": self._note_error})

    def _note_error(self, error: KafkaError) -> None:
        self.suspect = self.suspect or error.code() in SUSPICIOUS

    @contextmanager
    def _translated(self, topic: str) -> Iterator[None]:
        try:
            yield
        except KafkaException as error:
            raise self._noted(translate_transactional_produced(error.args[0], topic)) from error
        except SystemError as error:
            raise self._fatal_error(error, f"producing to {topic}") from error

    def _call(self, doing: str, call: Callable[[], object]) -> None:
        try:
            call()
        except KafkaException as error:
            raise self._classed(error.args[0], doing) from error
        except SystemError as error:
            raise self._fatal_error(error, doing) from error
        except TimeoutError as error:
            raise self._noted(OutcomeUnknown(f"{doing}: the client did not return in time")) from error

    def _classed(self, error: KafkaError, doing: str) -> WorkerError:
        return self._noted(translate_transactional(error, doing))

    def _noted(self, translated: WorkerError) -> WorkerError:
        if isinstance(translated, (OutcomeUnknown, Retriable)):
            self.suspect = True
        return translated

    def _fatal_error(self, error: SystemError, doing: str) -> WorkerError:
        reason = _hidden_reason(self._producer, error)
        if reason is not None:
            return self._classed(reason, doing)
        self.suspect = True
        return OutcomeUnknown(f"{doing}: the client failed without a reason")


def _within(timeout: float, call: Callable[[], object]) -> None:
    """Run a client call that may ignore its own timeout; raises TimeoutError when it does.

    librdkafka's send_offsets_to_transaction never returns when the group's coordinator goes away at the wrong moment
    (librdkafka issues 5456 and 5511; seen with 2.16.0). The thread and the client are then left behind for good.
    """
    answer: Future[None] = Future()

    def run() -> None:
        try:
            call()
        except (KafkaException, SystemError) as error:
            answer.set_exception(error)
        else:
            answer.set_result(None)

    # A daemon: the process must be able to end while the call hangs.
    threading.Thread(target=run, name="bounded-call", daemon=True).start()
    answer.result(timeout + _ANSWER_GRACE_S)


def _hidden_reason(producer: Producer, error: SystemError) -> KafkaError | None:
    """A client that becomes fatal while delivery reports run raises SystemError; poll or its cause tells why."""
    if isinstance(error.__cause__, KafkaException):
        return cast(KafkaError, error.__cause__.args[0])
    try:
        producer.poll(0)
    except KafkaException as fatal:
        return cast(KafkaError, fatal.args[0])
    return None


def _ignore(error: KafkaError) -> None:
    """Errors that librdkafka retries by itself; those that matter come back as delivery reports."""
