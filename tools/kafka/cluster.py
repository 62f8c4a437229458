"""One or three Apache Kafka nodes in KRaft mode on free ports of the loopback address.

Jars come by Maven into a cache folder, once. A cluster is ready when an admin call and a transactional initialisation
were both answered: until then the first transaction of a test would wait for internal topics.
"""

from __future__ import annotations

import base64
import fcntl
import os
import shutil
import signal
import socket
import subprocess
import uuid
from pathlib import Path

from confluent_kafka import Consumer, KafkaException, Producer
from confluent_kafka.admin import AdminClient, NewTopic

from worker.adapters.clock import SystemClock

HERE = Path(__file__).parent
READY_SECONDS_MAX = 90.0
STOP_SECONDS_MAX = 20.0
HEAP = ("-Xms256m", "-Xmx384m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-XX:ReservedCodeCacheSize=64m")


class KafkaUnavailable(RuntimeError):
    """Raised when no broker can be had here, with the reason in one line."""


def cache_folder() -> Path:
    """Where jars and running clusters are kept."""
    named = os.environ.get("LSTM_WORKER_KAFKA_CACHE")
    return Path(named) if named else HERE.parents[1] / ".cache" / "kafka"


def missing_tools() -> str:
    """Why no broker can be started here; "" when it can."""
    missing = [tool for tool in ("java", "mvn") if shutil.which(tool) is None]
    return f"{' and '.join(missing)} not found: a real broker needs a JDK 17 and Maven" if missing else ""


def jars() -> Path:
    """The folder with the broker's jars; fetched when it is not there. Raises KafkaUnavailable."""
    reason = missing_tools()
    if reason:
        raise KafkaUnavailable(reason)
    folder = cache_folder()
    folder.mkdir(parents=True, exist_ok=True)
    libraries, complete = folder / "libs", folder / "libs.complete"
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if complete.exists() and complete.read_bytes() == (HERE / "pom.xml").read_bytes():
            return libraries
        shutil.rmtree(libraries, ignore_errors=True)
        command = ["mvn", "-q", "-B", "-f", str(HERE / "pom.xml"), "dependency:copy-dependencies"]
        command += ["-DincludeScope=runtime", f"-DoutputDirectory={libraries}"]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode != 0:
            raise KafkaUnavailable(f"Maven could not fetch the broker: {done.stdout.strip()[-300:]}")
        complete.write_bytes((HERE / "pom.xml").read_bytes())
    return libraries


