"""The broker's jars: fetched by Maven into a cache folder, once for all test sessions."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

POM = Path(__file__).parent / "pom.xml"
FETCH_SECONDS_MAX = 300
"""45 MB in some 50 files; a minute on a slow line."""


class KafkaUnavailable(RuntimeError):
    """Raised when no broker can be had on this machine: Java, Maven or the jars are missing. One line."""


def cache_folder() -> Path:
    """Where jars and the cluster of `make kafka` are kept: $LSTM_WORKER_KAFKA_CACHE or .cache/kafka."""
    named = os.environ.get("LSTM_WORKER_KAFKA_CACHE")
    folder = Path(named).absolute() if named else POM.parents[2] / ".cache" / "kafka"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@contextmanager
def exclusive(name: str) -> Iterator[None]:
    """Waits until no other process is inside; the lock ends with the process."""
    with (cache_folder() / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def missing_tools() -> str:
    """Why no broker can be started here; "" when it can."""
    missing = [tool for tool in ("java", "mvn") if shutil.which(tool) is None]
    return f"{' and '.join(missing)} not found: a real broker needs a JDK 17 and Maven" if missing else ""


def jars() -> Path:
    """The folder with the broker's jars, fetched when it is not there. Raises KafkaUnavailable."""
    reason = missing_tools()
    if reason:
        raise KafkaUnavailable(reason)
    # Named by what is in it: another version never replaces the jars of a running broker.
    complete = cache_folder() / f"jars-{hashlib.sha256(POM.read_bytes()).hexdigest()[:12]}"
    with exclusive("jars"):
        if not complete.exists():
            partial = complete.with_suffix(".partial")
            shutil.rmtree(partial, ignore_errors=True)
            _fetch(partial)
            partial.rename(complete)
    return complete


def _fetch(folder: Path) -> None:
    command = ["mvn", "-q", "-B", "-Dstyle.color=never", "-f", str(POM), "dependency:copy-dependencies"]
    command += ["-DincludeScope=runtime", f"-DoutputDirectory={folder}"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=FETCH_SECONDS_MAX)
    except subprocess.TimeoutExpired:
        raise KafkaUnavailable(f"Maven did not fetch the broker's jars within {FETCH_SECONDS_MAX} s") from None
    if done.returncode != 0:
        errors = done.stdout.strip().splitlines() or done.stderr.strip().splitlines() or ["no message"]
        raise KafkaUnavailable(f"Maven could not fetch the broker's jars: {errors[0][:300]}")
