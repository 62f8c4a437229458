"""The state directory of one worker process: its lock, its member id and where each partition's store lies."""

from __future__ import annotations

import fcntl
import os
import shutil
import uuid
from pathlib import Path
from types import TracebackType

from worker.adapters.clock import SystemClock
from worker.adapters.exit_record import EXIT_FILE
from worker.errors import ConfigError, StateDirectoryInUse
from worker.ports import Clock

LOCK_FILE = "lock"
MEMBER_ID_FILE = "member-id"


class StateDirectory:
    """A locked directory: `<directory>/<topic>/<partition>/` holds the store of one input partition.

    The lock is the process's: it goes with it, whatever kills it.
    """

    def __init__(self, path: Path, lock_fd: int, member_id: str, clock: Clock) -> None:
        self.path = path
        self.member_id = member_id
        """A UUID that stays with the directory; identifies a worker that was given no instance id."""
        self._lock_fd = lock_fd
        self._clock = clock

    @classmethod
    def open(cls, path: str | Path, clock: Clock | None = None) -> StateDirectory:
        """Create the directory where it is missing and lock it.

        Raises StateDirectoryInUse when another process holds the lock, ConfigError when it cannot be written.
        """
        directory = Path(path)
        try:
            directory.mkdir(parents=True, exist_ok=True)
            lock_fd = os.open(directory / LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise ConfigError(
                f"state directory {directory} cannot be used ({error.strerror})",
                "set state.directory to a directory that the worker may write",
            ) from error
        try:
            _lock(lock_fd, directory)
            member_id = _read_or_create_member_id(directory)
        except BaseException:
            os.close(lock_fd)
            raise
        return cls(directory, lock_fd, member_id, clock or SystemClock())

    def store_path(self, topic: str, partition: int) -> Path:
        """Where the store of this input partition lies; not created here."""
        if topic in (LOCK_FILE, MEMBER_ID_FILE, EXIT_FILE):
            raise ConfigError(f"topic name {topic!r} is the name of a file of the state directory", "rename the topic")
        return self.path / topic / str(partition)

    def partitions(self, topic: str) -> list[int]:
        """The partitions of this topic that have a store here, ascending."""
        directory = self.path / topic
        if not directory.is_dir():
            return []
        return sorted(int(entry.name) for entry in directory.iterdir() if entry.name.isdecimal() and entry.is_dir())

    def set_aside(self, topic: str, partition: int) -> Path | None:
        """Rename a corrupt, closed store to `<partition>.corrupt-<wall clock ms>` and drop older ones.

        Returns the new path, None when there was no store.
        """
        store = self.store_path(topic, partition)
        if not store.exists():
            return None
        earlier = list(store.parent.glob(f"{partition}.corrupt-*"))
        target = store.with_name(f"{partition}.corrupt-{self._clock.now_ms()}")
        for directory in earlier:
            shutil.rmtree(directory)
        store.rename(target)
        return target

    def wipe(self, topic: str, partition: int) -> None:
        """Delete a closed store; nothing happens when there is none."""
        store = self.store_path(topic, partition)
        if store.exists():
            shutil.rmtree(store)

    def close(self) -> None:
        """Release the lock; idempotent. The lock file stays: deleting it would let two processes hold two locks."""
        if self._lock_fd >= 0:
            os.close(self._lock_fd)
            self._lock_fd = -1

    def __enter__(self) -> StateDirectory:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def _lock(lock_fd: int, directory: Path) -> None:
    try:
        fcntl.flock(lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        holder = os.pread(lock_fd, 32, 0).decode("ascii", "replace").strip() or "unknown"
        raise StateDirectoryInUse(
            f"state directory {directory} is in use by process {holder}",
            "stop that worker or set another state.directory",
        ) from error
    os.ftruncate(lock_fd, 0)
    os.pwrite(lock_fd, f"{os.getpid()}\n".encode("ascii"), 0)


def _read_or_create_member_id(directory: Path) -> str:
    file = directory / MEMBER_ID_FILE
    if file.exists():
        text = file.read_text("ascii").strip()
        try:
            return str(uuid.UUID(text))
        except ValueError as error:
            raise ConfigError(
                f"{file} holds no UUID", "delete the file: the worker then joins as a new member"
            ) from error
    member_id = str(uuid.uuid4())
    # Renamed into place, so that a crash leaves either no file or a whole one.
    staged = directory / f"{MEMBER_ID_FILE}.new"
    staged.write_text(f"{member_id}\n", "ascii")
    staged.replace(file)
    return member_id
