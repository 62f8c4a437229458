"""`lstm-worker bench throughput | latency | restore | takeover | memory`: figures on a real broker."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from worker.bench.latency import Paced
from worker.bench.latency import latency as measure_latency
from worker.bench.live_streams import Restored, live_streams
from worker.bench.load import PARTITIONS, Load
from worker.bench.results import percentiles, save, spread
from worker.bench.takeover import SESSION_TIMEOUT_MS
from worker.bench.takeover import Takeover as Trial
from worker.bench.throughput import CONTENDERS, Throughput
from worker.cli.bench_tables import (
    BrokerOption,
    FormatOption,
    ModelOption,
    ResultsOption,
    Rounds,
    checked_format,
    command_line,
    figures,
    rate_table,
    stage_table,
)
from worker.core.state_row import CRC_BYTES, RowFormat
from worker.errors import ConfigError
from worker.model.load import load_program

EXAMPLE_MODEL = Path(__file__).resolve().parents[2] / "examples" / "basic_motions" / "badminton.keras"
LOCAL_BROKER = "127.0.0.1:9092"
WARM_SECONDS = 3.0
SESSION_SECONDS = SESSION_TIMEOUT_MS / 1000
TRANSACTION_TIMEOUTS_MS = (15_000, 5_000)
"""The default, and one below the session timeout: a killed worker's open transaction blocks readers for so long."""


def register(group: typer.Typer) -> None:
    """Add the measurements to `bench`."""
    group.command("throughput")(throughput)
    group.command("latency")(latency)
    group.command("memory")(memory)
    group.command("restore")(restore)
    group.command("takeover")(takeover)


def throughput(
    bootstrap_servers: BrokerOption = LOCAL_BROKER,
    model: ModelOption = EXAMPLE_MODEL,
    record_format: FormatOption = "binary",
    records: Annotated[int, typer.Option(min=10_000, help="Records of a drain.")] = 500_000,
    streams: Annotated[int, typer.Option(min=1)] = 10_000,
    zipf: Annotated[float, typer.Option(min=0, help="Exponent of skewed keys; 0: streams take turns.")] = 0.0,
    rounds: Annotated[int, typer.Option(min=1)] = 5,
    interval_ms: Annotated[int, typer.Option(min=1, help="worker.commit_interval_ms")] = 100,
    contenders: Annotated[str, typer.Option(help="Names with commas between; default: all.")] = ",".join(CONTENDERS),
    results: ResultsOption = None,
) -> None:
    """Exactly once, at least once and pass-through loops drain the same topic, in interleaved rounds."""
    checked_format(record_format)
    wanted = [name.strip() for name in contenders.split(",")]
    if unknown := set(wanted) - set(CONTENDERS):
        raise ConfigError(f"--contenders {', '.join(sorted(unknown))}", f"choose of: {', '.join(CONTENDERS)}")
    console = Console()
    load = Load(records, streams, load_program(model).features, record_format, zipf)
    measured = Throughput(f"bench-{uuid.uuid4().hex[:8]}", bootstrap_servers, load, model, interval_ms)
    measured.prepare()
    done: Rounds = {name: [] for name in wanted}
    for number in range(1, rounds + 1):
        for contender, drains in done.items():
            drains.append(measured.run(contender, number))
            console.print(f"round {number} of {rounds}: {contender} {drains[-1].rate:,.0f}/s", highlight=False)
    console.print(rate_table(f"{load.title}, a commit each {interval_ms} ms", done))
    console.print(stage_table(done))
    if results is not None:
        skew = f"-zipf{zipf:g}" if zipf else ""
        name = f"throughput-{record_format}-{streams}{skew}-{interval_ms}ms"
        described = {"load": load, "interval_ms": interval_ms, "contenders": figures(done)}
        console.print(f"saved {save(results, name, command_line(), described)}")


LATENCY_RUNS: tuple[tuple[str, int, tuple[str, ...]], ...] = (
    ("exactly_once", 100, ()),
    ("exactly_once", 20, ()),
    ("at_least_once", 100, ()),
    ("at_least_once", 100, ("kafka.producer.linger.ms=0", "kafka.consumer.fetch.wait.max.ms=5")),
)
"""Guarantee, commit interval, other settings. By default the worker's producer waits 1 ms for more records."""


