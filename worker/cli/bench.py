"""`lstm-worker bench`: what this machine reaches, beside references taken in the same run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from worker.adapters.embedded_broker import RETENTION_BYTES_PER_PARTITION, EmbeddedBroker
from worker.bench.load import PARTITIONS, Load
from worker.bench.startup import startup
from worker.bench.step_cost import WAVES, keras_microseconds, step_microseconds
from worker.bench.throughput import AT_LEAST_ONCE, PASS_THROUGH, Throughput
from worker.cli import bench_kafka
from worker.cli.bench_kafka import EXAMPLE_MODEL
from worker.cli.bench_tables import FormatOption, ModelOption, Rounds, checked_format, rate_table, stage_table
from worker.model.engines import stepper_for
from worker.model.load import load_program

BYTES_PER_RECORD = {"binary": 40, "json": 75}
"""In the log, key and framing included; the embedded broker forgets what is older than its retention."""


def register(app: typer.Typer) -> None:
    """Add the group to the program; without a sub-command it is the short run on the embedded broker."""
    group = typer.Typer(rich_markup_mode=None)
    group.callback(invoke_without_command=True)(bench)
    bench_kafka.register(group)
    app.add_typer(group, name="bench")


def bench(
    context: typer.Context,
    model: ModelOption = EXAMPLE_MODEL,
    record_format: FormatOption = "binary",
    records: Annotated[int, typer.Option(min=10_000, help="At most; the embedded broker holds few.")] = 400_000,
    streams: Annotated[int, typer.Option(min=1)] = 1_000,
    rounds: Annotated[int, typer.Option(min=1)] = 5,
    interval_ms: Annotated[int, typer.Option(min=1, help="worker.commit_interval_ms")] = 100,
    keras: Annotated[bool, typer.Option(help="Also time Keras, which needs seconds to start.")] = True,
) -> None:
    """Throughput against a pass-through loop, cost of a step against Keras, start-up and memory.

    Runs on the embedded broker, at least once. The sub-commands measure on a real broker.
    """
    if context.invoked_subcommand is not None:
        return
    checked_format(record_format)
    console = Console()
    with EmbeddedBroker() as broker:
        held = PARTITIONS * RETENTION_BYTES_PER_PARTITION // BYTES_PER_RECORD[record_format]
        started = startup(broker.bootstrap_servers, model)
        console.print(f"start to ready {started.ready_seconds:.2f} s, {started.memory_mb:.0f} MB")
        load = Load(min(records, held), streams, load_program(model).features, record_format)
        throughput = Throughput("bench", broker.bootstrap_servers, load, model, interval_ms, embedded=True)
        throughput.prepare()
        done: Rounds = {PASS_THROUGH: [], AT_LEAST_ONCE: []}
        for number in range(1, rounds + 1):
            for contender, drains in done.items():
                drains.append(throughput.run(contender, number))
            rates = ", ".join(f"{contender} {drains[-1].rate:,.0f}/s" for contender, drains in done.items())
            console.print(f"round {number}: {rates}")
    console.print(rate_table(load.title, done))
    console.print(stage_table(done))
    console.print(_step_table(model, keras))


def _step_table(model: Path, keras: bool) -> Table:
    table = Table(title="The step alone, microseconds a sample")
    table.add_column("engine")
    table.add_column("streams in one call", justify="right")
    table.add_column("us", justify="right")
    program = load_program(model)
    for engine in ("numpy", "auto"):
        stepper = stepper_for(program, engine)
        for wave in WAVES:
            table.add_row(engine, f"{wave}", f"{step_microseconds(program, stepper, wave):.2f}")
    if keras:
        table.add_row("Keras predict_on_batch, stateful", "1", f"{keras_microseconds(model):,.0f}")
    return table
