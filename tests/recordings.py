"""Input of end-to-end and fault tests: many streams with every kind of control, and what must come out of them."""

from __future__ import annotations

import json
import random
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from tests.oracle import Expected, Given, Oracle
from worker.adapters.kafka_follower import FollowedRecord
from worker.adapters.kafka_producer import KafkaProducer

START_MS = 1_760_000_000_000


def samples(
    seed: int,
    records: int,
    *,
    features: int = 3,
    streams: int = 12,
    partitions: int = 4,
    controls: bool = True,
    first_offsets: Sequence[int] = (0, 0, 0, 0),
) -> list[Given]:
    """`records` records in the order in which they are produced; offsets count from `first_offsets`."""
    chance = random.Random(seed)
    offsets = list(first_offsets)
    given: list[Given] = []
    for number in range(records):
        stream = chance.randrange(streams)
        partition = stream % partitions
        kind = chance.choice(["end", "null", "step", "id", "bad"]) if controls and chance.random() < 0.2 else "plain"
        values = tuple(struct.unpack("<f", struct.pack("<f", chance.gauss(0, 1)))[0] for _ in range(features))
        given.append(
            Given(
                partition=partition,
                offset=offsets[partition],
                key=b"stream-%02d" % stream,
                event_time=START_MS + 100 * number,
                features=None if kind in ("null", "bad") else values,
                end=kind == "end",
                step=chance.randrange(1, 6) if kind == "step" else None,
                sequence_id=chance.choice(["morning", "evening"]) if kind == "id" else None,
                bad=kind == "bad",
            )
        )
        offsets[partition] += 1
    return given


def as_json(record: Given) -> bytes | None:
    """The record's value as a producing team would write it."""
    if record.bad:
        return b"{not json"
    if record.features is None:
        return None
    fields: dict[str, Any] = {"features": list(record.features)}
    if record.end:
        fields["end"] = True
    if record.step is not None:
        fields["step"] = record.step
    if record.sequence_id is not None:
        fields["sequence_id"] = record.sequence_id
    return json.dumps(fields).encode()


class Sender:
    """Writes records to their partitions, in order, and waits until they are there."""

    def __init__(self, bootstrap: str, topic: str) -> None:
        self._topic = topic
        self._producer = KafkaProducer({"bootstrap.servers": bootstrap, "linger.ms": 0, "log_level": 0})

    def send(self, records: Iterable[Given]) -> None:
        given = list(records)
        self._producer.produce_many(
            self._topic,
            [record.partition for record in given],
            [record.key for record in given],
            [as_json(record) for record in given],
            [record.event_time for record in given],
        )
        self._producer.flush()

    def close(self) -> None:
        self._producer.close()


def produce(bootstrap: str, topic: str, records: Iterable[Given]) -> None:
    """Write records with a client of its own."""
    sender = Sender(bootstrap, topic)
    sender.send(records)
    sender.close()


@dataclass
class Comparison:
    """What `compare` found; `repeats` are outputs beyond the first of each identity."""

    expected: int
    repeats: int
    largest_difference: float


Identity = tuple[int, int, bytes, bool]


def identity(partition: int, output: dict[str, Any], key: bytes) -> Identity:
    """What makes an output the same output, however often it is published."""
    return (partition, output["source"]["offset"], key, output["closing"])


def _repeated(outputs: Sequence[FollowedRecord], seen: dict[Identity, int]) -> dict[str, list[int]]:
    """Where the repeats lie: "partition/input offset" → output offsets, the first of them."""
    found: dict[str, list[int]] = {}
    for record in outputs:
        output = json.loads(record.value or b"null")
        if seen[identity(record.partition, output, record.key or b"")] > 1:
            found.setdefault(f"{record.partition}/{output['source']['offset']}", []).append(record.offset)
    names = sorted(found)
    return {name: found[name] for name in [*names[:5], *names[-5:]]}


def compare(
    outputs: Sequence[FollowedRecord], oracle: Oracle, logits: Any, *, repeats_allowed: bool, tolerance: float = 1e-6
) -> Comparison:
    """Every expected output is there, nothing else is, and every number equals a float64 evaluation.

    `logits(samples)` → the logit after the last of the samples of one sequence, and the probability or None.
    """
    expected: dict[Identity, Expected] = {
        (row.partition, row.source_offset, row.key, row.closing): row for row in oracle.outputs
    }
    seen: dict[Identity, int] = {}
    largest = 0.0
    for record in outputs:
        output = json.loads(record.value or b"null")
        key = record.key or b""
        name = identity(record.partition, output, key)
        assert name in expected, f"an output that nothing in the input explains: {name}"
        row = expected[name]
        fields = ("step", "first_offset", "final", "ended_by", "tainted", "sequence")
        assert {f: output[f] for f in fields} == {f: getattr(row, f) for f in fields}, name
        logit, probability = logits(row.samples)
        largest = max(largest, abs(output["logit"] - logit) / max(1.0, abs(logit)))
        assert (output["probability"] is None) == (probability is None), name
        if probability is not None:
            largest = max(largest, abs(output["probability"] - probability))
        seen[name] = seen.get(name, 0) + 1
    missing = expected.keys() - seen.keys()
    assert not missing, f"{len(missing)} outputs are missing, e.g. {sorted(missing)[:3]}"
    repeats = sum(seen.values()) - len(seen)
    assert repeats_allowed or repeats == 0, f"{repeats} outputs are there more than once: {_repeated(outputs, seen)}"
    assert largest <= tolerance, f"numbers differ by {largest}"
    return Comparison(len(expected), repeats, largest)
