"""Progress of work that takes more than a second: a bar on a terminal, else lines with the time left."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

LINES = 10
"""Lines in all where there is no terminal."""

QUIET_SECONDS = 1
"""Work that is done by then needs no lines."""


@contextmanager
def progress(console: Console, title: str, total: int) -> Iterator[Callable[[float], None]]:
    """Yields a function to call with the work done since its last call, in the unit of `total`."""
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        bar.add_task(title, total=total)
        (task,) = bar.tasks
        printed = 0

        def advance(done: float) -> None:
            nonlocal printed
            bar.advance(task.id, done)
            tenth = int(task.completed * LINES / total)
            if not console.is_terminal and tenth > printed and (task.elapsed or 0) > QUIET_SECONDS:
                printed = tenth
                left = task.time_remaining
                console.print(f"{title}: {task.percentage:.0f} %" + (f", {left:.0f} s left" if left else ""))

        yield advance
