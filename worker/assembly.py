"""Settings to a running worker: the only place that knows which class stands behind which port."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from worker import __version__
from worker.adapters.clock import SystemClock
from worker.adapters.exit_record import previous_exit
from worker.adapters.http import HttpServer
from worker.adapters.kafka_admin import KafkaAdmin
from worker.adapters.kafka_changelog import KafkaChangelogReader
from worker.adapters.kafka_consumer import KafkaConsumer
from worker.adapters.kafka_producer import KafkaProducer, TransactionalKafkaProducer
from worker.adapters.kafka_properties import library_version
from worker.adapters.rocksdb_store import RocksDBStore, SharedMemory, StoreIdentity
from worker.adapters.state_directory import StateDirectory
from worker.commit import AtLeastOnceDelivery
from worker.config import Settings
from worker.core.codec import OutputEncoder, input_decoder, output_encoder
from worker.core.commit_policy import CommitPolicy
from worker.core.publishing import Emission, Emit
from worker.core.restore import InputTopic
from worker.core.row_formats import RowFormats
from worker.core.sequence import OnGap, SequenceRules
from worker.core.slots import StreamTable, slots_for
from worker.core.state_row import RowFormat
from worker.core.types import ModelLabel
from worker.delivery import BadRecordBreaker, Delivery, OutputTopics
from worker.loop import LoopSettings, Worker
from worker.metrics import Metrics
from worker.opening import LocalOpener, OffsetBounds, Opener
from worker.partitions import CommitIdentity, Ownership
from worker.ports import Hook
from worker.processing import Processor
from worker.progress_changelog import ProgressChangelog
from worker.restore_rules import AT_LEAST_ONCE, EXACTLY_ONCE
from worker.restoring import ChangelogOpener, RestoreFiles
from worker.serving import (
    ServedModel,
    check_topics,
    decide_at,
    load_models,
    refuse_unavailable,
    states_on_device,
)
from worker.stages import Stages
from worker.status import StatusBoard
from worker.takeover import EncoderOf, Takeover
from worker.transactional_commit import TransactionalDelivery

REACH_SECONDS_MAX = 10.0
"""How long to wait for the first broker before the worker gives up at start."""
INIT_SECONDS_MAX = 30.0
"""`init_transactions` waits for the coordinator and for the end of the last instance's transaction."""
DEAD_LETTER_BYTES_MAX = 900_000
"""Below the broker's default message.max.bytes (1,048,588) with room for key and headers."""
COMMIT_SHARE_OF_TRANSACTION = 0.6
"""A commit is given up before the broker would end its transaction, so that there is time to resolve it."""


def no_hook(step: str) -> None:
    """The failpoint hook of production: does nothing."""
    del step


@dataclass(frozen=True, slots=True)
class _Parts:
    """What both guarantees are built from."""

    settings: Settings
    models: list[ServedModel]
    """The served one first, then those whose open sequences are finished."""
    admin: KafkaAdmin
    input_topic: InputTopic
    directory: StateDirectory
    metrics: Metrics
    status: StatusBoard
    clock: SystemClock
    hook: Hook
    stages: Stages
    table: StreamTable
    ownership: Ownership
    consumer: KafkaConsumer
    topics: OutputTopics


