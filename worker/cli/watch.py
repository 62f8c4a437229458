"""`lstm-worker watch`: follows the output topic."""

from __future__ import annotations

from contextlib import nullcontext, suppress
from typing import Annotated

import typer
from rich.console import Console
from rich.live import Live

from worker.adapters.clock import SystemClock
from worker.adapters.kafka_admin import KafkaAdmin
from worker.adapters.kafka_follower import Follower
from worker.cli.options import BootstrapOption, ConfigOption, SetOption, settings_from
from worker.cli.outputs import Published, decode_output, line, table
from worker.config import Settings
from worker.errors import ConfigError

TIMEOUT_SECONDS = 10.0
POLL_SECONDS = 0.2
STREAMS_KEPT_MAX = 10_000
"""Streams remembered, newest first; beyond it the one that was silent for longest is forgotten."""


def register(app: typer.Typer) -> None:
    """Add the command to the program."""
    app.command("watch")(watch)


def watch(
    config: ConfigOption = None,
    overrides: SetOption = None,
    bootstrap_servers: BootstrapOption = None,
    from_beginning: Annotated[bool, typer.Option("--from-beginning", help="Also what is there already.")] = False,
    count: Annotated[int, typer.Option(min=0, help="End after so many records; 0: no limit.")] = 0,
    seconds: Annotated[float, typer.Option(min=0, help="End after so long; 0: at Ctrl-C.")] = 0.0,
) -> None:
    """Show the newest probability of each stream as it is committed; a record a line where there is no terminal."""
    settings = settings_from(config, overrides, bootstrap_servers)
    admin = KafkaAdmin(settings.admin_properties(), timeout=TIMEOUT_SECONDS)
    admin.check_reachable(TIMEOUT_SECONDS)
    topic = settings.topics.output
    partitions = admin.partition_count(topic)
    if partitions is None:
        raise ConfigError(f"topic {topic} is missing", "create it, or run `lstm-worker topics`")
    follower = Follower(
        settings.kafka.bootstrap_servers,
        topic,
        range(partitions),
        from_end=not from_beginning,
        properties={**settings.admin_properties(), **settings.kafka.consumer},
    )
    try:
        with suppress(KeyboardInterrupt):
            _follow(follower, settings, Console(), count, seconds)
    finally:
        follower.close()


def _follow(follower: Follower, settings: Settings, console: Console, count: int, seconds: float) -> None:
    clock, newest, seen = SystemClock(), Newest(), 0
    ends = clock.monotonic() + seconds
    # Where there is no terminal nothing is ever drawn.
    with Live(console=console, refresh_per_second=8) if console.is_terminal else nullcontext() as live:
        while (not count or seen < count) and (not seconds or clock.monotonic() < ends):
            records = follower.poll(POLL_SECONDS)
            for record in records[: count - seen] if count else records:
                seen += 1
                published = decode_output(record.key, record.value or b"", settings.output.format)
                newest.add(published)
                if live is None:
                    typer.echo(line(published))
            if records and live is not None:
                live.update(table(newest.first(max(1, console.height - 2))))


class Newest:
    """The newest record of each stream, the stream that spoke last first."""

    def __init__(self, streams_max: int = STREAMS_KEPT_MAX) -> None:
        self._streams_max = streams_max
        self._by_stream: dict[str, Published] = {}

    def add(self, published: Published) -> None:
        """Moves the record's stream to the front."""
        self._by_stream.pop(published.stream, None)
        self._by_stream[published.stream] = published
        if len(self._by_stream) > self._streams_max:
            del self._by_stream[next(iter(self._by_stream))]

    def first(self, count: int) -> list[Published]:
        """Up to `count` records, sorted by stream so that rows stay in place while all fit."""
        latest = list(self._by_stream.values())[-count:]
        return sorted(latest, key=lambda published: published.stream)
