"""Local stores that are damaged, wiped, old or out of space: noticed or harmless, and exactly once all the same.

The changelog is the truth: a store that cannot be trusted is moved aside, never repaired, and restored. `make soak`
does 30 damages of each kind, `make test` 3.
"""

from __future__ import annotations

import json
import os
import random
import re
import resource
import shutil
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from rocksdict import AccessType, Options, Rdict

from tests.conftest import COUNTS
from tests.faults.exactly_once import PARTITIONS, Trial, Worker
from tests.oracle import Oracle
from worker.adapters.rocksdb_reader import read_rows
from worker.adapters.rocksdb_store import RocksDBStore, StoreIdentity
from worker.errors import StoreCorrupted, StoreFull

SOAK = bool(os.environ.get("LSTM_WORKER_SOAK"))
SEED = int(os.environ.get("LSTM_WORKER_SEED", "1"))
DAMAGES_OF_A_KIND = 30 if SOAK else 3
LOSSES_OF_A_KIND = 10 if SOAK else 1
RECORDS_OF_A_LIFE = 400
RECORDS_AT_FIRST = 1500
STREAMS = 800
"""So that a store's rows fill many blocks, of which a life reads some."""
WRITE_BUFFER_BYTES = 64 << 10
"""The least that RocksDB takes: a small state is written to files while the worker runs, and files are merged."""
DISK_BYTES = 64 << 20
"""RocksDB reserves 4 MiB for each store's MANIFEST."""
FILE_BYTES = 16 << 10
"""Less than what a write buffer becomes."""
LIFE_SECONDS_MAX = 90.0
NOTICED_SHARE_MIN = 0.5
SET_ASIDE = re.compile(r"partition (\d+): the store is damaged and set aside")

Fault = Callable[[Path, random.Random], bool]
"""Does something to a closed store, given its earlier copy's path too; False where there was nothing to damage."""


def pick(store: Path, pattern: str, chance: random.Random) -> Path | None:
    """A file of the store, larger ones more often, as damage on a disk would find it."""
    files = sorted(file for file in store.glob(pattern) if file.stat().st_size)
    return chance.choices(files, [file.stat().st_size for file in files])[0] if files else None


def flip_a_bit(pattern: str) -> Fault:
    def fault(store: Path, chance: random.Random) -> bool:
        file = pick(store, pattern, chance)
        if file is None:
            return False
        data = bytearray(file.read_bytes())
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
        file.write_bytes(data)
        return True

    return fault


def truncate(store: Path, chance: random.Random) -> bool:
    file = pick(store, chance.choice(["*.sst", "MANIFEST-*"]), chance)
    if file is None:
        return False
    os.truncate(file, chance.randrange(file.stat().st_size))
    return True


def wipe(store: Path, chance: random.Random) -> bool:
    del chance
    shutil.rmtree(store)
    return True


def put_an_older_copy_back(store: Path, chance: random.Random) -> bool:
    del chance
    older = earlier_copy(store)
    if not older.exists():
        return False
    shutil.rmtree(store)
    shutil.copytree(older, store)
    return True


def earlier_copy(store: Path) -> Path:
    return store.with_name(f"{store.name}.earlier")


DAMAGES: dict[str, Fault] = {
    "bit flip in an SST file": flip_a_bit("*.sst"),
    "bit flip in a MANIFEST": flip_a_bit("MANIFEST-*"),
    "truncation": truncate,
}
"""A worker should notice these."""
LOSSES: dict[str, Fault] = {"wiped": wipe, "older copy": put_an_older_copy_back}
"""These look like a store of a worker that was away."""
FAULTS = DAMAGES | LOSSES