@contextmanager
def assembled(settings: Settings, hook: Hook = no_hook) -> Iterator[Worker]:
    """A worker that has checked broker, topics, model and state directory, and is about to join the group.

    Everything it opened is closed on leaving. Raises the UserError of whatever cannot be used.
    """
    refuse_unavailable(settings)
    clock = SystemClock()
    models = load_models(settings)
    model = models[0]
    admin = KafkaAdmin(settings.admin_properties(), timeout=REACH_SECONDS_MAX)
    admin.check_reachable(REACH_SECONDS_MAX)
    partitions = check_topics(admin, settings)
    # Without a changelog the broker may be the embedded one, which does not know topic ids.
    topic_id = admin.topic_id(settings.topics.input) if settings.state.changelog else ""
    input_topic = InputTopic(topic_id, partitions)
    fingerprint = model.program.fingerprint
    metrics = Metrics(version=__version__, model=fingerprint[:8], librdkafka=library_version())
    calibration = model.readout.calibration
    metrics.calibrated(float("nan") if calibration is None else float(calibration.drift[1]))
    before = previous_exit(settings.state.directory)
    if before is not None:
        metrics.ended_before(before.reason, before.code, before.at_ms / 1000)
    about = {
        "version": __version__,
        "model": fingerprint[:8],
        "calibration": model.readout.calibration_id or "",
        "topic": settings.topics.input,
        "group": settings.kafka.group_id,
        "guarantee": settings.worker.guarantee,
    }
    status = StatusBoard(clock, about=about, ready_while_restoring=settings.http.ready_while_restoring)
    row_format = _row_format(models)
    slots = slots_for(settings.state.cache_bytes, row_format, settings.worker.batch_records)
    with (
        StateDirectory.open(settings.state.directory, clock) as directory,
        HttpServer(settings.http.bind, settings.http.port, metrics.registry, status),
    ):
        topics = OutputTopics(
            output=settings.topics.output,
            dead_letter=settings.topics.dead_letter,
            input=settings.topics.input,
            worker=settings.kafka.group_instance_id or directory.member_id,
            value_bytes_max=DEAD_LETTER_BYTES_MAX,
            by_key=settings.output.partitioner == "murmur2_random",
        )
        parts = _Parts(
            settings=settings,
            models=models,
            admin=admin,
            input_topic=input_topic,
            directory=directory,
            metrics=metrics,
            status=status,
            clock=clock,
            hook=hook,
            stages=Stages(clock, metrics),
            table=StreamTable(row_format, slots, states_on_device(models)),
            ownership=Ownership(),
            consumer=KafkaConsumer(settings.consumer_properties(), settings.topics.input),
            topics=topics,
        )
        yield _worker(parts)


def _row_format(models: Sequence[ServedModel]) -> RowFormat:
    programs = [model.program for model in models]
    formats = [RowFormat(each.fingerprint, each.outputs, each.state_size) for each in programs]
    return formats[0] if len(formats) == 1 else RowFormats(formats)