class LocalKafka:
    """A cluster of `nodes` (1 or 3) with its data under `folder`; starts on entering, ends and cleans up on leaving."""

    def __init__(self, folder: Path, nodes: int = 1, keep_data: bool = False) -> None:
        self.folder = folder
        self.nodes = nodes
        self._keep_data = keep_data
        self._ports = _free_ports(2 * nodes)
        self._processes: dict[int, subprocess.Popen[bytes]] = {}
        self._clock = SystemClock()
        self._jars: Path | None = None
        self.start_seconds = 0.0

    @property
    def bootstrap_servers(self) -> str:
        return ",".join(f"127.0.0.1:{self._ports[node]}" for node in range(self.nodes))

    @property
    def pids(self) -> list[int]:
        return [process.pid for process in self._processes.values()]

    def start(self) -> LocalKafka:
        """Format the data folders and start every node; returns when the cluster is ready. Raises KafkaUnavailable."""
        self._jars = jars()
        self.folder.mkdir(parents=True, exist_ok=True)
        cluster_id = "A" + base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")[1:]
        began = self._clock.monotonic()
        for node in range(1, self.nodes + 1):
            properties = self._properties_file(node)
            properties.write_text(self._properties(node))
            format_command = self._java("-Xmx128m", main="kafka.tools.StorageTool")
            done = subprocess.run(
                [*format_command, "format", "-t", cluster_id, "-c", str(properties)], capture_output=True, text=True
            )
            if done.returncode != 0:
                raise KafkaUnavailable(f"formatting failed: {done.stdout.strip()[-300:]}{done.stderr.strip()[-300:]}")
            self.start_node(node)
        self.wait_ready()
        self.start_seconds = self._clock.monotonic() - began
        return self

    def start_node(self, node: int) -> None:
        """Start one node (1 …) on its old data; does not wait."""
        log = (self.folder / f"node-{node}.log").open("ab")
        command = [*self._java(*HEAP, main="kafka.Kafka"), str(self._properties_file(node))]
        self._processes[node] = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)

    def kill_node(self, node: int) -> None:
        """kill -9."""
        self._processes[node].kill()
        self._processes[node].wait()

    def pause_node(self, node: int) -> None:
        self._processes[node].send_signal(signal.SIGSTOP)

    def resume_node(self, node: int) -> None:
        self._processes[node].send_signal(signal.SIGCONT)

    def wait_ready(self) -> None:
        """Until an admin call and a transactional initialisation are answered. Raises KafkaUnavailable."""
        deadline = self._clock.monotonic() + READY_SECONDS_MAX
        admin = AdminClient({"bootstrap.servers": self.bootstrap_servers, "log_level": 0})
        while True:
            for node, process in self._processes.items():
                if process.poll() is not None:
                    raise KafkaUnavailable(f"node {node} ended: {self._last_lines(node)}")
            try:
                if len(admin.list_topics(timeout=2).brokers) == self.nodes:
                    producer = Producer(
                        {
                            "bootstrap.servers": self.bootstrap_servers,
                            "transactional.id": f"ready-{uuid.uuid4()}",
                            "log_level": 0,
                        }
                    )
                    producer.init_transactions(5)
                    return
            except KafkaException:
                if self._clock.monotonic() > deadline:
                    raise KafkaUnavailable(f"not ready after {READY_SECONDS_MAX:g} s: {self._last_lines(1)}") from None

    def create_topic(self, name: str, partitions: int = 4, config: dict[str, str] | None = None) -> str:
        """Create a topic, replicated to all nodes; returns its name."""
        admin = AdminClient({"bootstrap.servers": self.bootstrap_servers})
        replication = min(3, self.nodes)
        admin.create_topics([NewTopic(name, partitions, replication, config=config or {})])[name].result(20)
        return name

    def leader(self, topic: str, partition: int) -> int:
        """The node that leads a partition, -1 for none."""
        admin = AdminClient({"bootstrap.servers": self.bootstrap_servers, "log_level": 0})
        return int(admin.list_topics(topic, timeout=10).topics[topic].partitions[partition].leader)

    def watermarks(self, topic: str, partition: int) -> tuple[int, int]:
        """(last stable offset, high watermark)."""
        from confluent_kafka import TopicPartition

        ends = []
        for isolation in ("read_committed", "read_uncommitted"):
            consumer = Consumer(
                {"bootstrap.servers": self.bootstrap_servers, "group.id": "watermarks", "isolation.level": isolation}
            )
            ends.append(consumer.get_watermark_offsets(TopicPartition(topic, partition), 10)[1])
            consumer.close()
        return ends[0], ends[1]

    def stop(self) -> None:
        """SIGTERM, SIGKILL for those that do not end; removes the data unless it is to be kept."""
        for process in self._processes.values():
            if process.poll() is None:
                process.send_signal(signal.SIGCONT)
                process.terminate()
        for process in self._processes.values():
            try:
                process.wait(STOP_SECONDS_MAX)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        if not self._keep_data:
            shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self) -> LocalKafka:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _java(self, *options: str, main: str) -> list[str]:
        logging = f"-Dlog4j2.configurationFile={HERE / 'log4j2.properties'}"
        return ["java", *options, "-Djava.awt.headless=true", logging, "-cp", f"{self._jars}/*", main]

    def _properties_file(self, node: int) -> Path:
        return self.folder / f"node-{node}.properties"

    def _last_lines(self, node: int) -> str:
        return (self.folder / f"node-{node}.log").read_text(errors="replace").strip()[-400:]

    def _properties(self, node: int) -> str:
        ports = self._ports
        voters = ",".join(f"{n + 1}@127.0.0.1:{ports[self.nodes + n]}" for n in range(self.nodes))
        replicas = min(3, self.nodes)
        in_sync = 2 if replicas == 3 else 1
        values = {
            "process.roles": "broker,controller",
            "node.id": node,
            "controller.quorum.voters": voters,
            "listeners": f"PLAINTEXT://127.0.0.1:{ports[node - 1]},"
            f"CONTROLLER://127.0.0.1:{ports[self.nodes + node - 1]}",
            "advertised.listeners": f"PLAINTEXT://127.0.0.1:{ports[node - 1]}",
            "controller.listener.names": "CONTROLLER",
            "inter.broker.listener.name": "PLAINTEXT",
            "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT",
            "log.dirs": self.folder / f"data-{node}",
            "auto.create.topics.enable": "false",
            "default.replication.factor": replicas,
            "min.insync.replicas": in_sync,
            "offsets.topic.replication.factor": replicas,
            "transaction.state.log.replication.factor": replicas,
            "transaction.state.log.min.isr": in_sync,
            # The defaults of 50 partitions each make a small cluster slow to start.
            "offsets.topic.num.partitions": 4,
            "transaction.state.log.num.partitions": 4,
            "transaction.abort.timed.out.transaction.cleanup.interval.ms": 1000,
            "group.initial.rebalance.delay.ms": 0,
            "group.min.session.timeout.ms": 1000,
            "group.consumer.min.session.timeout.ms": 3000,
            "group.consumer.session.timeout.ms": 6000,
            "group.consumer.min.heartbeat.interval.ms": 500,
            "group.consumer.heartbeat.interval.ms": 1000,
            "replica.lag.time.max.ms": 5000,
            "broker.session.timeout.ms": 6000,
            "num.network.threads": 2,
            "num.io.threads": 2,
            "background.threads": 2,
            # The cleaner takes 128 MiB of heap by default.
            "log.cleaner.dedupe.buffer.size": 4 << 20,
            "log.cleaner.backoff.ms": 1000,
        }
        return "".join(f"{name}={value}\n" for name, value in values.items())


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [int(each.getsockname()[1]) for each in sockets]
    finally:
        for each in sockets:
            each.close()
