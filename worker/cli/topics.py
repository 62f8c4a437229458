"""`lstm-worker topics`: creates what is missing, checks what exists."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from worker.adapters.kafka_admin import KafkaAdmin, TopicPlan, TopicReport
from worker.cli.options import BootstrapOption, ConfigOption, GroupOption, SetOption, settings_from
from worker.errors import BrokerUnreachable, ConfigError, Retriable
from worker.topics import input_partitions, topic_plans

TIMEOUT_SECONDS = 10.0


def register(app: typer.Typer) -> None:
    """Add the command to the program."""
    app.command("topics")(topics)


def topics(
    config: ConfigOption = None,
    overrides: SetOption = None,
    bootstrap_servers: BootstrapOption = None,
    group_id: GroupOption = None,
    partitions: Annotated[
        int | None, typer.Option(min=1, help="Create a missing input topic with so many partitions.")
    ] = None,
    replication_factor: Annotated[int, typer.Option(min=-1, help="Of new topics; -1: the broker's default.")] = -1,
    check: Annotated[bool, typer.Option("--check", help="Create nothing.")] = False,
) -> None:
    """Create missing topics and check that existing ones fit: partition counts and cleanup policies."""
    settings = settings_from(config, overrides, bootstrap_servers, group_id)
    admin = KafkaAdmin(settings.admin_properties(), timeout=TIMEOUT_SECONDS)
    admin.check_reachable(TIMEOUT_SECONDS)
    count = input_partitions(admin, settings, None if check else partitions)
    plans = topic_plans(admin, settings, count, replication_factor)
    if check:
        missing = [plan.name for plan in plans if admin.partition_count(plan.name) is None]
        if missing:
            raise ConfigError(f"topic {', '.join(missing)} is missing", "run `lstm-worker topics` without --check")
    try:
        reports = admin.ensure_topics(plans)
    except Retriable as error:
        raise BrokerUnreachable(str(error), "try again once the cluster's controller answers") from error
    Console().print(_table(plans, reports))


def _table(plans: list[TopicPlan], reports: list[TopicReport]) -> Table:
    table = Table("topic", "partitions", "cleanup.policy", "")
    for plan, report in zip(plans, reports, strict=True):
        state = "created" if report.created else "fits"
        table.add_row(report.name, str(report.partitions), plan.cleanup_policy, state)
    return table
