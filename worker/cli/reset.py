"""`lstm-worker reset`: moves the group's offsets on purpose and clears the state that belongs to the old ones."""

from __future__ import annotations

import threading
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from worker.adapters.clock import SystemClock
from worker.adapters.kafka_admin import KafkaAdmin
from worker.adapters.kafka_changelog import KafkaChangelogReader
from worker.adapters.kafka_consumer import KafkaConsumer
from worker.adapters.kafka_producer import TransactionalKafkaProducer
from worker.adapters.state_directory import StateDirectory
from worker.cli.options import BootstrapOption, ConfigOption, GroupOption, SetOption, settings_from
from worker.cli.progress import progress
from worker.config import Settings
from worker.core.reset import ResetTo
from worker.core.restore import InputTopic
from worker.errors import ConfigError
from worker.resetting import GroupNotEmpty, PartitionReset, Resetter

TIMEOUT_SECONDS = 10.0
LOOK_SECONDS = 0.5
"""How often to ask whether the group is empty."""


def register(app: typer.Typer) -> None:
    """Add the command to the program."""
    app.command("reset")(reset)


def reset(
    config: ConfigOption = None,
    overrides: SetOption = None,
    bootstrap_servers: BootstrapOption = None,
    group_id: GroupOption = None,
    to_earliest: Annotated[bool, typer.Option("--to-earliest", help="Read everything that is there again.")] = False,
    to_latest: Annotated[bool, typer.Option("--to-latest", help="Skip everything that is there.")] = False,
    to_offset: Annotated[int | None, typer.Option(min=0, help="This offset, in each partition.")] = None,
    to_timestamp: Annotated[
        datetime | None, typer.Option(help="The first sample at or after this time, UTC: 2026-01-31T12:00:00.")
    ] = None,
    partition: Annotated[list[int] | None, typer.Option(help="Only this partition; may be repeated.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be done.")] = False,
    wait: Annotated[
        float, typer.Option(min=0, help="Seconds to wait for members that were stopped; static ones stay for a while.")
    ] = 60.0,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Move the group's offsets and clear its state, together. All workers of the group must be stopped."""
    to = _wanted(to_earliest, to_latest, to_offset, to_timestamp)
    settings = settings_from(config, overrides, bootstrap_servers, group_id)
    admin = KafkaAdmin(settings.admin_properties(), timeout=TIMEOUT_SECONDS)
    admin.check_reachable(TIMEOUT_SECONDS)
    topic = settings.topics.input
    count = admin.partition_count(topic)
    if count is None:
        raise ConfigError(f"topic {topic} is missing", "set topics.input")
    chosen = sorted(set(partition)) if partition else list(range(count))
    if chosen[-1] >= count or chosen[0] < 0:
        raise ConfigError(f"topic {topic} has partitions 0 to {count - 1}", "give one of them as --partition")
    properties = {name: value for name, value in settings.consumer_properties().items() if name != "group.instance.id"}
    with closing(KafkaConsumer(properties, topic)) as consumer:
        resetter = Resetter(
            admin=admin,
            consumer=consumer,
            group=settings.kafka.group_id,
            topic=topic,
            input_topic=InputTopic(admin.topic_id(topic) if settings.state.changelog else "", count),
            clock=SystemClock(),
        )
        console = Console()
        _await_empty_group(resetter, wait, console)
        time_ms = None if to_timestamp is None else int(to_timestamp.replace(tzinfo=UTC).timestamp() * 1000)
        resets = resetter.plan(to, chosen, time_ms)
        sequences = _open_sequences(settings, resetter, admin, chosen, console)
        console.print(_table(resets, sequences))
        if dry_run:
            return
        if not yes:
            typer.confirm("Move the offsets and drop these open sequences?", abort=True)
        _execute(settings, resetter, resets, sequences)
        console.print("done; start the workers")


def _wanted(earliest: bool, latest: bool, offset: int | None, timestamp: datetime | None) -> ResetTo:
    given = [earliest, latest, offset is not None, timestamp is not None]
    if sum(given) != 1:
        raise ConfigError(
            "where to move to is not clear", "give one of --to-earliest, --to-latest, --to-offset and --to-timestamp"
        )
    if offset is not None:
        return ResetTo("offset", offset)
    if timestamp is not None:
        return ResetTo("timestamp")
    return ResetTo("earliest" if earliest else "latest")


def _await_empty_group(resetter: Resetter, seconds: float, console: Console) -> None:
    clock, told = SystemClock(), False
    deadline = clock.monotonic() + seconds
    while True:
        try:
            return resetter.refuse_members()
        except GroupNotEmpty as error:
            if clock.monotonic() >= deadline:
                raise
            if not told:
                console.print(f"waiting up to {seconds:g} s: {error.message}", highlight=False)
                told = True
        threading.Event().wait(LOOK_SECONDS)


def _open_sequences(
    settings: Settings, resetter: Resetter, admin: KafkaAdmin, partitions: list[int], console: Console
) -> dict[int, list[bytes]] | None:
    """None without a changelog: the sequences are in the local stores, which are deleted whole."""
    if not settings.state.changelog:
        return None
    changelog = settings.changelog_topic
    if admin.partition_count(changelog) is None:
        raise ConfigError(f"changelog topic {changelog} is missing", "run `lstm-worker topics`")
    low = admin.start_offsets(changelog, partitions)
    total = sum(admin.end_offsets(changelog, partitions, read_committed=True).values()) - sum(low.values())
    with (
        closing(KafkaChangelogReader(settings.admin_properties(), changelog)) as reader,
        progress(console, "reading the changelog", max(total, 1)) as advance,
    ):
        return resetter.open_sequences(reader, changelog, partitions, advance)


def _execute(
    settings: Settings, resetter: Resetter, resets: list[PartitionReset], sequences: dict[int, list[bytes]] | None
) -> None:
    if sequences is None:
        resetter.execute_without_changelog(resets)
    else:
        transactional_id = f"{settings.kafka.group_id}-reset"
        with closing(TransactionalKafkaProducer(settings.producer_properties(transactional_id))) as producer:
            resetter.execute(resets, sequences, producer, settings.changelog_topic)
    if Path(settings.state.directory).is_dir():
        with StateDirectory.open(settings.state.directory) as directory:
            for each in resets:
                directory.wipe(settings.topics.input, each.partition)


def _table(resets: list[PartitionReset], sequences: dict[int, list[bytes]] | None) -> Table:
    table = Table()
    for column in ("partition", "committed", "new offset", "records to read", "open sequences dropped"):
        table.add_column(column, justify="right")
    for each in resets:
        dropped = "all in the local store" if sequences is None else f"{len(sequences[each.partition])}"
        committed = "none" if each.committed is None else str(each.committed)
        table.add_row(str(each.partition), committed, str(each.next_offset), str(each.records), dropped)
    return table
