"""The reference: a bare loop that consumes, decodes, multiplies and produces one output a record.

At least once: flush and offset commit each interval. With `--transactional` outputs and offsets of an interval are one
transaction; with `--state` as well, this also holds a changelog row of STATE_BYTES for each key of the interval, and
after the commit they are written to a RocksDB in that folder. It does what any Python worker must do with the same
client libraries and nothing more, so the ratio to it tells what the worker itself costs.
Run as `python -m worker.bench.passthrough --bootstrap … --input … --output … --group …`; ends on SIGTERM.
"""

from __future__ import annotations

import argparse
import gc
import signal
from collections.abc import Iterable
from itertools import chain
from typing import cast

import numpy as np
import orjson
from confluent_kafka import Consumer, Message, Producer
from rocksdict import Options, Rdict, WriteBatch, WriteOptions

from worker.adapters.clock import SystemClock
from worker.adapters.kafka_consumer import DEFAULTS as CONSUMER_DEFAULTS
from worker.adapters.kafka_producer import DEFAULTS as PRODUCER_DEFAULTS

BATCH_RECORDS = 4096
STATE_BYTES = 400
"""A row of the reference model: 99 float32."""


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("bootstrap", "input", "output", "group"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--format", choices=["binary", "json"], default="binary")
    parser.add_argument("--interval-ms", type=int, default=100)
    parser.add_argument("--transactional", action="store_true")
    parser.add_argument("--changelog", default="", help="topic of the rows")
    parser.add_argument("--state", default="", help="folder of the store")
    return parser.parse_args()


def outputs(values: list[bytes], record_format: str) -> list[bytes]:
    """One output a record: a step and half of the first feature, in the worker's binary size or as small JSON."""
    if record_format == "binary":
        halves = np.frombuffer(b"".join(values), "<f4").reshape(len(values), -1)[:, 0] * np.float32(0.5)
        rows = np.zeros(len(values), np.dtype([("step", "<i4"), ("p", "<f4"), ("flags", "u1"), ("offset", "<i8")]))
        rows["p"] = halves
        return rows.view("V17").tolist()
    samples = [record["features"] for record in orjson.loads(b"[" + b",".join(values) + b"]")]
    flat = np.fromiter(chain.from_iterable(samples), np.float32).reshape(len(values), -1)[:, 0] * np.float32(0.5)
    numbers = orjson.dumps(flat, option=orjson.OPT_SERIALIZE_NUMPY)[1:-1].split(b",")
    return [b'{"step":1,"probability":' + number + b',"final":false}' for number in numbers]


class States:
    """One row for each key of an interval, to the changelog and then to the store."""

    def __init__(self, changelog: str, folder: str) -> None:
        options = Options(raw_mode=True)
        options.create_if_missing(True)
        self._changelog = changelog
        self._database = Rdict(folder, options)
        self._written = WriteOptions()
        self._written.disable_wal = True  # type: ignore[method-assign,assignment]  # a property, whatever the stubs say
        self._row = np.random.default_rng(0).bytes(STATE_BYTES)
        self._changed: dict[bytes, None] = {}

    def touch(self, keys: Iterable[bytes]) -> None:
        self._changed.update(dict.fromkeys(keys))

    def log(self, producer: Producer) -> None:
        """Before the commit."""
        produced(producer, self._changelog, [self._row] * len(self._changed), self._changed)

    def store(self) -> None:
        """After the commit."""
        batch = WriteBatch(raw_mode=True)
        for key in self._changed:
            batch.put(key, self._row)
        self._database.write(batch, self._written)
        self._changed.clear()


def produced(producer: Producer, topic: str, values: Iterable[bytes], keys: Iterable[bytes]) -> None:
    """Queue records, waiting where the queue is full."""
    produce = producer.produce
    for key, value in zip(keys, values, strict=True):
        try:
            produce(topic, value, key)
        except BufferError:
            producer.poll(0.05)
            produce(topic, value, key)
    producer.poll(0)


def commit(consumer: Consumer, producer: Producer, transactional: bool) -> None:
    """Deliver what was produced, then commit the offsets of what was consumed; or both in one transaction."""
    positions = [each for each in consumer.position(consumer.assignment()) if each.offset >= 0]
    if transactional:
        producer.send_offsets_to_transaction(positions, consumer.consumer_group_metadata())
        producer.commit_transaction()
        return
    producer.flush()
    consumer.commit(offsets=positions, asynchronous=False)


def main() -> None:
    """Loop until SIGTERM."""
    given = arguments()
    clock = SystemClock()
    stopping: list[int] = []
    signal.signal(signal.SIGTERM, lambda *_: stopping.append(1))
    consumer = Consumer(
        {
            **CONSUMER_DEFAULTS,
            "bootstrap.servers": given.bootstrap,
            "group.id": given.group,
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
            "enable.auto.offset.store": False,
        }
    )
    producer = Producer(
        {
            **PRODUCER_DEFAULTS,
            "bootstrap.servers": given.bootstrap,
            "enable.idempotence": True,
            "delivery.report.only.error": True,
            **({"transactional.id": given.group} if given.transactional else {}),
        }
    )
    if given.transactional:
        producer.init_transactions()
    consumer.subscribe([given.input])
    states = States(given.changelog, given.state) if given.state else None
    gc.freeze()
    deadline = 0.0

    def commit_all() -> None:
        if states is not None:
            states.log(producer)
        commit(consumer, producer, given.transactional)
        if states is not None:
            states.store()

    while not stopping:
        first = consumer.poll(0.05)
        if first is not None:
            messages = [first, *consumer.consume(BATCH_RECORDS - 1, 0)]
            keys = cast(
                "list[bytes]", list(map(Message.key, messages))
            )  # the input of a measurement has keys and values
            if given.transactional and not deadline:
                producer.begin_transaction()
            values = outputs(cast("list[bytes]", list(map(Message.value, messages))), given.format)
            produced(producer, given.output, values, keys)
            if states is not None:
                states.touch(keys)
            deadline = deadline or clock.monotonic() + given.interval_ms / 1000
        if deadline and clock.monotonic() >= deadline:
            commit_all()
            deadline = 0.0
    if deadline:
        commit_all()
    consumer.close()


if __name__ == "__main__":
    main()
