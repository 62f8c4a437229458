"""One port for several workers of this machine: their metrics with a label each, health of all, any stream."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector
from prometheus_client.samples import Sample

from worker.adapters.http_client import metrics_of_running_worker, status_of_running_worker, stream_of_running_worker
from worker.errors import ConfigError

LOCAL = "127.0.0.1"


class MembersCollector(Collector):
    """Asks every member at each scrape; one that does not answer is left out."""

    def __init__(self, ports: Sequence[int], registry: CollectorRegistry) -> None:
        self._ports = list(ports)
        registry.register(self)

    def describe(self) -> list[Metric]:
        """Nothing is known before the members are asked."""
        return []

    def collect(self) -> Iterator[Metric]:
        """All families, each sample with the label `process`."""
        families: dict[str, Metric] = {}
        for number, port in enumerate(self._ports):
            for found in text_string_to_metric_families(_metrics(port)):
                family = families.setdefault(found.name, Metric(found.name, found.documentation, found.type))
                family.samples.extend(
                    Sample(sample.name, {**sample.labels, "process": str(number)}, sample.value)
                    for sample in found.samples
                )
        up = Metric("lstm_worker_process_up", "1 for each process that answers.", "gauge")
        for number, port in enumerate(self._ports):
            up.add_sample("lstm_worker_process_up", {"process": str(number)}, float(_status(port) is not None))
        yield from families.values()
        yield up


class MembersStatus:
    """What the endpoints ask of all members together."""

    def __init__(self, ports: Sequence[int]) -> None:
        self._ports = list(ports)

    def alive(self) -> bool:
        """The supervisor answers; it starts members again by itself."""
        return True

    def ready(self) -> bool:
        """Whether every member is ready."""
        return bool(self.status()["ready"])

    def started(self) -> bool:
        """Whether every member answers."""
        return all(_status(port) is not None for port in self._ports)

    def status(self) -> dict[str, Any]:
        """The members' statuses as one; `processes` says which of them answered."""
        found = [_status(port) for port in self._ports]
        answered = [status for status in found if status is not None]
        merged: dict[str, Any] = dict(answered[0]) if answered else {}
        for count in ("open_streams", "records", "predictions"):
            merged[count] = sum(status[count] for status in answered)
        partitions = {index: each for status in answered for index, each in status["partitions"].items()}
        newest = [each for status in answered for each in status["newest"]]
        return {
            **merged,
            "partitions": partitions,
            "newest": newest,
            "ready": len(answered) == len(found) and all(status["ready"] for status in answered),
            "processes": [status is not None for status in found],
        }

    def stream(self, key: bytes) -> dict[str, Any] | None:
        """The stream's state on whichever member has it."""
        for port in self._ports:
            try:
                answer = stream_of_running_worker(LOCAL, port, key)
            except ConfigError:
                continue
            if answer is not None and answer.stream is not None:
                return answer.stream
        return None


def _metrics(port: int) -> str:
    try:
        return metrics_of_running_worker(LOCAL, port)
    except ConfigError:
        # Down or starting: `lstm_worker_process_up` says so.
        return ""


def _status(port: int) -> dict[str, Any] | None:
    try:
        return status_of_running_worker(LOCAL, port)
    except ConfigError:
        return None
