"""`lstm-worker run --processes N`: several members of the group behind one port."""

from __future__ import annotations

import os
import re
import signal
from http.client import HTTPConnection
from pathlib import Path

from tests.e2e.harness import sample


def test_several_processes_share_the_partitions_and_one_that_is_killed_is_started_again(job):

    def ask(path: str) -> tuple[int, str]:
        try:
            connection = HTTPConnection("127.0.0.1", one.port, timeout=20)
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        except OSError:
            return 0, ""

    def owned() -> list[set[str]]:
        pattern = r'lstm_worker_partition_state{partition="(\d)",process="(\d)",state="running"} 1.0'
        found = re.findall(pattern, ask("/metrics")[1])
        return [{partition for partition, process in found if process == number} for number in "01"]

    def shared() -> bool:
        mine = owned()
        return all(mine) and set().union(*mine) == set("0123")

    one = job()
    one.start("--processes", "2")
    one.wait_until(shared)
    one.wait_until(lambda: ask("/readyz")[0] == 200)
    one.send([sample(1, 2)] * 3)
    one.wait_processed(3)
    victim = next(
        process
        for process in Path("/proc").iterdir()
        if process.name.isdecimal() and f"{one.folder}/state-1" in (process / "cmdline").read_text(errors="ignore")
    )
    os.kill(int(victim.name), signal.SIGKILL)
    one.wait_until(lambda: 'process_up{process="1"} 0.0' in ask("/metrics")[1])
    one.wait_until(shared)
    assert one.stop() == 0
    assert [output["step"] for output in one.published()] == [1, 2, 3]
