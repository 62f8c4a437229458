"""`lstm-worker produce`: replays a CSV or npz file to the input topic."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Console

from worker.adapters.clock import SystemClock
from worker.adapters.kafka_admin import KafkaAdmin
from worker.adapters.kafka_producer import KafkaProducer
from worker.cli.options import BootstrapOption, ConfigOption, SetOption, settings_from
from worker.cli.progress import progress
from worker.config import Settings
from worker.errors import ConfigError
from worker.model.datasets import Recording, of_split, read_recordings
from worker.replay import Controls, Pace, SampleEncoder, replay

RECORDED_SAMPLES_PER_SECOND = 10.0
"""The rate that --speed multiplies."""
TIMEOUT_SECONDS = 10.0


def register(app: typer.Typer) -> None:
    """Add the command to the program."""
    app.command("produce")(produce)


def produce(
    data: Annotated[Path, typer.Argument(help="CSV (recording, features; split, step, label), or npz (x, recording).")],
    config: ConfigOption = None,
    overrides: SetOption = None,
    bootstrap_servers: BootstrapOption = None,
    topic: Annotated[str | None, typer.Option(help="topics.input")] = None,
    record_format: Annotated[
        Literal["json", "binary"] | None, typer.Option("--format", help="Default: input.format.")
    ] = None,
    feature_columns: Annotated[
        str,
        typer.Option(
            "--features",
            "--feature-columns",
            help="Feature columns in the model's order, with commas. Default: input.features, else all others.",
        ),
    ] = "",
    label_column: Annotated[
        str,
        typer.Option("--label", "--label-column", help="Not sent. Default: `label`, or the only text column."),
    ] = "",
    split: Annotated[str, typer.Option(help="Only recordings of this split, e.g. test.")] = "",
    rate: Annotated[float, typer.Option(min=0, help="Records a second over all streams. 0: see --speed.")] = 0.0,
    speed: Annotated[
        float, typer.Option(min=0, help="Times 10 samples a second of each stream. 0: as fast as possible.")
    ] = 1.0,
    loop: Annotated[int, typer.Option(min=1, help="How often the recordings are sent.")] = 1,
    with_step: Annotated[bool, typer.Option("--with-step", help="Send the control `step`.")] = False,
    with_end: Annotated[bool, typer.Option("--with-end", help="Send `end` with each recording's last sample.")] = False,
    with_sequence_id: Annotated[
        bool, typer.Option("--with-sequence-id", help="Send `sequence_id`, a new one each loop.")
    ] = False,
) -> None:
    """Replay recordings as streams, interleaved: one sample of each at every step."""
    flags = list(overrides or [])
    if topic is not None:
        flags.append(f"topics.input={topic}")
    if record_format is not None:
        flags.append(f"input.format={record_format}")
    settings = settings_from(config, flags, bootstrap_servers)
    columns = [name.strip() for name in feature_columns.split(",") if name.strip()]
    if data.suffix != ".npz":
        columns = columns or settings.input.features
    recordings = of_split(read_recordings(data, columns, label_column), split)
    names, width = settings.input.features, recordings[0].features.shape[1]
    if names and len(names) != width:
        raise ConfigError(
            f"input.features names {len(names)} fields, {data} gives {width}", "name as many with --features"
        )
    plan = _Plan(Pace(rate, 0.0 if rate else RECORDED_SAMPLES_PER_SECOND * speed), loop)
    _produce(settings, recordings, plan, Controls(with_step, with_end, with_sequence_id))


@dataclass(frozen=True, slots=True)
class _Plan:
    pace: Pace
    loops: int


def _produce(settings: Settings, recordings: list[Recording], plan: _Plan, controls: Controls) -> None:
    admin = KafkaAdmin(settings.admin_properties(), timeout=TIMEOUT_SECONDS)
    admin.check_reachable(TIMEOUT_SECONDS)
    topic = settings.topics.input
    if admin.partition_count(topic) is None:
        raise ConfigError(f"topic {topic} is missing", "create it, or run `lstm-worker topics --partitions N`")
    encoder = SampleEncoder(settings.input.format, settings.input.features, controls)
    # Java's partitioner, so that producers in other languages put a stream on the same partition.
    producer = KafkaProducer({**settings.producer_properties(), "partitioner": "murmur2_random"})
    console, clock = Console(stderr=True), SystemClock()
    total = plan.loops * sum(len(recording.features) for recording in recordings)
    started = clock.monotonic()
    try:
        with progress(console, f"producing to {topic}", total) as advance:
            sent = replay(
                recordings, producer, topic, encoder, clock, pace=plan.pace, loops=plan.loops, advance=advance
            )
    finally:
        producer.close()
    seconds = clock.monotonic() - started
    console.print(f"{sent} samples of {len(recordings)} streams in {seconds:.1f} s ({sent / seconds:,.0f}/s)")
