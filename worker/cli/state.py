"""`lstm-worker state`: looks at the open sequences of a worker, and ends one."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

import orjson
import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from worker.adapters.clock import SystemClock
from worker.adapters.http_client import stream_of_running_worker
from worker.adapters.kafka_admin import KafkaAdmin
from worker.adapters.kafka_producer import KafkaProducer
from worker.adapters.rocksdb_reader import read_rows
from worker.adapters.state_directory import StateDirectory
from worker.cli.options import BootstrapOption, ConfigOption, SetOption, settings_from
from worker.config import Settings
from worker.core.state_row import DecodedRow, Flag, decode_row
from worker.errors import ConfigError
from worker.replay import PARTITION_BY_KEY

TIMEOUT_SECONDS = 10.0

KeyArgument = Annotated[str, typer.Argument(metavar="KEY", help="The stream's key, UTF-8 text.")]
HexOption = Annotated[bool, typer.Option("--hex", help="KEY is in hexadecimal.")]


def register(app: typer.Typer) -> None:
    """Add the group of commands to the program."""
    group = typer.Typer(help="Look at open sequences, or end one.", no_args_is_help=True, rich_markup_mode=None)
    group.command("list")(list_streams)
    group.command("show")(show)
    group.command("reset")(reset)
    group.command("export")(export)
    app.add_typer(group, name="state")


def list_streams(
    config: ConfigOption = None,
    overrides: SetOption = None,
    limit: Annotated[int, typer.Option(min=1, help="Show at most so many.")] = 100,
) -> None:
    """List the open sequences in the local store. No worker may be using it."""
    settings = settings_from(config, overrides)
    table = Table("stream", "partition", "sequence", "step", "last sample (UTC)", "first offset", "model", "")
    with _stopped_worker(settings) as directory:
        rows = list(islice(_rows(directory, settings.topics.input), limit + 1))
    for partition, key, row in rows[:limit]:
        header = row.header
        cells = (_text(key), str(partition), _text(row.sequence_id), str(header["step"]), _time(header["event_time"]))
        table.add_row(*map(Text, cells), str(header["first_offset"]), row.fingerprint[:4].hex(), _flags(row))
    console = Console()
    console.print(table)
    if len(rows) > limit:
        console.print(f"more than {limit} streams: raise --limit, or use `lstm-worker state export`")


def show(key: KeyArgument, config: ConfigOption = None, overrides: SetOption = None, as_hex: HexOption = False) -> None:
    """Print one stream's state as JSON, from the running worker or else from the local store."""
    settings = settings_from(config, overrides)
    stream = _key(key, as_hex)
    found = _find(settings, stream)
    if found is None:
        raise ConfigError(
            f"stream {_text(stream)} has no open sequence here",
            "ask the worker that owns its partition, or check the key",
        )
    typer.echo(orjson.dumps(found, option=orjson.OPT_INDENT_2))


def reset(
    key: KeyArgument,
    config: ConfigOption = None,
    overrides: SetOption = None,
    bootstrap_servers: BootstrapOption = None,
    as_hex: HexOption = False,
    partition: Annotated[
        int | None, typer.Option(min=0, help="Of the stream. Default: where its state is, else by murmur2_random.")
    ] = None,
) -> None:
    """End a stream's sequence: a null record goes to the input topic, so the end comes in order with its samples."""
    settings = settings_from(config, overrides, bootstrap_servers)
    stream = _key(key, as_hex)
    topic = settings.topics.input
    admin = KafkaAdmin(settings.admin_properties(), timeout=TIMEOUT_SECONDS)
    admin.check_reachable(TIMEOUT_SECONDS)
    partitions = admin.partition_count(topic)
    if partitions is None:
        raise ConfigError(f"topic {topic} is missing", "set topics.input")
    if partition is not None and partition >= partitions:
        raise ConfigError(f"topic {topic} has partitions 0 to {partitions - 1}, not {partition}")
    found = _find(settings, stream) if partition is None else None
    target = PARTITION_BY_KEY if partition is None else partition
    event_time = SystemClock().now_ms()
    if found is not None:
        # The last sample's own time: a later one could end other streams, whose idle timeout it would pass.
        target, event_time = int(found["partition"]), int(found["event_time"])
    producer = KafkaProducer({**settings.producer_properties(), "partitioner": "murmur2_random"})
    try:
        producer.produce_many(topic, [target], [stream], [None], [event_time])
        producer.flush()
    finally:
        producer.close()
    where = f"{topic}[{target}]" if target != PARTITION_BY_KEY else f"{topic}, to the partition of murmur2_random"
    typer.echo(f"sent a null record for {_text(stream)} to {where}")


def export(
    config: ConfigOption = None,
    overrides: SetOption = None,
    output: Annotated[Path | None, typer.Option(help="File to write; default: standard output.")] = None,
) -> None:
    """Write all open sequences of the local store as JSON lines, states included. No worker may be using it."""
    settings = settings_from(config, overrides)
    with _stopped_worker(settings) as directory:
        lines = (
            orjson.dumps({"key": _text(key), "key_hex": key.hex(), **_described(partition, row)})
            for partition, key, row in _rows(directory, settings.topics.input)
        )
        if output is None:
            for line in lines:
                typer.echo(line)
            return
        try:
            with output.open("xb") as file:
                file.writelines(line + b"\n" for line in lines)
        except OSError as error:
            raise ConfigError(f"{output} cannot be written ({error.strerror})", "give another --output") from error


def _find(settings: Settings, key: bytes) -> dict[str, Any] | None:
    """The stream's state of the running worker, else of the local store. None where it has no open sequence."""
    answer = stream_of_running_worker(settings.http.bind, settings.http.port, key)
    if answer is not None:
        return answer.stream
    if not Path(settings.state.directory).is_dir():
        return None
    with _stopped_worker(settings) as directory:
        for partition, stream, row in _rows(directory, settings.topics.input):
            if stream == key:
                return _described(partition, row)
    return None


def _stopped_worker(settings: Settings) -> StateDirectory:
    """Its locked state directory. Raises StateDirectoryInUse while a worker runs, ConfigError where there is none."""
    if not Path(settings.state.directory).is_dir():
        raise ConfigError(f"state directory {settings.state.directory} does not exist", "set state.directory")
    return StateDirectory.open(settings.state.directory)


def _rows(directory: StateDirectory, topic: str) -> Iterator[tuple[int, bytes, DecodedRow]]:
    for partition in directory.partitions(topic):
        for key, row in read_rows(directory.store_path(topic, partition)):
            yield partition, key, decode_row(row)


def _described(partition: int, row: DecodedRow) -> dict[str, Any]:
    from worker.status import described

    return described(partition, row)


def _key(text: str, as_hex: bool) -> bytes:
    if not as_hex:
        return text.encode("utf-8", "surrogateescape")
    try:
        return bytes.fromhex(text)
    except ValueError as error:
        raise ConfigError(f"{text} is not hexadecimal", "give two digits a byte, or leave --hex out") from error


def _text(data: bytes) -> str:
    return data.decode("utf-8", "backslashreplace")


def _time(milliseconds: object) -> str:
    assert isinstance(milliseconds, int)
    return datetime.fromtimestamp(milliseconds / 1000, UTC).isoformat(" ", "milliseconds").removesuffix("+00:00")


def _flags(row: DecodedRow) -> str:
    flags = row.header["flags"]
    assert isinstance(flags, int)
    words = {Flag.TAINTED: "tainted", Flag.NOT_FINITE: "not finite"}
    return ", ".join(word for flag, word in words.items() if flags & flag)
