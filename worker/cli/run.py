"""`lstm-worker run`: one member of the consumer group, until SIGTERM."""

from __future__ import annotations

import faulthandler
import gc
import signal
from pathlib import Path
from typing import Annotated

import typer

from worker.cli.options import BootstrapOption, ConfigOption, GroupOption, SetOption, settings_from
from worker.config import Settings, effective_toml
from worker.logs import configure_logging

GC_ALLOCATIONS = 100_000
"""Container objects allocated between two collections of the youngest generation."""

OnModelChange = Annotated[str | None, typer.Option("--on-model-change", help="refuse | reset | finish")]


def register(app: typer.Typer) -> None:
    """Add the command to the program."""
    app.command("run")(run)


def run(
    config: ConfigOption = None,
    overrides: SetOption = None,
    bootstrap_servers: BootstrapOption = None,
    group_id: GroupOption = None,
    on_model_change: OnModelChange = None,
    processes: Annotated[int, typer.Option(min=1, help="Run so many members of the group on this machine.")] = 1,
    print_config: Annotated[bool, typer.Option("--print-config", help="Print the settings and exit.")] = False,
) -> None:
    """Consume samples, step each stream's state, publish a probability for every sample."""
    flags = list(overrides or [])
    if on_model_change is not None:
        flags.append(f"model.on_change={on_model_change}")
    settings = settings_from(config, flags, bootstrap_servers, group_id)
    if print_config:
        typer.echo(effective_toml(settings), nl=False)
        return
    configure_logging(settings.log.format, settings.log.level)
    if processes == 1:
        serve(settings)
        return
    from worker.cli.supervised import supervise

    raise typer.Exit(supervise(settings, _options(config, flags, bootstrap_servers, group_id), processes))


def _options(config: Path | None, flags: list[str], bootstrap_servers: str | None, group_id: str | None) -> list[str]:
    """The command line that gives a single worker the same settings."""
    options = [] if config is None else ["--config", str(config)]
    for flag in flags:
        options += ["--set", flag]
    if bootstrap_servers is not None:
        options += ["--bootstrap-servers", bootstrap_servers]
    if group_id is not None:
        options += ["--group-id", group_id]
    return options


def serve(settings: Settings) -> None:
    """Run a worker until SIGTERM or Ctrl-C: finish the batch, commit, close."""
    from worker.adapters.clock import SystemClock
    from worker.adapters.exit_record import exit_recorded
    from worker.assembly import assembled

    # Until it joins the group there is nothing to commit: a signal ends the start at once, also within a client call.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_DFL)
    with exit_recorded(settings.state.directory, SystemClock()), assembled(settings) as worker:
        # A batch makes thousands of short-lived objects without cycles; with the default threshold of 700 the collector
        # walks everything that was imported several times a batch (a quarter of the time of a poll, measured).
        gc.collect()
        gc.freeze()
        gc.set_threshold(GC_ALLOCATIONS, 20, 100)

        def stop(*_: object) -> None:
            worker.stop()
            # One that hangs says where and exits with 1; as after kill -9, only what is committed counts.
            faulthandler.dump_traceback_later(settings.worker.shutdown_timeout_ms / 1000, exit=True)

        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, stop)
        worker.run()
    faulthandler.cancel_dump_traceback_later()
