"""The options that all commands with a configuration share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from worker.adapters.kafka_properties import check_consumer_properties, check_producer_properties
from worker.config import Settings, load_settings
from worker.logs import configure_logging

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
    """Settings of the file, the environment and these flags, accepted by librdkafka; logs are configured by them.

    Raises ConfigError.
    """
    flags = list(overrides or [])
    if bootstrap_servers is not None:
        flags.append(f"kafka.bootstrap_servers={bootstrap_servers}")
    if group_id is not None:
        flags.append(f"kafka.group_id={group_id}")
    settings = load_settings(config, flags)
    configure_logging(settings.log.format, settings.log.level)
    check_consumer_properties(settings.consumer_properties())
    check_producer_properties(settings.producer_properties())
    return settings