class Lives:
    """One worker that is stopped and started; the input goes on by a share in each life."""

    def __init__(self, trial: Trial) -> None:
        self.trial = trial
        self.name = "w0"
        self.expected = Oracle()
        self.crashes = 0
        self.log_read = 0

    @property
    def directory(self) -> Path:
        return self.trial.folder / f"state-{self.name}" / f"{self.trial.name}-in"

    def store(self, partition: int) -> Path:
        return self.directory / str(partition)

    @property
    def worker(self) -> Worker:
        return self.trial.workers[self.name]

    def start(self) -> None:
        self.trial.start(self.name, "--write-buffer-bytes", str(WRITE_BUFFER_BYTES))

    def live(self, records: int | None = None) -> None:
        """Read the next records of the input and end in order; started again whenever it gives up on a store."""
        self.start()
        self.feed(records)
        self.wait_until_read()
        self.ended(self.trial.end(self.name))

    def feed(self, records: int | None = None) -> None:
        before = self.trial.produced
        self.trial.produce(records)
        self.expected.feed(self.trial.given[before : self.trial.produced])

    def wait_until_read(self) -> None:
        deadline = self.trial.clock.monotonic() + LIFE_SECONDS_MAX
        while self.trial.read() < len(self.expected.outputs):
            assert self.trial.clock.monotonic() < deadline, self.log()[-5000:]
            code = self.worker.process.poll()
            if code is not None:
                self.ended(code)
                self.start()

    def ended(self, code: int) -> None:
        """A worker may give up on a damaged store; nothing else may end it."""
        if code != 0:
            assert StoreCorrupted.__name__ in self.log().splitlines()[-2], self.log()[-5000:]
            self.crashes += 1

    def log(self) -> str:
        return self.worker.log()

    def set_aside(self) -> list[int]:
        """The partitions whose store was set aside since this was asked last."""
        text = self.log()
        found = [int(number) for number in SET_ASIDE.findall(text[self.log_read :])]
        self.log_read = len(text)
        return found

    def unreadable(self) -> list[int]:
        """Partitions with a damage that no read has met yet."""
        return [partition for partition in range(PARTITIONS) if not readable(self.store(partition))]


def readable(store: Path) -> bool:
    try:
        list(read_rows(store))
    except StoreCorrupted:
        return False
    return True


class Injected:
    """Counts of faults by kind, and which of them lie in a store unnoticed."""

    def __init__(self, lives: Lives, chance: random.Random) -> None:
        self.lives = lives
        self.chance = chance
        self.kinds: Counter[str] = Counter()
        self.noticed: Counter[str] = Counter()
        self.pending: dict[int, list[str]] = {partition: [] for partition in range(PARTITIONS)}

    def inject(self, partition: int, kind: str | None) -> None:
        """Keep a copy for a later life and do what `kind` says to the store."""
        store = self.lives.store(partition)
        copy = store.with_name(f"{partition}.copy")
        shutil.copytree(store, copy)
        if kind is not None and FAULTS[kind](store, self.chance):
            self.kinds[kind] += 1
            self.pending[partition] = [*self.pending[partition], kind] if kind in DAMAGES else []
        shutil.rmtree(earlier_copy(store), ignore_errors=True)
        copy.rename(earlier_copy(store))

    def look(self) -> None:
        """Count what the worker noticed; a damaged store is kept beside the new one."""
        for partition in self.lives.set_aside():
            assert list(self.lives.directory.glob(f"{partition}.corrupt-*")), "it was not moved aside"
            self.noticed.update(self.pending[partition])
            self.pending[partition] = []


def read_a_damaged_store(store: Path, rows: dict[bytes, bytes]) -> int:
    """Each row is served as it was written or refused, never wrong or missing; returns how many are refused.

    As with a worker, the refusal stays: the next opening knows of it.
    """
    database = Rdict(str(store), Options(raw_mode=True), access_type=AccessType.read_only())
    identity = StoreIdentity(**json.loads(database[b"\x00identity"]))
    database.close()
    opened = RocksDBStore.open(store, identity, write_ahead_log=False)
    refused = 0
    for key, row in rows.items():
        try:
            (served,) = opened.get_many([key])
        except StoreCorrupted:
            refused += 1
        else:
            assert served == row, key
    with suppress(StoreCorrupted):
        list(opened.scan())
    opened.close()
    return refused


