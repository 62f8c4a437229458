"""Settings to a running worker: the only place that knows which class stands behind which port."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from worker import __version__
from worker.adapters.clock import SystemClock
from worker.adapters.http import HttpServer
from worker.adapters.kafka_admin import KafkaAdmin
from worker.adapters.kafka_consumer import KafkaConsumer
from worker.adapters.kafka_producer import KafkaProducer
from worker.adapters.rocksdb_store import RocksDBStore, SharedMemory, StoreIdentity
from worker.adapters.state_directory import StateDirectory
from worker.commit import AtLeastOnceDelivery
from worker.config import Settings
from worker.core.codec import input_decoder, output_encoder
from worker.core.commit_policy import CommitPolicy
from worker.core.publishing import Emission, Emit
from worker.core.sequence import OnGap, SequenceRules
from worker.core.slots import StreamTable, slots_for
from worker.core.state_row import RowFormat
from worker.delivery import BadRecordBreaker, OutputTopics
from worker.errors import ConfigError
from worker.loop import LoopSettings, Worker
from worker.metrics import Metrics
from worker.model.calibration import calibration_for
from worker.model.contract import verify
from worker.model.load import load_program
from worker.model.numpy_stepper import NumpyStepper
from worker.model.program import StepProgram
from worker.model.readout import Readout
from worker.opening import LocalOpener
from worker.partitions import Ownership
from worker.ports import Hook
from worker.processing import Processor
from worker.status import StatusBoard
from worker.takeover import Takeover

log = logging.getLogger(__name__)

REACH_SECONDS_MAX = 10.0
"""How long to wait for the first broker before the worker gives up at start."""
DEAD_LETTER_BYTES_MAX = 900_000
"""Below the broker's default message.max.bytes (1,048,588) with room for key and headers."""


def no_hook(step: str) -> None:
    """The failpoint hook of production: does nothing."""
    del step


@dataclass(frozen=True, slots=True)
class ServedModel:
    """A verified model and what is published of it."""

    program: StepProgram
    readout: Readout
    length: int


def load_model(settings: Settings) -> ServedModel:
    """Read, compile and verify the model; decide how long a sequence is. Raises ModelNotStreamable, ConfigError."""
    path = Path(settings.model.path)
    program = load_program(path, timesteps=settings.sequence.length or None)
    verify(program)
    length = settings.sequence.length or program.timesteps or 0
    if program.exactness == "end" and length != program.timesteps:
        raise ConfigError(
            f"sequence.length = {length}: the model has {program.timesteps} steps and is exact at the last only",
            "leave sequence.length at 0",
        )
    if settings.input.features and len(settings.input.features) != program.features:
        raise ConfigError(
            f"input.features names {len(settings.input.features)} fields, the model takes {program.features} features",
            "name one field per feature, in the model's order",
        )
    readout = Readout(program, calibration_for(program, path, settings.model.calibration))
    log.info("model %s (%s): %s", path.name, program.fingerprint[:8], readout.describe())
    return ServedModel(program, readout, length)


@contextmanager
def assembled(settings: Settings, hook: Hook = no_hook) -> Iterator[Worker]:
    """A worker that has checked broker, topics, model and state directory, and is about to join the group.

    Everything it opened is closed on leaving. Raises the UserError of whatever cannot be used.
    """
    refuse_unavailable(settings)
    clock = SystemClock()
    model = load_model(settings)
    admin = KafkaAdmin(settings.admin_properties(), timeout=REACH_SECONDS_MAX)
    admin.check_reachable(REACH_SECONDS_MAX)
    partitions = check_topics(admin, settings)
    metrics = Metrics(version=__version__, model=model.program.fingerprint[:8])
    status = StatusBoard(
        clock,
        about={
            "version": __version__,
            "model": model.program.fingerprint[:8],
            "calibration": model.readout.calibration_id or "",
            "topic": settings.topics.input,
            "group": settings.kafka.group_id,
            "guarantee": settings.worker.guarantee,
        },
        ready_while_restoring=settings.http.ready_while_restoring,
    )
    with (
        StateDirectory.open(settings.state.directory, clock) as directory,
        HttpServer(settings.http.bind, settings.http.port, metrics.registry, status),
    ):
        yield _worker(settings, model, admin, partitions, directory, metrics, status, clock, hook)


def refuse_unavailable(settings: Settings) -> None:
    """Settings whose work is not done yet are refused, not ignored. Raises ConfigError."""
    unavailable = {
        "worker.guarantee = 'exactly_once'": (settings.worker.guarantee == "exactly_once", "at_least_once"),
        "state.changelog = true": (settings.state.changelog, "false"),
        "state.standby = 1": (settings.state.standby > 0, "0"),
        "model.engine = 'tensorflow'": (settings.model.engine == "tensorflow", "numpy"),
        "model.mode = 'buffer'": (settings.model.mode == "buffer", "step"),
        "model.on_change = 'finish'": (settings.model.on_change == "finish", "refuse or reset"),
        "model.architecture": (bool(settings.model.architecture), "a file that holds its architecture"),
    }
    for setting, (asked, instead) in unavailable.items():
        if asked:
            raise ConfigError(f"{setting} is not available in this version", f"use {instead}")


