"""A worker that can kill itself at a named step, again and again: `python -m tests.faults.worker_process`.

The modules are imported once; every life is a fork made before any client exists, so a life costs milliseconds of CPU.
After the wanted number of kills one last life runs unharmed until SIGTERM. Prints one line a life. The last step that
each life reached is kept in a file, so that a test can tell what a kill hit. The exit code is that of the last life.
"""

from __future__ import annotations

import argparse
import faulthandler
import os
import random
import shutil
import signal
import sys
from collections import Counter
from pathlib import Path

from tests.faults.mutants import HOOKS, MUTANTS
from worker.adapters import rocksdb_store
from worker.adapters.kafka_producer import TransactionalKafkaProducer
from worker.assembly import assembled
from worker.config import load_settings
from worker.errors import OutcomeUnknown, TransactionAborted, UserError
from worker.logs import configure_logging
from worker.model.numpy_stepper import NumpyStepper
from worker.model.program import StepProgram
from worker.ports import Hook
from worker.processing import Processor

FAULT_EVERY = 4


def recorder(file: Path | None, then: Hook) -> Hook:
    """Write each step's name over the last one; survives the process, whatever ends it."""
    if file is None:
        return then
    descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_TRUNC)

    def hook(name: str) -> None:
        os.pwrite(descriptor, name.ljust(32).encode(), 0)
        then(name)

    return hook


def killer(step: str, count: int) -> Hook:
    """A hook that ends this process, without any clean-up, at the count-th time a step is reached."""
    seen: Counter[str] = Counter()

    def hook(name: str) -> None:
        seen[name] += 1
        if name == step and seen[name] >= count:
            os.kill(os.getpid(), signal.SIGKILL)

    return hook


def aborter(every: int, then: Hook) -> Hook:
    """A hook that makes each `every`-th transaction abort when all of it is on the broker."""
    seen: Counter[str] = Counter()

    def hook(name: str) -> None:
        then(name)
        seen[name] += 1
        if name == "flushed" and seen[name] % every == 0:
            raise TransactionAborted("a test says so")

    return hook


def freezer(step: str, count: int, then: Hook) -> Hook:
    """A hook that stops this process, with all its threads, at the count-th time a step is reached."""
    seen: Counter[str] = Counter()

    def hook(name: str) -> None:
        then(name)
        seen[name] += 1
        if name == step and seen[name] == count:
            os.kill(os.getpid(), signal.SIGSTOP)

    return hook


def lose_answers(every: int, *, sent: bool) -> None:
    """Each `every`-th commit is not answered; with `sent` it was carried out."""
    commit = TransactionalKafkaProducer.commit
    seen: Counter[str] = Counter()

    def unanswered(self: TransactionalKafkaProducer, timeout: float) -> None:
        seen["commits"] += 1
        lost = seen["commits"] % every == 0
        if sent or not lost:
            commit(self, timeout)
        if lost:
            raise OutcomeUnknown("a test says so")

    TransactionalKafkaProducer.commit = unanswered


def step_in_background() -> None:
    """The few samples of a test as the many of a batch by the kernel are: while the next ones are polled."""
    made = NumpyStepper.__init__

    def without_lock(self: NumpyStepper, program: StepProgram) -> None:
        made(self, program)
        self.releases_lock = True

    NumpyStepper.__init__ = without_lock
    Processor.__init__.__kwdefaults__["background_samples_min"] = 1


def live(config: Path, overrides: list[str], hook: Hook) -> None:
    """One worker's life."""
    configure_logging("text", "warning")
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    with assembled(load_settings(config, overrides), hook) as worker:
        signal.signal(signal.SIGTERM, lambda *_: worker.stop())
        worker.run()


def forked(config: Path, overrides: list[str], hook: Hook) -> int:
    """Run one life in a child; returns its wait status. SIGTERM goes on to the child."""
    child = os.fork()
    if child == 0:
        try:
            live(config, overrides, hook)
        except UserError as error:
            # As the program does it.
            sys.stderr.write(f"error: {error}\n")
            sys.exit(error.exit_code)
        sys.exit(0)
    signal.signal(signal.SIGTERM, lambda *_: os.kill(child, signal.SIGTERM))
    return os.waitpid(child, 0)[1]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--set", action="append", default=[])
    parser.add_argument("--kill-at", default="")
    parser.add_argument("--times", type=int, default=0)
    parser.add_argument("--count-max", type=int, default=4)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--group-per-life", action="store_true")
    parser.add_argument("--last-step", type=Path)
    parser.add_argument("--forget-disk", type=Path, help="deleted before every second life")
    parser.add_argument("--abort-every", type=int, default=0)
    parser.add_argument("--freeze-at", default="")
    parser.add_argument("--lose-answers", choices=("sent", "unsent"))
    parser.add_argument("--mutant", choices=list(MUTANTS))
    parser.add_argument("--write-buffer-bytes", type=int, default=rocksdb_store.WRITE_BUFFER_BYTES)
    given = parser.parse_args()
    # A test that waits in vain asks where everybody is.
    faulthandler.register(signal.SIGUSR1)
    rocksdb_store.WRITE_BUFFER_BYTES = given.write_buffer_bytes
    step_in_background()
    if given.lose_answers:
        lose_answers(FAULT_EVERY, sent=given.lose_answers == "sent")
    if given.mutant:
        MUTANTS[given.mutant].install(load_settings(given.config, given.set))
    chance = random.Random(f"{given.seed}{given.kill_at}")
    for number in range(given.times + 1):
        group = [f"kafka.group_id=life-{given.kill_at}-{number}"] if given.group_per_life else []
        last = number == given.times
        hook: Hook = (lambda _: None) if last else killer(given.kill_at, chance.randint(1, given.count_max))
        if given.forget_disk is not None and number % 2:
            shutil.rmtree(given.forget_disk, ignore_errors=True)
        if given.abort_every:
            hook = aborter(given.abort_every, hook)
        if given.freeze_at:
            hook = freezer(given.freeze_at, FAULT_EVERY, hook)
        HOOKS[:] = [recorder(given.last_step, hook)]
        status = forked(given.config, [*given.set, *group], HOOKS[0])
        ended = "killed" if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL else "ended"
        sys.stdout.write(f"life {number} {ended} {status}\n")
        sys.stdout.flush()
        if (ended == "killed") == last:
            sys.exit(1)
        if last:
            end_as(os.waitstatus_to_exitcode(status))


def end_as(code: int) -> None:
    """Exit as the child did: with its code, or by the signal that ended it (negative)."""
    if code < 0:
        signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    sys.exit(code)


if __name__ == "__main__":
    main()
