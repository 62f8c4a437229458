"""A simulated Kafka: logs with transactions, a transaction coordinator, a consumer group.

It has what exactly-once depends on: last stable offset and control markers written one at a time after the decision,
epochs that fence, offsets that stay unstable until their transaction's marker, an offset commit that is checked for
member and generation but not for ownership, compaction that removes old tombstones, and the first transaction protocol,
in which an EndTxn request that was delayed can end a later transaction of the same epoch.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum
from random import Random
from typing import Any

OFFSETS = ("offsets", 0)
"""The partition of the internal offsets topic: takes part in transactions as any other."""

STICKINESS = 0.6
"""How likely a partition stays where it is in a rebalance."""

TopicPartition = tuple[str, int]


class ProducerFenced(Exception):
    """A newer epoch exists; it cannot be told apart from a transaction that the broker timed out."""


class Refused(Exception):
    """The transaction cannot go on and must be aborted."""


class Reply(Enum):
    OK = "ok"
    CONCURRENT_TRANSACTIONS = "concurrent transactions"
    INVALID_TXN_STATE = "invalid transaction state"
    UNSTABLE_OFFSET_COMMIT = "unstable offset commit"


@dataclass(slots=True)
class Entry:
    """A record; `committed` is None until its transaction's marker is written.

    `delete_horizon`: a tombstone's end, known since the compaction that removed the rows before it.
    """

    offset: int
    key: object
    value: Any
    committed: bool | None = None
    delete_horizon: int | None = None


class PartitionLog:
    """Offsets are never reused; a marker or a record that compaction removed is None."""

    def __init__(self) -> None:
        self.entries: list[Entry | None] = []
        self._open: dict[int, list[Entry]] = {}

    @property
    def high_watermark(self) -> int:
        return len(self.entries)

    @property
    def last_stable_offset(self) -> int:
        return min((entries[0].offset for entries in self._open.values()), default=len(self.entries))

    def append(self, producer_id: int, key: object, value: Any) -> int:
        entry = Entry(len(self.entries), key, value)
        self.entries.append(entry)
        self._open.setdefault(producer_id, []).append(entry)
        return entry.offset

    def write_marker(self, producer_id: int, commit: bool) -> None:
        """Decides every record of this producer that no earlier marker did, whatever transaction it was meant for."""
        self.entries.append(None)
        for entry in self._open.pop(producer_id, ()):
            entry.committed = commit

    def read(self, start: int, end: int, *, committed_only: bool = True) -> list[Entry]:
        """Records from `start` to `end`; those of open transactions and beyond are not readable as committed."""
        stop = min(end, self.last_stable_offset) if committed_only else end
        return [e for e in self.entries[start:stop] if e is not None and (e.committed or not committed_only)]

    def compact(self, now: int, tombstone_retention: int) -> int:
        """Keep the last committed record of each key, a tombstone for the retention after its first compaction.

        So whoever has read a row can still read its tombstone for that long. Returns how many were removed.
        """
        last: dict[object, int] = {}
        for entry in self.entries[: self.last_stable_offset]:
            if entry is not None and entry.committed:
                last[entry.key] = entry.offset
        removed = 0
        for offset in range(self.last_stable_offset):
            entry = self.entries[offset]
            if entry is None:
                continue
            expired = entry.delete_horizon is not None and now > entry.delete_horizon
            if not entry.committed or last[entry.key] != offset or expired:
                self.entries[offset] = None
                removed += 1
            elif entry.value is None and entry.delete_horizon is None:
                entry.delete_horizon = now + tombstone_retention
        return removed


class TransactionState(Enum):
    EMPTY = "empty"
    ONGOING = "ongoing"
    PREPARED = "prepared"
    COMPLETE = "complete"


@dataclass(slots=True)
class Transactional:
    """What the coordinator knows of one transactional id."""

    producer_id: int
    epoch: int = -1
    state: TransactionState = TransactionState.EMPTY
    commit: bool = False
    partitions: set[TopicPartition] = field(default_factory=set)
    markers_due: list[TopicPartition] = field(default_factory=list)
    since: int = 0


@dataclass(slots=True)
class Group:
    """Cooperative: a partition changes hands only after its owner gave it up or was expelled."""

    generation: int = 0
    members: dict[str, set[int]] = field(default_factory=dict)
    wanted: dict[int, str] = field(default_factory=dict)
    joins: int = 0

    def join(self, name: str) -> str:
        self.joins += 1
        member_id = f"{name}-{self.joins}"
        self.members[member_id] = set()
        self.generation += 1
        return member_id

    def remove(self, member_id: str) -> None:
        if self.members.pop(member_id, None) is not None:
            self.generation += 1

    def balance(self, partitions: int, random: Random) -> None:
        """Want some partitions, and those of members that are gone, at another member."""
        names = sorted(self.members)
        kept = {index: name for index, name in self.wanted.items() if name in names and random.random() < STICKINESS}
        self.wanted = {index: kept.get(index) or random.choice(names) for index in range(partitions)} if names else {}

    def unwanted(self, member_id: str) -> set[int]:
        """Partitions that this member has to give up."""
        return {index for index in self.members.get(member_id, ()) if self.wanted.get(index) != member_id}

    def give_up(self, member_id: str, partitions: Iterable[int]) -> None:
        gone = set(partitions)
        if gone and member_id in self.members:
            self.members[member_id] -= gone
            self.generation += 1

    def take(self, member_id: str) -> set[int]:
        """Partitions that nobody owns and this member is wanted for; they are its own from now."""
        owned = set().union(*self.members.values()) if self.members else set()
        free = {index for index, wanted in self.wanted.items() if wanted == member_id and index not in owned}
        self.members[member_id] |= free
        return free


class Kafka:
    """One cluster with the input, output and changelog of one worker group."""

    def __init__(self, partitions: int, random: Random, tombstone_retention: int = 200) -> None:
        self.partitions = partitions
        self.now = 0
        self.tombstone_retention = tombstone_retention
        self.input: list[list[Any]] = [[] for _ in range(partitions)]
        self.input_low = 0
        self.logs = {(topic, i): PartitionLog() for topic in ("output", "dead", "changelog") for i in range(partitions)}
        self.group = Group()
        self.delayed: list[tuple[str, int, bool]] = []
        self.zombie_commits: list[str] = []
        """Committed offsets of partitions that their sender did not own when it sent them."""
        self._offsets: dict[int, tuple[int, str]] = {}
        self._pending: dict[int, dict[int, tuple[int, str]]] = {}
        self._not_owned: dict[int, list[str]] = {}
        self._ids: dict[str, Transactional] = {}
        self._random = random

    def compact(self, index: int) -> int:
        """A partition of the changelog; returns how many records were removed."""
        return self.logs["changelog", index].compact(self.now, self.tombstone_retention)

    # ---- the transaction coordinator

    def init_producer_id(self, name: str) -> tuple[int, int] | Reply:
        found = self._ids.setdefault(name, Transactional(len(self._ids) + 1))
        if found.state is TransactionState.ONGOING:
            found.epoch += 1
            self._prepare(found, commit=False)
        if found.state is TransactionState.PREPARED:
            return Reply.CONCURRENT_TRANSACTIONS
        found.epoch += 1
        return found.producer_id, found.epoch

    def add_partition(self, name: str, epoch: int, partition: TopicPartition) -> Reply:
        found = self._checked(name, epoch)
        if found.state is TransactionState.PREPARED:
            return Reply.CONCURRENT_TRANSACTIONS
        if found.state is not TransactionState.ONGOING:
            found.state, found.partitions, found.since = TransactionState.ONGOING, set(), self.now
        found.partitions.add(partition)
        return Reply.OK

    def produce(self, name: str, epoch: int, partition: TopicPartition, key: object, value: Any) -> int:
        return self.logs[partition].append(self._verified(name, epoch, partition).producer_id, key, value)

    def send_offsets(
        self, name: str, epoch: int, offsets: dict[int, tuple[int, str]], generation: int, member_id: str
    ) -> None:
        found = self._verified(name, epoch, OFFSETS)
        if generation >= 0 or member_id:
            if member_id not in self.group.members:
                raise Refused("unknown member")
            if generation != self.group.generation:
                raise Refused("illegal generation")
        self._pending.setdefault(found.producer_id, {}).update(offsets)
        for index in offsets.keys() - self.group.members.get(member_id, set()):
            self._not_owned.setdefault(found.producer_id, []).append(f"partition {index} by {member_id or 'nobody'}")

    def end_transaction(self, name: str, epoch: int, commit: bool) -> Reply:
        found = self._checked(name, epoch)
        if found.state is TransactionState.ONGOING:
            self._prepare(found, commit)
            return Reply.OK
        if found.state is TransactionState.EMPTY or found.commit != commit:
            return Reply.INVALID_TXN_STATE
        return Reply.CONCURRENT_TRANSACTIONS if found.state is TransactionState.PREPARED else Reply.OK

    def time_out(self, name: str, age: int = 0) -> bool:
        """End a transaction that is open for longer than `age`, as the broker does by itself."""
        found = self._ids.get(name)
        if found is None or found.state is not TransactionState.ONGOING or self.now - found.since < age:
            return False
        found.epoch += 1
        self._prepare(found, commit=False)
        return True

    def write_marker(self, name: str) -> bool:
        """One of the markers that a decided transaction still lacks; False when there is none."""
        found = self._ids.get(name)
        if found is None or found.state is not TransactionState.PREPARED:
            return False
        partition = found.markers_due.pop()
        if partition == OFFSETS:
            pending, not_owned = self._pending.pop(found.producer_id, {}), self._not_owned.pop(found.producer_id, [])
            if found.commit:
                self._offsets.update(pending)
                self.zombie_commits += not_owned
        else:
            self.logs[partition].write_marker(found.producer_id, found.commit)
        if not found.markers_due:
            found.state = TransactionState.COMPLETE
        return True

    def epoch(self, name: str) -> int:
        """The newest; -1 before the first."""
        return self._ids[name].epoch if name in self._ids else -1

    def is_undecided(self, name: str) -> bool:
        """Whether a transaction is neither committed nor aborted yet, or lacks markers."""
        found = self._ids.get(name)
        return found is not None and found.state in (TransactionState.ONGOING, TransactionState.PREPARED)

    def _prepare(self, found: Transactional, commit: bool) -> None:
        found.state, found.commit = TransactionState.PREPARED, commit
        found.markers_due = sorted(found.partitions)
        self._random.shuffle(found.markers_due)

    def _checked(self, name: str, epoch: int) -> Transactional:
        found = self._ids[name]
        if found.epoch != epoch:
            raise ProducerFenced
        return found

    def _verified(self, name: str, epoch: int, partition: TopicPartition) -> Transactional:
        found = self._checked(name, epoch)
        if found.state is not TransactionState.ONGOING or partition not in found.partitions:
            raise Refused("the partition is not in an ongoing transaction")
        return found

    # ---- the group's offsets

    def commit_offsets(self, offsets: dict[int, tuple[int, str]]) -> None:
        """Outside of any transaction; only a mutant does this."""
        self._offsets.update(offsets)

    def committed(self, index: int, *, stable: bool = True) -> tuple[int, str] | Reply | None:
        """The committed offset and its metadata; a stable read says UNSTABLE while a transaction holds a newer one."""
        if stable and any(index in pending for pending in self._pending.values()):
            return Reply.UNSTABLE_OFFSET_COMMIT
        return self._offsets.get(index)
