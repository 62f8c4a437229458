"""The options that all commands with a configuration share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from worker.config import Settings, load_settings

ConfigOption = Annotated[
    Path | None, typer.Option("--config", envvar="LSTM_WORKER_CONFIG", help="Configuration file, TOML.")
]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="SECTION.KEY=VALUE", help="Override one setting; may be repeated."),
]
BootstrapOption = Annotated[
    str | None, typer.Option("--bootstrap-servers", metavar="HOST:PORT", help="kafka.bootstrap_servers")
]
GroupOption = Annotated[str | None, typer.Option("--group-id", help="kafka.group_id")]


def settings_from(
    config: Path | None,
    overrides: list[str] | None = None,
    bootstrap_servers: str | None = None,
    group_id: str | None = None,
) -> Settings:
    """Settings of the file, the environment and these flags. Raises ConfigError."""
    flags = list(overrides or [])
    if bootstrap_servers is not None:
        flags.append(f"kafka.bootstrap_servers={bootstrap_servers}")
    if group_id is not None:
        flags.append(f"kafka.group_id={group_id}")
    return load_settings(config, flags)