def test_a_store_that_was_damaged_wiped_or_is_old_never_shows_in_the_output(kafka, tmp_path, record_property):
    chance = random.Random(SEED)
    kinds = [*DAMAGES] * DAMAGES_OF_A_KIND + [*LOSSES] * LOSSES_OF_A_KIND
    chance.shuffle(kinds)
    # Taken from the end: an older copy needs a life before it.
    kinds.sort(key="older copy".__ne__)
    lives = -(-len(kinds) // PARTITIONS) + 1
    records = RECORDS_AT_FIRST + RECORDS_OF_A_LIFE * lives
    trial = Trial(kafka.bootstrap_servers, tmp_path, SEED, records, batch_records=50, streams=STREAMS)
    worker = Lives(trial)
    worker.live(RECORDS_AT_FIRST)
    faults = Injected(worker, chance)
    while kinds:
        for partition in range(PARTITIONS):
            faults.inject(partition, kinds.pop() if kinds else None)
        worker.live(RECORDS_OF_A_LIFE)
        faults.look()
    # A damage that no read has met yet is met now.
    unread = worker.unreadable()
    rows = trial.changelog_rows() if unread else {}
    refused = 0
    for partition in unread:
        mine = {key: row for (owner, key), row in rows.items() if owner == partition}
        refused += read_a_damaged_store(worker.store(partition), mine)
    worker.live()
    faults.look()
    found = trial.check()
    for kind in FAULTS:
        fate = f"{faults.noticed[kind]} noticed and set aside, " if kind in DAMAGES else ""
        record_property(COUNTS, f"{kind}: {faults.kinds[kind]} injected, {fate}restored")
    record_property(
        COUNTS,
        f"{worker.crashes} noticed while running, {len(unread)} stores with a damage that was read only at the end "
        f"({refused} rows refused), {found.expected} outputs checked, 0 lost, 0 doubled, 0 wrong (seed {SEED})",
    )
    damages, noticed = (sum(counts[kind] for kind in DAMAGES) for counts in (faults.kinds, faults.noticed))
    assert noticed >= NOTICED_SHARE_MIN * damages, f"says nothing: only {noticed} of {damages} damages were noticed"


class SmallDisk:
    """A file system of its own for a folder, which can be filled; needs the right to mount."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True)
        self.folder = folder
        size = f"size={DISK_BYTES}"
        mounting = ["mount", "-t", "tmpfs", "-o", size, "tmpfs", folder]
        self.mounted = subprocess.run(mounting, capture_output=True).returncode == 0

    def fill(self, worker: Worker) -> None:
        """Take all space that is left."""
        del worker
        with (self.folder / "ballast").open("wb", buffering=0) as file, suppress(OSError):
            while True:
                file.write(bytes(1 << 16))

    def free(self) -> None:
        (self.folder / "ballast").unlink()

    def close(self) -> None:
        if self.mounted:
            subprocess.run(["umount", "--lazy", self.folder], check=True)


class FileSizeLimit:
    """No file of the worker may grow beyond a few blocks: needs no rights."""

    mounted = False

    def fill(self, worker: Worker) -> None:
        """From now on; what the worker starts later inherits it."""
        process = worker.process.pid
        children = Path(f"/proc/{process}/task/{process}/children").read_text().split()
        for each in [process, *map(int, children)]:
            resource.prlimit(each, resource.RLIMIT_FSIZE, (FILE_BYTES, resource.RLIM_INFINITY))

    def free(self) -> None:
        """A worker that is started anew has no limit."""

    def close(self) -> None:
        pass


@pytest.fixture(params=["small disk", "file size limit"] if SOAK else ["small disk"])
def space(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[SmallDisk | FileSizeLimit]:
    disk = SmallDisk(tmp_path / "state-w0")
    yield disk if disk.mounted and request.param == "small disk" else FileSizeLimit()
    disk.close()


def feed_until_ended(lives: Lives) -> int:
    """The exit code of a worker that gives up by itself while a stream goes on."""
    process = lives.worker.process
    deadline = lives.trial.clock.monotonic() + LIFE_SECONDS_MAX
    while process.poll() is None:
        lives.feed(RECORDS_OF_A_LIFE // 4)
        lives.trial.read()
        assert lives.trial.clock.monotonic() < deadline, lives.log()[-5000:]
    return process.returncode


def test_a_worker_without_disk_space_stops_with_one_line_and_goes_on_when_there_is_some(
    kafka, tmp_path, record_property, space
):
    trial = Trial(kafka.bootstrap_servers, tmp_path, SEED, RECORDS_AT_FIRST * 2, batch_records=50, streams=STREAMS)
    lives = Lives(trial)
    lives.start()
    lives.feed(RECORDS_OF_A_LIFE)
    lives.wait_until_read()
    space.fill(lives.worker)
    assert feed_until_ended(lives) == StoreFull.exit_code, lives.log()
    # Still no space: it does not start either.
    lives.start()
    space.fill(lives.worker)
    assert feed_until_ended(lives) == StoreFull.exit_code, lives.log()
    said = [line for line in lives.log().splitlines() if line.startswith("error:")]
    assert len(said) == 2, lives.log()
    for line in said:
        assert str(tmp_path / "state-w0") in line
        assert "free space or enlarge the volume" in line
    assert "Traceback" not in lives.log()
    space.free()
    lives.live()
    found = trial.check()
    kind = type(space).__name__
    record_property(
        COUNTS, f"no space while running and at the start ({kind}): {found.expected} outputs checked, 0 lost, 0 doubled"
    )
