"""One or three Apache Kafka nodes in KRaft mode on free ports of the loopback address.

A cluster is ready when an admin call and a transactional initialisation were both answered: until then the first
transaction of a test would wait for internal topics.
"""

from __future__ import annotations

import base64
import random
import shutil
import signal
import socket
import subprocess
import time
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from confluent_kafka import IsolationLevel, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic, OffsetSpec  # type: ignore[attr-defined]

from tools.kafka.jars import KafkaUnavailable, cache_folder, jars
from tools.kafka.properties import server_properties

__all__ = ["Kafka", "KafkaStartFailed", "KafkaUnavailable", "LocalKafka", "Watermarks", "cache_folder"]

READY_SECONDS_MAX = 90.0
FORMAT_SECONDS_MAX = 60.0
STOP_SECONDS_MAX = 20.0
ANSWER_SECONDS_MAX = 10.0
PROBE_SECONDS_MAX = 2.0

QUICK_START = ("-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-XX:ReservedCodeCacheSize=64m")
"""JVM options for tests: least memory and shortest start."""
THROUGHPUT = ("-XX:+UseG1GC",)
"""JVM options for measurements, with a heap of 1024 MiB: as Kafka's own scripts have them."""

LOG_CONFIGURATION = Path(__file__).parent / "log4j2.properties"

SETTLING = {KafkaError.OFFSET_NOT_AVAILABLE, KafkaError.LEADER_NOT_AVAILABLE, KafkaError.NOT_LEADER_FOR_PARTITION}
"""What is answered while a partition's leader changes."""

_LATEST: OffsetSpec = OffsetSpec.latest()  # type: ignore[no-untyped-call]


class KafkaStartFailed(RuntimeError):
    """Raised when a node ended while starting or the cluster was not ready in time; with the log's last lines."""


class Watermarks(NamedTuple):
    """The two ends of a partition: equal when no transaction is open."""

    last_stable_offset: int
    high_watermark: int


class Kafka:
    """A cluster at an address. Every call has a deadline and raises KafkaException when nobody answers."""

    def __init__(self, bootstrap_servers: str) -> None:
        self.bootstrap_servers = bootstrap_servers

    def create_topic(self, name: str, partitions: int = 4, config: Mapping[str, str] | None = None) -> str:
        """Create a topic with the broker's default replication; returns its name once all partitions have leaders."""
        admin = self._admin()
        new = NewTopic(name, partitions, -1, config=dict(config or {}))
        admin.create_topics([new])[name].result(ANSWER_SECONDS_MAX)
        deadline = time.monotonic() + ANSWER_SECONDS_MAX
        while any(self.leader(name, partition) < 0 for partition in range(partitions)):
            if time.monotonic() > deadline:
                raise TimeoutError(f"topic {name} has partitions without a leader after {ANSWER_SECONDS_MAX:g} s")
            time.sleep(0.05)
        return name

    def leader(self, topic: str, partition: int) -> int:
        """The node that leads a partition, -1 for none."""
        found = self._admin().list_topics(topic, timeout=ANSWER_SECONDS_MAX).topics[topic].partitions.get(partition)
        return -1 if found is None else int(found.leader)

    def watermarks(self, topic: str, partition: int) -> Watermarks:
        """Last stable offset and high watermark, asked of the leader."""
        asked, admin = TopicPartition(topic, partition), self._admin()
        ends = [
            admin.list_offsets({asked: _LATEST}, isolation_level=isolation, request_timeout=ANSWER_SECONDS_MAX)[
                asked
            ].result(2 * ANSWER_SECONDS_MAX)
            for isolation in (IsolationLevel.READ_COMMITTED, IsolationLevel.READ_UNCOMMITTED)
        ]
        return Watermarks(*(int(end.offset) for end in ends))

    def wait_until_stable(self, topic: str, partition: int, seconds_max: float = ANSWER_SECONDS_MAX) -> int:
        """Until no transaction is open in a partition; returns its end. Raises TimeoutError.

        A commit is answered before its markers are in the partitions, so readers see it a little later.
        """
        deadline = time.monotonic() + seconds_max
        while True:
            try:
                stable, high = self.watermarks(topic, partition)
            except KafkaException as error:
                # A leader that was elected just now does not know its high watermark yet.
                if error.args[0].code() not in SETTLING or time.monotonic() > deadline:
                    raise
                continue
            if stable == high:
                return high
            if time.monotonic() > deadline:
                raise TimeoutError(f"{topic}[{partition}]: stable up to {stable} of {high} after {seconds_max:g} s")
            time.sleep(0.02)

    def _admin(self) -> AdminClient:
        return _quiet_admin(self.bootstrap_servers)