def latency(
    bootstrap_servers: BrokerOption = LOCAL_BROKER,
    model: ModelOption = EXAMPLE_MODEL,
    rate: Annotated[int, typer.Option(min=1, help="Records a second.")] = 5_000,
    seconds: Annotated[float, typer.Option(min=1, help="Of a run, after its warm-up.")] = 15.0,
    streams: Annotated[int, typer.Option(min=1)] = 10_000,
    rounds: Annotated[int, typer.Option(min=1)] = 1,
    results: ResultsOption = None,
) -> None:
    """Due time to read_committed consumer at a steady rate, and what the worker's commits take."""
    paced = Paced(rate, seconds, WARM_SECONDS, streams, load_program(model).features)
    console = Console()
    table = Table(title=f"Milliseconds at {rate:,} records/s, {streams:,} streams, p50 / p99, one line a run")
    for column in ("", "interval", "end to end", "commit"):
        table.add_column(column, justify="left" if not column else "right")
    runs: list[dict[str, Any]] = []
    for _ in range(rounds):
        for guarantee, interval_ms, overrides in LATENCY_RUNS:
            found = measure_latency(bootstrap_servers, model, paced, guarantee, interval_ms, overrides)
            shares = percentiles(found.milliseconds, (50, 99, 99.9))
            commits = percentiles(found.commits.total_ms)
            steps = {step: percentiles(each) for step, each in found.commits.steps_ms.items()}
            name = " ".join([guarantee, *(override.removeprefix("kafka.") for override in overrides)])
            console.print(f"{name}, {interval_ms} ms: p50 {shares['p50']:.1f} p99 {shares['p99']:.1f}", highlight=False)
            both = [f"{each['p50']:.1f} / {each['p99']:.1f}" for each in (shares, commits)]
            table.add_row(name, f"{interval_ms} ms", *both)
            runs.append(
                {
                    "guarantee": guarantee,
                    "interval_ms": interval_ms,
                    "overrides": overrides,
                    "end_to_end_ms": shares,
                    "commit_ms": commits,
                    "commits": len(found.commits.total_ms),
                    "commit_steps_ms": steps,
                }
            )
    console.print(table)
    if results is not None:
        console.print(f"saved {save(results, 'latency', command_line(), {'load': paced, 'runs': runs})}")


def memory(
    bootstrap_servers: BrokerOption = LOCAL_BROKER,
    model: ModelOption = EXAMPLE_MODEL,
    streams: Annotated[int, typer.Option(min=1)] = 1_000_000,
    results: ResultsOption = None,
) -> None:
    """Memory and throughput at many live streams, start after a clean stop with all of them on disk, restore."""
    console = Console()
    with live_streams(bootstrap_servers, model, load_program(model).features, streams) as live:
        filled = live.fill(streams)
        console.print(f"{streams:,} live streams: {filled.memory_mb:,.0f} MB, {filled.rate:,.0f}/s", highlight=False)
        restarted = live.restart()
        console.print(f"clean start to first output {restarted.ready_seconds:.2f} s", highlight=False)
        restored = live.restore()
    console.print(_restored_line(restored), highlight=False)
    if results is not None:
        described = {"streams": streams, "fill": filled, "restart": restarted, "restore": restored}
        console.print(f"saved {save(results, f'memory-{streams}', command_line(), described)}")


def restore(
    bootstrap_servers: BrokerOption = LOCAL_BROKER,
    model: ModelOption = EXAMPLE_MODEL,
    streams: Annotated[int, typer.Option(min=1)] = 500_000,
    rounds: Annotated[int, typer.Option(min=1)] = 3,
    results: ResultsOption = None,
) -> None:
    """A fresh disk: changelog rows a second until every partition runs."""
    console = Console()
    program = load_program(model)
    done: list[Restored] = []
    with live_streams(bootstrap_servers, model, program.features, streams) as live:
        live.fill(streams)
        for _ in range(rounds):
            done.append(live.restore())
            console.print(_restored_line(done[-1]), highlight=False)
    rates = spread([each.rows_per_second for each in done])
    console.print(f"rows/s in total over {PARTITIONS} partitions: {rates.text()}", highlight=False)
    if results is not None:
        row_bytes = RowFormat(program.fingerprint, program.outputs, program.state_size).row_bytes + CRC_BYTES
        described = {"row_bytes": row_bytes, "rows_per_second": rates, "rounds": done}
        console.print(f"saved {save(results, 'restore', command_line(), described)}")


def _restored_line(restored: Restored) -> str:
    return f"restored {restored.rows:,} rows in {restored.seconds:.1f} s: {restored.rows_per_second:,.0f}/s"


def takeover(
    bootstrap_servers: BrokerOption = LOCAL_BROKER,
    model: ModelOption = EXAMPLE_MODEL,
    rounds: Annotated[int, typer.Option(min=1)] = 3,
    results: ResultsOption = None,
) -> None:
    """Seconds from a kill -9 until every partition has new outputs, exactly once."""
    console = Console()
    features = load_program(model).features
    seconds: dict[str, list[float]] = {}
    for _ in range(rounds):
        for transaction_timeout_ms in TRANSACTION_TIMEOUTS_MS:
            trials = {"same static member back": Trial.same_member_back, "other worker": Trial.other_worker}
            for name, run in trials.items():
                found = run(Trial(bootstrap_servers, model, features, transaction_timeout_ms))
                name = f"{name}, transaction timeout {transaction_timeout_ms / 1000:g} s"
                seconds.setdefault(name, []).append(found)
                console.print(f"{name}: {found:.1f} s", highlight=False)
    spreads = {name: spread(each) for name, each in seconds.items()}
    table = Table(title=f"Seconds from kill -9 to outputs of every partition, session timeout {SESSION_SECONDS:g} s")
    table.add_column("")
    table.add_column("median (lowest to highest)", justify="right")
    for name, each in spreads.items():
        table.add_row(name, each.text(1))
    console.print(table)
    if results is not None:
        console.print(f"saved {save(results, 'takeover', command_line(), spreads)}")
