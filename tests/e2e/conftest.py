"""One embedded broker for a module."""

from __future__ import annotations

import pytest

from tests.e2e.harness import Job
from worker.adapters.embedded_broker import EmbeddedBroker


@pytest.fixture(scope="module")
def broker():
    with EmbeddedBroker() as running:
        yield running


@pytest.fixture
def job(broker, tmp_path):
    """A job that is stopped when its test ends."""
    jobs: list[Job] = []

    def make(**sections: dict[str, object]) -> Job:
        elsewhere = sections.get("kafka", {}).get("bootstrap_servers")
        real = elsewhere is not None and elsewhere != "127.0.0.1:1"
        bootstrap = str(elsewhere) if real else broker.bootstrap_servers
        jobs.append(Job(bootstrap, tmp_path / str(len(jobs)), sections, real))
        return jobs[-1]

    yield make
    for each in jobs:
        if each.process is not None and each.process.poll() is None:
            each.process.kill()
            each.process.wait()
