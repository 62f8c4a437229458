"""One run of the simulation: a seed decides input, workers, faults and every interleaving."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Generator, Mapping
from random import Random
from typing import Any, Protocol

from tests.sim.client import CALM, SimulatedMember, SimulatedProducer, Weather
from tests.sim.disk import SimulatedDisk
from tests.sim.kafka import Kafka, ProducerFenced
from tests.sim.owned import Output, Record
from tests.sim.worker import SimulatedWorker
from worker.errors import IllegalTransition, StateTorn

PARTITIONS = 4
WORKERS = ("a", "b", "c")
RECORDS = (25, 45)
"""Of one partition: least and most."""
FAULT_STEPS = 900
DRAIN_STEPS_MAX = 6000
TRANSACTION_TIMEOUT = 250
SESSION_TIMEOUT = 30
TOMBSTONE_RETENTIONS = (200, 1000)
"""Of a world: one that stores outlive, or one that they do not."""
LONG_ABSENCE = 400
FREEZE = (60, 320)
"""Least and most steps of a frozen process: beyond the session timeout, below and above the transaction timeout."""
KEY_RECORDS = 10
"""After so many records of a partition the oldest of its keys makes room for a new one."""
RECORD_KINDS = ("sample", "sample", "sample", "sample", "end", "skip")
ARRIVAL = 0.12
MARKER = 0.15
READ = 0.2
ZOMBIE_STEP = 0.25
FAULTS = {
    "kill": 0.008,
    "stop": 0.003,
    "freeze": 0.003,
    "second process": 0.003,
    "rebalance": 0.006,
    "session expired": 0.004,
    "heartbeat": 0.02,
    "rejoined in the background": 0.05,
    "transaction timed out": 0.004,
    "delayed request arrives": 0.02,
    "compaction": 0.1,
    "disk lost": 0.001,
    "disk copied": 0.002,
    "disk put back": 0.003,
    "disk damaged": 0.002,
    "long absence": 0.002,
}
"""How often each happens in one step, as probabilities."""
QUIET = {"heartbeat", "compaction", "disk copied", "delayed request arrives"}
"""Things that merely happen."""


class Simulated(Protocol):
    """A worker over all its lives."""

    name: str
    disks: list[SimulatedDisk]
    weather: Weather
    producer: SimulatedProducer
    member: SimulatedMember
    stopping: bool
    """Set to ask the process to end; it commits and leaves the group."""

    @property
    def owned(self) -> Mapping[int, Any]:
        """What the oracles look at, by partition: `running`, `changed`, `disk`."""

    def start_process(self) -> None:
        """Memory is empty."""

    def life(self) -> Generator[None, None, None]:
        """One process; closing it kills it. Raises StateTorn where it must halt."""


WorkerFactory = Callable[[str, Kafka, Random, Weather, Counter[str]], Simulated]


class World:
    """`run` plays the whole seed; what came of it is judged by `checks`.

    `counts`: what happened; `faults`: how often each came; `hits`: how often it hit an undecided transaction.
    """

    def __init__(self, seed: int, worker: WorkerFactory = SimulatedWorker, pace: int = 1) -> None:
        """`pace`: how many times more steps a worker needs for the same work."""
        self.random = Random(seed)
        self.counts: Counter[str] = Counter()
        self.faults: Counter[str] = Counter()
        self.hits: Counter[str] = Counter()
        self.kafka = Kafka(PARTITIONS, self.random, self.random.choice(TOMBSTONE_RETENTIONS))
        self.kafka.input_low = self.random.choice((0, 0, 3))
        self.input = [self._records() for _ in range(PARTITIONS)]
        self._arrive(initially=True)
        self.halts: list[str] = []
        self.illegal: list[str] = []
        self.held: list[tuple[str, dict[int, Any]]] = []
        """What each worker that runs in the end holds: its name, and by partition what `Simulated.owned` tells."""
        self.reader: list[list[Output]] = [[] for _ in range(PARTITIONS)]
        self._reader_positions = [0] * PARTITIONS
        self._factory = worker
        self._pace = pace
        self._weather = Weather() if self.random.random() < 0.9 else CALM
        self.workers = {name: self._worker(name) for name in WORKERS}
        self._lives: dict[Simulated, Generator[None, None, None]] = {}
        self._back_at: Counter[Simulated] = Counter()
        self._silent: dict[str, int] = {}
        self._copies: dict[str, list[SimulatedDisk]] = {}

    def run(self) -> World:
        try:
            self._play()
        finally:
            self.held = [(worker.name, dict(worker.owned)) for worker in self._lives]
            for life in self._lives.values():
                life.close()
        return self

    def _play(self) -> None:
        for _ in range(FAULT_STEPS * self._pace):
            self._tick()
            if self.halts or self.illegal:
                return
            if self.random.random() < MARKER:
                self._marker()
            if self.random.random() < ARRIVAL / self._pace:
                self._arrive()
            self._inject()
            self._step(self.workers[self.random.choice(WORKERS)])
            for zombie in self.zombies():
                if self.random.random() < ZOMBIE_STEP:
                    self._step(zombie)
        self._drain()

    def done(self) -> bool:
        """All input is committed and nothing is open."""
        for index in range(PARTITIONS):
            found = self.kafka.committed(index)
            if not isinstance(found, tuple) or found[0] < len(self.input[index]):
                return False
        return all(log.last_stable_offset == log.high_watermark for log in self.kafka.logs.values())

    def zombies(self) -> list[Simulated]:
        """Processes whose name another process has taken over."""
        return [worker for worker in self._lives if self.workers[worker.name] is not worker]

    def _worker(self, name: str) -> Simulated:
        return self._factory(name, self.kafka, self.random, self._weather, self.counts)

    def _records(self) -> list[Record]:
        """Keys come and go: a row that should be gone is not overwritten by later ones."""
        side_by_side = self.random.randint(1, 5)
        return [
            Record(
                self.random.choice(RECORD_KINDS),
                f"k{number // KEY_RECORDS + self.random.randrange(side_by_side)}",
                self.random.randrange(1000),
            )
            for number in range(self.kafka.input_low + self.random.randint(*RECORDS))
        ]

    def _arrive(self, *, initially: bool = False, everything: bool = False) -> None:
        """More of the input reaches the topic."""
        for index, records in enumerate(self.input):
            there = self.kafka.input[index]
            upto = self.kafka.input_low if initially else len(there) + self.random.randint(0, 2)
            there += records[len(there) : None if everything else upto]

    def _tick(self) -> None:
        self.kafka.now += 1
        for name in WORKERS:
            self.kafka.time_out(f"id-{name}", TRANSACTION_TIMEOUT)
        for member_id in [member_id for member_id, due in self._silent.items() if due <= self.kafka.now]:
            del self._silent[member_id]
            self._expel(member_id)
        if self.random.random() < READ:
            self._read()

    def _read(self) -> None:
        """A read_committed consumer of the output, while things go wrong."""
        for index in range(PARTITIONS):
            log = self.kafka.logs["output", index]
            end = log.last_stable_offset
            self.reader[index] += [entry.value for entry in log.read(self._reader_positions[index], end)]
            self._reader_positions[index] = max(end, self._reader_positions[index])

    def _marker(self) -> None:
        names = list(WORKERS)
        self.random.shuffle(names)
        any(self.kafka.write_marker(f"id-{name}") for name in names)

    def _step(self, worker: Simulated) -> None:
        if self._back_at[worker] > self.kafka.now:
            return
        if worker not in self._lives:
            worker.start_process()
            self._lives[worker] = worker.life()
        try:
            next(self._lives[worker])
        except StopIteration:
            self._end(worker, pause=self.random.randint(0, 10))
        except StateTorn as error:
            self.halts.append(str(error))
        except IllegalTransition as error:
            self.illegal.append(str(error))

    def _end(self, worker: Simulated, pause: int) -> None:
        """The process is gone; its membership outlives it."""
        self._lives.pop(worker).close()
        self._back_at[worker] = self.kafka.now + pause
        self._silent[worker.member.member_id] = self.kafka.now + SESSION_TIMEOUT

    # ---- faults

    def _inject(self) -> None:
        for fault, probability in FAULTS.items():
            if self.random.random() < probability:
                name = self.random.choice(WORKERS)
                hit = self.kafka.is_undecided(f"id-{name}")
                if getattr(self, "_" + fault.replace(" ", "_"))(self.workers[name]) and fault not in QUIET:
                    self.faults[fault] += 1
                    self.hits[fault] += hit

    def _kill(self, worker: Simulated, pause: int | None = None) -> bool:
        if worker not in self._lives:
            return False
        self._end(worker, self.random.randint(0, 40) if pause is None else pause)
        for disk in worker.disks:
            disk.crash(self.random)
        return True

    def _stop(self, worker: Simulated) -> bool:
        worker.stopping = worker in self._lives
        return worker.stopping

    def _freeze(self, worker: Simulated) -> bool:
        """Expelled from the group meanwhile; afterwards it goes on where it was, and does not know."""
        if worker not in self._lives or self._back_at[worker] > self.kafka.now:
            return False
        self._back_at[worker] = self.kafka.now + self.random.randint(*FREEZE)
        self._silent[worker.member.member_id] = self.kafka.now + SESSION_TIMEOUT
        return True

    def _second_process(self, worker: Simulated) -> bool:
        """Another process of the same name begins elsewhere, on an empty disk; this one does not know."""
        if worker not in self._lives:
            return False
        self.workers[worker.name] = self._worker(worker.name)
        return True

    def _rebalance(self, worker: Simulated) -> bool:
        del worker
        self.kafka.group.balance(PARTITIONS, self.random)
        return True

    def _session_expired(self, worker: Simulated) -> bool:
        return self._expel(worker.member.member_id)

    def _expel(self, member_id: str) -> bool:
        if member_id not in self.kafka.group.members:
            return False
        self.kafka.group.remove(member_id)
        self.kafka.group.balance(PARTITIONS, self.random)
        return True

    def _heartbeat(self, worker: Simulated) -> bool:
        worker.member.heartbeat()
        return True

    def _rejoined_in_the_background(self, worker: Simulated) -> bool:
        if not worker.member.rejoin():
            return False
        if self._back_at[worker] > self.kafka.now:
            self._silent[worker.member.member_id] = self.kafka.now + SESSION_TIMEOUT
        self.kafka.group.balance(PARTITIONS, self.random)
        return True

    def _transaction_timed_out(self, worker: Simulated) -> bool:
        return self.kafka.time_out(f"id-{worker.name}")

    def _delayed_request_arrives(self, worker: Simulated | None = None) -> bool:
        del worker
        if not self.kafka.delayed:
            return False
        delayed = self.kafka.delayed.pop(self.random.randrange(len(self.kafka.delayed)))
        try:
            self.kafka.end_transaction(*delayed)
        except ProducerFenced:
            self.counts["duplicates fenced"] += 1
        else:
            self.counts["duplicates applied"] += 1
        return True

    def _compaction(self, worker: Simulated) -> bool:
        del worker
        self.counts["records compacted"] += self.kafka.compact(self.random.randrange(PARTITIONS))
        return True

    def _disk_lost(self, worker: Simulated) -> bool:
        self._kill(worker)
        for disk in worker.disks:
            disk.wipe()
        return True

    def _disk_copied(self, worker: Simulated) -> bool:
        self._copies[worker.name] = [disk.copy() for disk in worker.disks]
        return True

    def _disk_put_back(self, worker: Simulated) -> bool:
        """Somebody brings back what a backup holds."""
        if worker.name not in self._copies:
            return False
        self._kill(worker)
        worker.disks = [disk.copy() for disk in self._copies[worker.name]]
        return True

    def _disk_damaged(self, worker: Simulated) -> bool:
        self.random.choice(worker.disks).corrupted = True
        return True

    def _long_absence(self, worker: Simulated) -> bool:
        """Away for longer than tombstones are kept, while the others go on."""
        return self._kill(worker, pause=LONG_ABSENCE)

    # ---- the end

    def _drain(self) -> None:
        """No more faults: members that are dead are expelled, requests on their way arrive, everybody works."""
        self._arrive(everything=True)
        self._weather = CALM
        for worker in {*self.workers.values(), *self._lives}:
            worker.weather = worker.producer.weather = CALM
        for _ in range(DRAIN_STEPS_MAX * self._pace):
            if self.done() or self.halts or self.illegal:
                break
            self._tick()
            self._expel_the_dead()
            self._delayed_request_arrives()
            self._marker()
            self._back_at.clear()
            for worker in [*self.workers.values(), *self.zombies()]:
                self._step(worker)
        for _ in range(3):
            self._read()

    def _expel_the_dead(self) -> None:
        group = self.kafka.group
        dead = set(group.members) - {worker.member.member_id for worker in self._lives}
        for member_id in dead:
            group.remove(member_id)
        if dead or not set(group.wanted.values()) <= set(group.members):
            group.balance(PARTITIONS, self.random)
