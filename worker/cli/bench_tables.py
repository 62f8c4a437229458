"""Tables and options that the measurements share."""

from __future__ import annotations

import sys
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import typer
from rich.table import Table

from worker.bench.drain import Drained
from worker.bench.results import spread
from worker.bench.throughput import REFERENCES
from worker.errors import ConfigError

Rounds = dict[str, list[Drained]]
"""Contender → one drain a round."""

ModelOption = Annotated[Path, typer.Option(help="The model to serve.")]
FormatOption = Annotated[str, typer.Option("--format", help="binary | json")]
BrokerOption = Annotated[str, typer.Option("--bootstrap-servers", metavar="HOST:PORT", help="A real broker.")]
ResultsOption = Annotated[Path | None, typer.Option("--results", help="Folder for the figures as JSON.")]


def checked_format(record_format: str) -> None:
    """Raises ConfigError."""
    if record_format not in ("binary", "json"):
        raise ConfigError(f"--format {record_format}", "use binary or json")


def ratios(rounds: Rounds, contender: str) -> list[float]:
    """A worker's rate to its reference's, round by round; empty where no reference was run."""
    reference = rounds.get(REFERENCES.get(contender, ""), [])
    pairs = zip(rounds[contender], reference, strict=False)
    return [mine.rate / other.rate for mine, other in pairs]


def rate_table(title: str, rounds: Rounds) -> Table:
    """Records a second of every contender and its ratio to its reference in the same round."""
    table = Table(title=title)
    table.add_column("")
    for column in ("records/s, median (lowest to highest)", "to its pass-through", "CPU us a record", "peak MB"):
        table.add_column(column, justify="right")
    for contender, drains in rounds.items():
        found = ratios(rounds, contender)
        table.add_row(
            contender,
            spread([each.rate for each in drains]).text(),
            spread(found).text(2) if found else "",
            f"{median(each.cpu_us_per_record for each in drains):.2f}",
            f"{max(each.memory_mb for each in drains):.0f}",
        )
    return table


def stages(drains: list[Drained]) -> dict[str, float]:
    """Microseconds a record by stage, median of the rounds; `idle` holds the waits before and after the load, too."""
    return {stage: median(each.stages[stage] for each in drains) for stage in drains[0].stages}


def stage_table(rounds: Rounds) -> Table:
    """Where the workers' loops spend their time."""
    with_stages = {contender: stages(drains) for contender, drains in rounds.items() if drains[0].stages}
    table = Table(title="Where the worker's loop spends its time, microseconds a record, median of the rounds")
    table.add_column("")
    for stage in next(iter(with_stages.values()), {}):
        table.add_column(stage, justify="right")
    for contender, found in with_stages.items():
        table.add_row(contender, *(f"{each:.2f}" for each in found.values()))
    return table


def figures(rounds: Rounds) -> dict[str, Any]:
    """The rounds for a result file."""
    found: dict[str, Any] = {}
    for contender, drains in rounds.items():
        each: dict[str, Any] = {"records_per_second": spread([drain.rate for drain in drains]), "rounds": drains}
        if same_round := ratios(rounds, contender):
            each["ratio_to_pass_through"] = spread(same_round)
        if drains[0].stages:
            each["stage_us_per_record"] = stages(drains)
        found[contender] = each
    return found


def command_line() -> str:
    """This command without paths of the machine: the broker's address and the results' folder are left out."""
    kept: list[str] = []
    skipping = False
    for argument in sys.argv[1:]:
        if skipping or argument in ("--bootstrap-servers", "--results"):
            skipping = not skipping
            continue
        kept.append(argument)
    return " ".join(["lstm-worker", *kept])
