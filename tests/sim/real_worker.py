"""The worker itself in the simulated world: its own loop, commit, restore, processing and tables.

Simulated are only what lies outside: clients, brokers, disks, clock, and the model, whose number is a digest of all
samples of the sequence.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator
from dataclasses import dataclass
from random import Random
from typing import Any

import numpy as np

from tests.holding import HoldingStepper
from tests.sim.adapters import (
    TICK_SECONDS,
    DiskStore,
    StepwiseChangelogReader,
    StepwiseConsumer,
    StepwiseProducer,
    TickClock,
)
from tests.sim.client import SimulatedMember, SimulatedProducer, Weather
from tests.sim.disk import SimulatedDisk
from tests.sim.kafka import Kafka
from tests.sim.owned import DIGEST_MODULUS, Output
from tests.sim.stepwise import Stepwise
from worker.core.commit_policy import CommitPolicy
from worker.core.publishing import Emission
from worker.core.restore import InputTopic
from worker.core.sequence import SequenceRules
from worker.core.slots import StreamTable
from worker.core.state_row import RowFormat
from worker.core.types import DecodedBatch, Kind, PredictionBatch, RecordBatch, Rejection
from worker.delivery import BadRecordBreaker, OutputTopics
from worker.errors import Fenced, Retriable, StoreCorrupted
from worker.loop import LoopSettings, Worker
from worker.partitions import CommitIdentity, Ownership
from worker.processing import Processor
from worker.restore_rules import EXACTLY_ONCE
from worker.restoring import ChangelogOpener, RestoreFiles
from worker.stages import Stages
from worker.takeover import Takeover
from worker.transactional_commit import TransactionalDelivery

FINGERPRINT = "ab" * 32
KINDS = {b"sample": Kind.SAMPLE, b"end": Kind.END, b"skip": Kind.REJECTED}
COMMIT_INTERVAL_SECONDS = 30 * TICK_SECONDS
COMMIT_SECONDS_MAX = 5 * TICK_SECONDS
BATCH_RECORDS = 6
SLOTS = 64


class KindDecoder:
    """The features of a sample are its number, which is its event time too, and its offset."""

    def decode(self, batch: RecordBatch, now_ms: int) -> DecodedBatch:
        del now_ms
        kinds = np.array([KINDS[value or b""] for value in batch.values], np.uint8)
        rejections = {i: Rejection("skip", "") for i in range(len(batch)) if kinds[i] == Kind.REJECTED}
        features = np.stack([batch.event_times, batch.offsets], axis=1).astype(np.float32)
        return DecodedBatch(features, kinds, rejections=rejections)


class DigestStepper:
    """state[0] is the digest that `tests.sim.owned.step` computes; exact, since it is below 2^24."""

    features, state_size, columns = 2, 1, 1
    releases_lock = True

    def step_batch(self, slots: Any, features: Any, states: Any, steps: Any) -> Any:
        logits = np.empty((len(slots), 1), np.float32)
        for i, slot in enumerate(slots.tolist()):
            before = 0 if steps[i] == 1 else int(states[slot, 0])
            states[slot, 0] = (before * 31 + int(features[i, 0]) * 7 + int(features[i, 1]) + 1) % DIGEST_MODULUS
            logits[i, 0] = states[slot, 0]
        return logits


class LogitReadout:
    computed_from = 1
    calibration_id = None

    def publish(self, answers: Any, steps: Any) -> Any:
        return answers, self.exact(steps)

    def exact(self, steps: Any) -> Any:
        return steps > 0


class DigestModel:
    stepper: Any = DigestStepper()
    readout: Any = LogitReadout()


class OutputAsIs:
    """Encodes nothing: the simulated topics hold objects."""

    def encode(self, predictions: PredictionBatch) -> list[Any]:
        signed = np.where(predictions.closing, -predictions.steps, predictions.steps).tolist()
        return [
            Output(offset, key.decode(), samples, int(logit))
            for offset, key, samples, logit in zip(
                predictions.source_offsets.tolist(), predictions.keys, signed, predictions.logits[:, 0], strict=True
            )
        ]


class Unseen:
    """Metrics and status that nobody looks at."""

    def __getattr__(self, name: str) -> Any:
        return lambda *_, **__: None


@dataclass(frozen=True)
class Held:
    """What the oracles ask of an assigned partition."""

    running: bool
    changed: bool
    disk: SimulatedDisk


class RealWorker:
    """One worker over all its lives, as the world sees it."""

    def __init__(self, name: str, kafka: Kafka, random: Random, weather: Weather, counts: Counter[str]) -> None:
        self.name = name
        self.kafka = kafka
        self.random = random
        self.weather = weather
        self.counts = counts
        self.disks = [SimulatedDisk() for _ in range(kafka.partitions)]
        self.start_process()

    def start_process(self) -> None:
        """Memory is empty."""
        self.producer = SimulatedProducer(self.kafka, f"id-{self.name}", self.random, self.weather, self.counts)
        self.member = SimulatedMember(self.kafka, self.name)
        self.ownership = Ownership()
        self.worker: Worker | None = None
        self._stopping = False

    @property
    def stopping(self) -> bool:
        return self._stopping

    @stopping.setter
    def stopping(self, value: bool) -> None:
        self._stopping = value
        if value and self.worker is not None:
            self.worker.stop()

    @property
    def owned(self) -> dict[int, Held]:
        return {each.index: Held(each.running, each.changed, self.disks[each.index]) for each in self.ownership}

    def life(self) -> Generator[None, None, None]:
        """One process, until it is killed, stopped or ends by itself. Raises StateTorn where it must halt."""
        process = Stepwise(lambda: self._run(process))
        try:
            while process.step():
                yield
        except (Fenced, Retriable, StoreCorrupted) as error:
            self.counts[f"exits: {type(error).__name__}"] += 1
        finally:
            process.kill()

    def _run(self, process: Stepwise) -> None:
        producer = StepwiseProducer(self.producer, process)
        while True:
            try:
                producer.init_transactions(1.0)
            except Retriable:
                continue
            break
        self.worker = self._assembled(process, producer)
        if not self._stopping:
            self.worker.run()
            self.counts["exits: stopped"] += 1

    def _assembled(self, process: Stepwise, producer: Any) -> Worker:
        """As `worker.assembly` does it."""
        kafka, clock, unseen = self.kafka, TickClock(self.kafka), Unseen()
        consumer: Any = StepwiseConsumer(kafka, self.member, process, self.random)
        reader: Any = StepwiseChangelogReader(kafka, process)
        model = DigestModel()
        # The harder case: states are where a rollback and a commit must ask for them.
        model.stepper = HoldingStepper(model.stepper)
        table = StreamTable(RowFormat(FINGERPRINT, 1, 1), SLOTS, [model.stepper])
        ownership, encoder = self.ownership, OutputAsIs()
        input_topic = InputTopic("topic-id", kafka.partitions)

        def hook(step: str) -> None:
            self.counts[f"step: {step}"] += 1
            process.pause()

        def input_bounds(index: int) -> tuple[int, int]:
            return kafka.input_low, len(kafka.input[index])

        delivery = TransactionalDelivery(
            producer=producer,
            consumer=consumer,
            table=table,
            ownership=ownership,
            topics=OutputTopics("output", "dead", "input", self.name, 1000),
            changelog="changelog",
            identity=CommitIdentity(FINGERPRINT[:8], self.name, input_topic),
            commit_seconds_max=COMMIT_SECONDS_MAX,
            clock=clock,
            hook=hook,
            on_recycle=lambda reason: self.counts.update([f"recycled: {reason}"]),
        )
        takeover = Takeover(
            table=table,
            delivery=delivery,
            encoder_of=lambda _labels: encoder,
            on_model_change="refuse",
            idle_timeout_ms=0,
        )
        opener = ChangelogOpener(
            rule=EXACTLY_ONCE,
            files=self._files(process),
            consumer=consumer,
            reader=reader,
            input_bounds=input_bounds,
            changelog_bounds=lambda index: (0, kafka.logs["changelog", index].high_watermark),
            start="earliest",
            tombstone_retention_ms=round(kafka.tombstone_retention * TICK_SECONDS * 1000),
            input_topic=input_topic,
            prepare=takeover.prepare,
            supersede=delivery.supersede,
            metrics=unseen,
            clock=clock,
        )
        worker = Worker(
            settings=LoopSettings(BATCH_RECORDS, SLOTS // 2),
            consumer=consumer,
            processor=Processor(
                decoder=KindDecoder(),
                models=[model],
                table=table,
                ownership=ownership,
                rules=SequenceRules(),
                emission=Emission(),
                clock=clock,
                background_samples_min=self.random.choice((1, BATCH_RECORDS + 1)),
            ),
            encoder=encoder,
            delivery=delivery,
            opener=opener,
            ownership=ownership,
            table=table,
            policy=CommitPolicy(COMMIT_INTERVAL_SECONDS),
            breaker=BadRecordBreaker(1.0, 1000),
            input_bounds=input_bounds,
            metrics=unseen,
            status=unseen,
            stages=Stages(clock, unseen),
            clock=clock,
            hook=hook,
        )
        consumer.subscribe(worker)
        return worker

    def _files(self, process: Stepwise) -> RestoreFiles:
        def opened(index: int) -> DiskStore:
            process.pause()
            if self.disks[index].corrupted:
                raise StoreCorrupted("simulated", "damaged")
            return DiskStore(self.disks[index], self.kafka, process)

        def set_aside(index: int) -> None:
            self.counts["stores set aside"] += 1
            self.disks[index].wipe()

        def wipe(index: int) -> None:
            self.counts["stores wiped"] += 1
            self.disks[index].wipe()

        return RestoreFiles(opened, wipe, set_aside)
