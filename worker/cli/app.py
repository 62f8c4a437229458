"""The program's commands; each is imported only when it is asked for."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Annotated

import typer

import worker

COMMANDS = ("run", "demo", "check", "train", "calibrate", "produce", "watch", "state", "topics", "reset", "bench")
"""Modules of worker.cli; each has `register(app)`, which adds the command or group of its own name."""


def build_app(arguments: Sequence[str] = ()) -> typer.Typer:
    """The program for these arguments: the command they name, else all of them.

    `run` must not pay for what only `train` needs, so modules of other commands are not imported.
    """
    app = typer.Typer(
        name="lstm-worker",
        help="Serves a trained Keras recurrent model one sample at a time, from Kafka to Kafka.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
    )
    app.callback()(_program)
    named = [argument for argument in arguments[:1] if argument in COMMANDS]
    for command in named or COMMANDS:
        importlib.import_module(f"worker.cli.{command}").register(app)
    return app


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"lstm-worker {worker.__version__}")
        raise typer.Exit


def _program(
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_print_version, help="Print the version and exit.")
    ] = False,
) -> None:
    """Options of the program itself."""