def _worker(parts: _Parts) -> Worker:
    settings = parts.settings

    def encoder_of(labels: Sequence[ModelLabel]) -> OutputEncoder:
        return output_encoder(
            settings.output.format,
            topic=settings.topics.input,
            models=labels,
            outputs=parts.models[0].program.outputs,
        )

    delivery = _delivery(parts)
    worker = Worker(
        settings=LoopSettings(settings.worker.batch_records, parts.table.slots_max // 2),
        consumer=parts.consumer,
        processor=_processor(parts),
        encoder=encoder_of([model.label for model in parts.models]),
        delivery=delivery,
        opener=_opener(parts, delivery, encoder_of),
        ownership=parts.ownership,
        table=parts.table,
        policy=CommitPolicy(interval_seconds=settings.worker.commit_interval_ms / 1000),
        breaker=BadRecordBreaker(settings.worker.bad_records_max_share, settings.worker.bad_records_window),
        input_bounds=_bounds(parts.admin, settings.topics.input),
        metrics=parts.metrics,
        status=parts.status,
        stages=parts.stages,
        clock=parts.clock,
        hook=parts.hook,
    )
    parts.consumer.subscribe(worker)
    parts.status.started_up()
    return worker


def _processor(parts: _Parts) -> Processor:
    settings, program = parts.settings, parts.models[0].program
    lengths = [model.length for model in parts.models]
    return Processor(
        decoder=input_decoder(
            settings.input.format,
            features=program.features,
            names=settings.input.features,
            value_bytes_max=settings.input.max_bytes,
            future_ms_max=settings.input.max_future_ms,
        ),
        models=parts.models,
        table=parts.table,
        ownership=parts.ownership,
        rules=SequenceRules(
            lengths[0], OnGap(settings.sequence.on_gap), settings.sequence.idle_timeout_ms, tuple(lengths[1:])
        ),
        emission=Emission(
            Emit(settings.output.emit),
            settings.output.change_threshold,
            settings.output.change_hysteresis,
            frozenset(settings.output.copy_headers),
            decide_at(settings, parts.models),
        ),
        clock=parts.clock,
    )


def _delivery(parts: _Parts) -> Delivery:
    settings = parts.settings
    identity = CommitIdentity(parts.models[0].program.fingerprint[:8], parts.topics.worker, parts.input_topic)
    if settings.worker.guarantee == "at_least_once":
        return _at_least_once(parts, identity)
    transactional_id = settings.transactional_id(parts.directory.member_id)
    producer = TransactionalKafkaProducer(settings.producer_properties(transactional_id))
    producer.init_transactions(INIT_SECONDS_MAX)
    return TransactionalDelivery(
        producer=producer,
        consumer=parts.consumer,
        table=parts.table,
        ownership=parts.ownership,
        topics=parts.topics,
        changelog=settings.changelog_topic,
        identity=identity,
        commit_seconds_max=settings.kafka.transaction_timeout_ms / 1000 * COMMIT_SHARE_OF_TRANSACTION,
        clock=parts.clock,
        hook=parts.stages.within_commits(parts.hook),
        on_recycle=parts.metrics.producer_recycled,
    )


def _at_least_once(parts: _Parts, identity: CommitIdentity) -> AtLeastOnceDelivery:
    settings, topic = parts.settings, parts.settings.changelog_topic
    producer = KafkaProducer(settings.producer_properties())

    def ends(partitions: Sequence[int]) -> dict[int, int]:
        return parts.admin.end_offsets(topic, partitions, read_committed=False)

    changelog = None
    if settings.state.changelog:
        changelog = ProgressChangelog(
            producer=producer, topic=topic, ends=ends, clock=parts.clock, hook=parts.stages.within_commits(parts.hook)
        )
    return AtLeastOnceDelivery(
        producer=producer,
        consumer=parts.consumer,
        table=parts.table,
        topics=parts.topics,
        hook=parts.stages.within_commits(parts.hook),
        changelog=changelog,
        identity=identity if changelog is not None else None,
    )


def _opener(parts: _Parts, delivery: Delivery, encoder_of: EncoderOf) -> Opener:
    settings = parts.settings
    takeover = Takeover(
        table=parts.table,
        delivery=delivery,
        encoder_of=encoder_of,
        on_model_change=settings.model.on_change,
        idle_timeout_ms=settings.sequence.idle_timeout_ms,
        decides=bool(settings.decide.threshold or settings.decide.max_error),
    )
    topic = settings.topics.input
    files = _restore_files(parts)
    if not settings.state.changelog:
        return LocalOpener(
            open_store=files.open,
            consumer=parts.consumer,
            bounds=_bounds(parts.admin, topic),
            start=settings.input.start,
            prepare=takeover.prepare,
        )
    changelog = settings.changelog_topic
    return ChangelogOpener(
        rule=AT_LEAST_ONCE if isinstance(delivery, AtLeastOnceDelivery) else EXACTLY_ONCE,
        files=files,
        consumer=parts.consumer,
        reader=KafkaChangelogReader(settings.admin_properties(), changelog),
        input_bounds=_bounds(parts.admin, topic),
        changelog_bounds=_bounds(parts.admin, changelog),
        start=settings.input.start,
        tombstone_retention_ms=int(parts.admin.topic_setting(changelog, "delete.retention.ms")),
        input_topic=parts.input_topic,
        prepare=takeover.prepare,
        supersede=delivery.supersede,
        metrics=parts.metrics,
        clock=parts.clock,
    )


def _restore_files(parts: _Parts) -> RestoreFiles:
    """Where stores lie. With a changelog a store needs no log of its own: what a crash loses is restored."""
    settings, topic = parts.settings, parts.settings.topics.input
    shared = SharedMemory()
    changelog = settings.changelog_topic if settings.state.changelog else ""

    def open_store(partition: int) -> RocksDBStore:
        return RocksDBStore.open(
            parts.directory.store_path(topic, partition),
            StoreIdentity(
                input_topic=topic,
                partition=partition,
                partition_count=parts.input_topic.partitions,
                changelog_topic=changelog,
                input_topic_id=parts.input_topic.topic_id,
            ),
            shared_cache=shared,
            write_ahead_log=not changelog,
            clock=parts.clock,
        )

    def set_aside(partition: int) -> None:
        parts.directory.set_aside(topic, partition)

    def wipe(partition: int) -> None:
        parts.directory.wipe(topic, partition)

    return RestoreFiles(open_store, wipe, set_aside)


def _bounds(admin: KafkaAdmin, topic: str) -> OffsetBounds:
    """Low and high watermarks; the high one counts open transactions too."""

    def bounds(partition: int) -> tuple[int, int]:
        low = admin.start_offsets(topic, [partition])[partition]
        return low, admin.end_offsets(topic, [partition], read_committed=False)[partition]

    return bounds