class LocalKafka(Kafka):
    """A cluster of `nodes` (1 or 3) on this machine; starts on entering a `with`, ends and cleans up on leaving.

    Nodes are numbered from 1. `folder` holds their data, properties and logs and is removed by `stop` unless
    `keep_data`; a folder that was kept is opened again. `properties` override those of every node.
    """

    def __init__(
        self,
        folder: Path,
        nodes: int = 1,
        keep_data: bool = False,
        *,
        heap_mib: int = 384,
        jvm_options: Sequence[str] = QUICK_START,
        properties: Mapping[str, object] | None = None,
    ) -> None:
        ports = _free_ports(2 * nodes)
        self._ports, self._controller_ports = ports[:nodes], ports[nodes:]
        super().__init__(",".join(f"127.0.0.1:{port}" for port in self._ports))
        self.folder = folder.absolute()
        self.nodes = nodes
        self.start_seconds = 0.0
        self._keep_data = keep_data
        self._jvm_options = (f"-Xms{min(256, heap_mib)}m", f"-Xmx{heap_mib}m", *jvm_options)
        self._changes = dict(properties or {})
        self._jars = Path()
        self._processes: dict[int, subprocess.Popen[bytes]] = {}

    @property
    def pids(self) -> list[int]:
        """The process ids of the nodes that were not killed."""
        return [process.pid for process in self._processes.values()]

    def start(self) -> LocalKafka:
        """Format new data folders, start every node and wait until the cluster is ready; `start_seconds` says how long.

        Raises KafkaUnavailable or KafkaStartFailed; then nothing is left running.
        """
        self._jars = jars()
        self.folder.mkdir(parents=True, exist_ok=True)
        began = time.monotonic()
        try:
            self._format()
            for node in range(1, self.nodes + 1):
                self.start_node(node)
            self.wait_ready()
        except BaseException:
            self.stop()
            raise
        self.start_seconds = time.monotonic() - began
        return self

    def stop(self) -> None:
        """SIGTERM, SIGKILL for nodes that do not end; removes the folder unless the data is to be kept."""
        for process in self._processes.values():
            process.send_signal(signal.SIGCONT)
            process.terminate()
        deadline = time.monotonic() + STOP_SECONDS_MAX
        for node in list(self._processes):
            self._end(node, max(0.0, deadline - time.monotonic()))
        if not self._keep_data:
            shutil.rmtree(self.folder, ignore_errors=True)

    def start_node(self, node: int) -> None:
        """Start one node on its data, which may be that of a node killed before; does not wait."""
        command = [*self._java(*self._jvm_options, main="kafka.Kafka"), str(self._properties_file(node))]
        with self._log_file(node).open("ab") as log:
            # Its own session: an interrupt at the terminal ends the tests, which then stop the node.
            self._processes[node] = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )

    def kill_node(self, node: int) -> None:
        """SIGKILL: the page cache survives, everything in the process is lost."""
        self._processes[node].kill()
        self._end(node, STOP_SECONDS_MAX)

    def pause_node(self, node: int) -> None:
        """SIGSTOP: connections stay open and nobody answers."""
        self._processes[node].send_signal(signal.SIGSTOP)

    def resume_node(self, node: int) -> None:
        """SIGCONT."""
        self._processes[node].send_signal(signal.SIGCONT)

    def restart_node(self, node: int) -> None:
        """Stop a node in order (SIGTERM), start it on the same data and port, and wait until the cluster is ready."""
        self._processes[node].terminate()
        self._end(node, STOP_SECONDS_MAX)
        self.start_node(node)
        self.wait_ready()

    def wait_ready(self) -> None:
        """Until every node that was not killed answers, is in sync, and transactions can begin.

        Raises KafkaStartFailed.
        """
        deadline = time.monotonic() + READY_SECONDS_MAX
        while True:
            for node, process in self._processes.items():
                if process.poll() is not None:
                    raise KafkaStartFailed(f"node {node} ended with {process.returncode}: {self._last_lines(node)}")
            reason = self._not_ready()
            if not reason:
                return
            if time.monotonic() > deadline:
                node = min(self._processes)
                raise KafkaStartFailed(f"not ready after {READY_SECONDS_MAX:g} s: {reason}; {self._last_lines(node)}")
            time.sleep(0.1)

    def __enter__(self) -> LocalKafka:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _not_ready(self) -> str:
        """Why the cluster is not ready, "" when it is."""
        running = set(self._processes)
        try:
            for node in running:
                # A new client asks just this node; later requests may go to any.
                seen = _quiet_admin(f"127.0.0.1:{self._ports[node - 1]}").list_topics(timeout=PROBE_SECONDS_MAX)
                if missing := running - set(seen.brokers):
                    return f"node {node} does not see {missing}"
                for topic in seen.topics.values():
                    for partition in topic.partitions.values():
                        if behind := (set(partition.replicas) & running) - set(partition.isrs):
                            return f"{topic.topic}[{partition.id}] is not in sync on {behind}"
            probe = {"bootstrap.servers": self.bootstrap_servers, "transactional.id": f"probe-{uuid.uuid4()}"}
            Producer({**probe, "log_level": 0}).init_transactions(PROBE_SECONDS_MAX)
        except KafkaException as error:
            return str(error.args[0].str())
        return ""

    def _format(self) -> None:
        # A leading dash would be read as an option.
        cluster_id = "A" + base64.urlsafe_b64encode(uuid.uuid4().bytes).decode()[1:22]
        tool = [*self._java("-Xmx128m", *QUICK_START, main="kafka.tools.StorageTool"), "format", "-t", cluster_id, "-c"]
        formatting = []
        for node in range(1, self.nodes + 1):
            file, data = self._properties_file(node), self.folder / f"data-{node}"
            file.write_text(server_properties(node, self._ports, self._controller_ports, data, self._changes))
            if not (data / "meta.properties").exists():
                output = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
                formatting.append(subprocess.Popen([*tool, str(file)], **output))  # type: ignore[call-overload]
        for process in formatting:
            try:
                said = process.communicate(timeout=FORMAT_SECONDS_MAX)[0]
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                raise KafkaStartFailed(f"formatting took more than {FORMAT_SECONDS_MAX:g} s") from None
            if process.returncode != 0:
                raise KafkaStartFailed(f"formatting failed: {said.strip()[-400:]}")

    def _end(self, node: int, seconds_max: float) -> None:
        process = self._processes.pop(node)
        try:
            process.wait(seconds_max)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def _java(self, *options: str, main: str) -> list[str]:
        logging = f"-Dlog4j2.configurationFile={LOG_CONFIGURATION}"
        return ["java", *options, "-Djava.awt.headless=true", logging, "-cp", f"{self._jars}/*", main]

    def _properties_file(self, node: int) -> Path:
        return self.folder / f"node-{node}.properties"

    def _log_file(self, node: int) -> Path:
        return self.folder / f"node-{node}.log"

    def _last_lines(self, node: int) -> str:
        return self._log_file(node).read_text(errors="replace").strip()[-400:]


def _quiet_admin(bootstrap_servers: str) -> AdminClient:
    # By default the pause between attempts to connect grows to ten seconds.
    return AdminClient({"bootstrap.servers": bootstrap_servers, "reconnect.backoff.max.ms": 200, "log_level": 0})


def _free_ports(count: int) -> list[int]:
    """Free ports below the ephemeral range, whose ports an outgoing connection may take while a node is down."""
    sockets: list[socket.socket] = []
    try:
        for port in random.sample(range(10_000, 32_768), 1000):
            candidate = socket.socket()
            sockets.append(candidate)
            try:
                candidate.bind(("127.0.0.1", port))
            except OSError:
                sockets.pop().close()
            if len(sockets) == count:
                return [int(each.getsockname()[1]) for each in sockets]
    finally:
        for each in sockets:
            each.close()
    raise KafkaStartFailed("no free ports between 10000 and 32767")
