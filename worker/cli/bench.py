"""`lstm-worker bench`: what this machine reaches, beside references taken in the same run."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from worker.adapters.embedded_broker import RETENTION_BYTES_PER_PARTITION, EmbeddedBroker
from worker.bench.drain import PARTITIONS, Load
from worker.bench.scenario import Round, Throughput
from worker.bench.startup import startup
from worker.bench.step_cost import WAVES, keras_microseconds, step_microseconds
from worker.errors import ConfigError
from worker.model.load import load_program

EXAMPLE_MODEL = Path(__file__).resolve().parents[2] / "examples" / "basic_motions" / "badminton.keras"
BYTES_PER_RECORD = {"binary": 40, "json": 75}
"""In the log, key and framing included; the embedded broker forgets what is older than its retention."""


def register(app: typer.Typer) -> None:
    """Add the command to the program."""
    app.command("bench")(bench)


def bench(
    model: Annotated[Path, typer.Option(help="The model to serve.")] = EXAMPLE_MODEL,
    bootstrap_servers: Annotated[str, typer.Option(help="A broker; default: the embedded one.")] = "",
    record_format: Annotated[str, typer.Option("--format", help="binary | json")] = "binary",
    records: Annotated[int, typer.Option(min=10_000, help="Records of a round; 0: what the broker holds.")] = 400_000,
    streams: Annotated[int, typer.Option(min=1)] = 1_000,
    rounds: Annotated[int, typer.Option(min=1)] = 5,
    interval_ms: Annotated[int, typer.Option(min=1, help="worker.commit_interval_ms")] = 100,
    keras: Annotated[bool, typer.Option(help="Also time Keras, which needs seconds to start.")] = True,
) -> None:
    """Throughput against a pass-through loop, cost of a step against Keras, start-up and memory."""
    if record_format not in BYTES_PER_RECORD:
        raise ConfigError(f"--format {record_format}", "use binary or json")
    console = Console()
    features = load_program(model).features
    with ExitStack() as stack:
        bootstrap = bootstrap_servers
        if not bootstrap:
            bootstrap = stack.enter_context(EmbeddedBroker()).bootstrap_servers
            held = PARTITIONS * RETENTION_BYTES_PER_PARTITION // BYTES_PER_RECORD[record_format]
            records = min(records, held)
        started = startup(bootstrap, model)
        console.print(f"start to ready {started.ready_seconds:.2f} s, {started.memory_mb:.0f} MB")
        load = Load(records, streams, features, record_format)
        throughput = Throughput(bootstrap, load, model, interval_ms)
        done = [_shown(console, number, throughput.round()) for number in range(1, rounds + 1)]
    console.print(_summary(done, load))
    console.print(_stage_table(done))
    console.print(_step_table(model, keras))


def _shown(console: Console, number: int, one: Round) -> Round:
    console.print(
        f"round {number}: pass-through {one.passthrough.rate:,.0f}/s, worker {one.worker.rate:,.0f}/s, "
        f"ratio {one.ratio:.2f}"
    )
    return one


def _summary(rounds: list[Round], load: Load) -> Table:
    table = Table(title=f"{load.records:,} records, {load.streams:,} streams, {load.record_format}, at least once")
    for column in ("", "pass-through", "worker", "ratio"):
        table.add_column(column, justify="right" if column else "left")
    rates = [one.passthrough.rate for one in rounds], [one.worker.rate for one in rounds]
    ratios = [one.ratio for one in rounds]
    table.add_row("records/s, median", *(f"{median(each):,.0f}" for each in rates), f"{median(ratios):.2f}")
    table.add_row(
        "lowest to highest",
        *(f"{min(each):,.0f} to {max(each):,.0f}" for each in rates),
        f"{min(ratios):.2f} to {max(ratios):.2f}",
    )
    peak = max(one.passthrough.memory_mb for one in rounds), max(one.worker.memory_mb for one in rounds)
    table.add_row("peak memory, MB", *(f"{each:.0f}" for each in peak), "")
    return table


def _stage_table(rounds: list[Round]) -> Table:
    table = Table(title="Where the worker's loop spends its time, microseconds a record, median of the rounds")
    stages = [stage for stage in rounds[0].worker.stages if stage != "idle"]
    for stage in stages:
        table.add_column(stage, justify="right")
    table.add_row(*(f"{median(one.worker.stages[stage] for one in rounds):.2f}" for stage in stages))
    return table


def _step_table(model: Path, keras: bool) -> Table:
    table = Table(title="The step alone, microseconds a sample")
    table.add_column("engine")
    table.add_column("streams in one call", justify="right")
    table.add_column("us", justify="right")
    for wave in WAVES:
        table.add_row("numpy", f"{wave}", f"{step_microseconds(model, wave):.2f}")
    if keras:
        table.add_row("Keras predict_on_batch, stateful", "1", f"{keras_microseconds(model):,.0f}")
    return table