def check_topics(admin: KafkaAdmin, settings: Settings) -> int:
    """The input's partition count. Raises ConfigError for a missing topic or another count of outputs."""
    topics = settings.topics
    counts = {name: admin.partition_count(name) for name in (topics.input, topics.output, topics.dead_letter)}
    missing = [name for name, count in counts.items() if count is None]
    if missing:
        raise ConfigError(f"topic {', '.join(missing)} is missing", "create it, or run `lstm-worker topics`")
    partitions = counts[topics.input] or 0
    if settings.output.partitioner == "input" and counts[topics.output] != partitions:
        raise ConfigError(
            f"topic {topics.output} has {counts[topics.output]} partitions, {topics.input} has {partitions}",
            "give both the same count, or set output.partitioner = 'murmur2_random'",
        )
    return partitions


def _worker(
    settings: Settings,
    model: ServedModel,
    admin: KafkaAdmin,
    partitions: int,
    directory: StateDirectory,
    metrics: Metrics,
    status: StatusBoard,
    clock: SystemClock,
    hook: Hook,
) -> Worker:
    program = model.program
    row_format = RowFormat(program.fingerprint, program.outputs, program.state_size)
    table = StreamTable(row_format, slots_for(settings.state.cache_bytes, row_format, settings.worker.batch_records))
    ownership = Ownership()
    rules = SequenceRules(model.length, OnGap(settings.sequence.on_gap), settings.sequence.idle_timeout_ms)
    processor = Processor(
        decoder=input_decoder(
            settings.input.format,
            features=program.features,
            names=settings.input.features,
            value_bytes_max=settings.input.max_bytes,
            future_ms_max=settings.input.max_future_ms,
        ),
        stepper=NumpyStepper(program),
        readout=model.readout,
        table=table,
        ownership=ownership,
        rules=rules,
        emission=Emission(
            Emit(settings.output.emit),
            settings.output.change_threshold,
            settings.output.change_hysteresis,
            frozenset(settings.output.copy_headers),
        ),
        clock=clock,
    )
    topics = OutputTopics(
        output=settings.topics.output,
        dead_letter=settings.topics.dead_letter,
        input=settings.topics.input,
        worker=settings.kafka.group_instance_id or directory.member_id,
        value_bytes_max=DEAD_LETTER_BYTES_MAX,
        by_key=settings.output.partitioner == "murmur2_random",
    )
    consumer = KafkaConsumer(settings.consumer_properties(), settings.topics.input)
    shared = SharedMemory()

    def open_store(partition: int) -> RocksDBStore:
        identity = StoreIdentity(
            input_topic=settings.topics.input,
            partition=partition,
            partition_count=partitions,
            changelog_topic=settings.changelog_topic if settings.state.changelog else "",
        )
        path = directory.store_path(settings.topics.input, partition)
        return RocksDBStore.open(path, identity, shared_cache=shared, write_ahead_log=True, clock=clock)

    def bounds(partition: int) -> tuple[int, int]:
        topic = settings.topics.input
        low = admin.start_offsets(topic, [partition])[partition]
        return low, admin.end_offsets(topic, [partition], read_committed=False)[partition]

    encoder = output_encoder(
        settings.output.format,
        topic=settings.topics.input,
        length=model.length or None,
        model=program.fingerprint[:8],
        calibration=model.readout.calibration_id,
        outputs=program.outputs,
    )
    producer = KafkaProducer(settings.producer_properties())
    delivery = AtLeastOnceDelivery(producer=producer, consumer=consumer, table=table, topics=topics, hook=hook)
    takeover = Takeover(
        table=table,
        delivery=delivery,
        encoder=encoder,
        on_model_change=settings.model.on_change,
        idle_timeout_ms=settings.sequence.idle_timeout_ms,
    )
    worker = Worker(
        settings=LoopSettings(settings.worker.batch_records, table.slots_max // 2),
        consumer=consumer,
        processor=processor,
        encoder=encoder,
        delivery=delivery,
        opener=LocalOpener(
            open_store=open_store,
            consumer=consumer,
            bounds=bounds,
            start=settings.input.start,
            prepare=takeover.prepare,
        ),
        ownership=ownership,
        table=table,
        policy=CommitPolicy(interval_seconds=settings.worker.commit_interval_ms / 1000),
        breaker=BadRecordBreaker(settings.worker.bad_records_max_share, settings.worker.bad_records_window),
        metrics=metrics,
        status=status,
        clock=clock,
        hook=hook,
    )
    consumer.subscribe(worker)
    status.started_up()
    return worker
