"""A node's server.properties: small, quick to start, quick to notice what died."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

REPLICAS_MAX = 3


def server_properties(
    node: int, ports: Sequence[int], controller_ports: Sequence[int], data: Path, changes: Mapping[str, object]
) -> str:
    """The file's text for node 1 …; `ports` and `controller_ports` are those of all nodes, `changes` override."""
    port, controller_port = ports[node - 1], controller_ports[node - 1]
    voters = ",".join(f"{voter}@127.0.0.1:{each}" for voter, each in enumerate(controller_ports, 1))
    replicas = min(REPLICAS_MAX, len(ports))
    in_sync = max(1, replicas - 1)
    values: dict[str, object] = {
        "process.roles": "broker,controller",
        "node.id": node,
        "controller.quorum.voters": voters,
        "listeners": f"PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller_port}",
        "advertised.listeners": f"PLAINTEXT://127.0.0.1:{port}",
        "controller.listener.names": "CONTROLLER",
        "inter.broker.listener.name": "PLAINTEXT",
        "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT",
        "log.dirs": data,
        "auto.create.topics.enable": "false",
        "default.replication.factor": replicas,
        "min.insync.replicas": in_sync,
        "offsets.topic.replication.factor": replicas,
        "transaction.state.log.replication.factor": replicas,
        "transaction.state.log.min.isr": in_sync,
        # The defaults of 50 partitions each make a small cluster slow to start.
        "offsets.topic.num.partitions": 4,
        "transaction.state.log.num.partitions": 4,
        # Ten seconds by default: a dead producer's transaction would block readers for that much longer.
        "transaction.abort.timed.out.transaction.cleanup.interval.ms": 1000,
        "group.initial.rebalance.delay.ms": 0,
        "group.min.session.timeout.ms": 1000,
        # Consumer protocol (KIP-848): 45 s are the shortest session by default.
        "group.consumer.min.session.timeout.ms": 3000,
        "group.consumer.session.timeout.ms": 6000,
        "group.consumer.min.heartbeat.interval.ms": 500,
        "group.consumer.heartbeat.interval.ms": 1000,
        # A killed node is noticed and may come back after this long.
        "broker.session.timeout.ms": 6000,
        "broker.heartbeat.interval.ms": 1000,
        "replica.lag.time.max.ms": 5000,
        "num.network.threads": 2,
        "num.io.threads": 2,
        "background.threads": 2,
        # 128 MiB of heap by default.
        "log.cleaner.dedupe.buffer.size": 4 << 20,
        "log.cleaner.backoff.ms": 1000,
        **changes,
    }
    return "".join(f"{name}={value}\n" for name, value in values.items())
