"""What the demo shows: a live table of streams, and a summary that compares with Keras."""

from __future__ import annotations

from typing import Any

import numpy as np
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from worker.core.types import Float32Array
from worker.model.datasets import Recording
from worker.model.scores import log_loss

BAR_CELLS = 10
COLUMN_WIDTH = 36
DIFFERENCE_MAX = 1e-6
"""What "equals `model.predict`" means; Keras itself differs from a float64 evaluation by 1e-7."""
SCORED_STEPS = (10, 25, 50, 100)


class Board:
    """The live table; as many columns of streams as fit the terminal."""

    def __init__(self) -> None:
        self._lines = 0

    def update(self, live: Live, outputs: dict[str, list[dict[str, Any]]], count: int, expected: int | None) -> None:
        """Show the newest output of every stream; on something that is no terminal, a line each tenth."""
        if not live.console.is_terminal:
            if expected and count * 10 // expected > self._lines:
                self._lines = count * 10 // expected
                live.console.print(f"{count} of {expected} probabilities published")
            return
        columns = max(1, live.console.width // COLUMN_WIDTH)
        names = sorted(outputs)
        rows = -(-len(names) // columns) if names else 0
        table = Table(box=None, padding=(0, 2, 0, 0), show_header=True, header_style="dim")
        for _ in range(columns):
            table.add_column("stream  step  P(badminton)", no_wrap=True)
        for row in range(rows):
            cells = [names[i] for i in range(row, len(names), rows)] if rows else []
            table.add_row(*[_cell(name, outputs[name][-1]) for name in cells])
        total = f" of {expected}" if expected else ""
        live.update(Group(table, Text(f"{count}{total} probabilities published", style="dim")))


def _cell(name: str, published: dict[str, Any]) -> Text:
    probability = published["probability"]
    text = Text(f"{name:<8}{published['step']:>4}  ")
    if probability is None:
        return text.append("·" * BAR_CELLS, style="dim").append("   -")
    full = round(probability * BAR_CELLS)
    style = "bold green" if published["exact"] else "cyan"
    text.append("█" * full, style=style).append("░" * (BAR_CELLS - full), style="dim")
    return text.append(f" {probability:.3f}", style=style if published["exact"] else "")


def summary(
    console: Console,
    recordings: list[Recording],
    outputs: dict[str, list[dict[str, Any]]],
    keras: Float32Array,
    seconds: float,
    positive: str = "badminton",
) -> bool:
    """Print the comparison; True when every sequence is complete and equals Keras within DIFFERENCE_MAX."""
    length = min(len(recording.features) for recording in recordings)
    labels = np.array([recording.label == positive for recording in recordings])
    complete = [
        [published["step"] for published in outputs.get(recording.name, [])] == list(range(1, length + 1))
        and outputs[recording.name][-1]["final"]
        for recording in recordings
    ]
    count = sum(len(published) for published in outputs.values())
    table = Table(title="Summary", title_justify="left", show_header=False, box=None, padding=(0, 2, 0, 0))
    table.add_row("sequences complete, every step once", f"{sum(complete)} of {len(recordings)}")
    ok = all(complete)
    if ok:
        finals = np.array([outputs[recording.name][-1]["probability"] for recording in recordings])
        difference = float(np.abs(finals - keras[:, 0]).max())
        ok = difference <= DIFFERENCE_MAX
        table.add_row("final probability against Keras model.predict", f"max |Δp| = {difference:.1e}")
        right = int(((finals > 0.5) == labels).sum())
        table.add_row("accuracy on the test recordings", f"{right} of {len(recordings)}")
    table.add_row("samples published", f"{count} in {seconds:.1f} s ({count / max(seconds, 1e-9):,.0f}/s, paced)")
    console.print(table)
    if ok:
        console.print(_scores(recordings, outputs, labels, length))
        console.print(
            f"{len(recordings)} recordings prove little about probabilities; the partial sum is the model's logit with "
            "missing steps taken as 0."
        )
    return ok


def _scores(recordings: list[Recording], outputs: dict[str, list[dict[str, Any]]], labels: Any, length: int) -> Table:
    table = Table(title="Log loss on the test recordings (lower is better)", title_justify="left")
    steps = [step for step in SCORED_STEPS if step <= length]
    table.add_column("published as")
    for step in steps:
        table.add_column(f"step {step}", justify="right")
    calibrated, naive = [], []
    for step in steps:
        rows = [outputs[recording.name][step - 1] for recording in recordings]
        numbers = [row["probability"] for row in rows]
        calibrated.append("null" if None in numbers else f"{log_loss(np.array(numbers), labels):.3f}")
        sums = 1 / (1 + np.exp(-np.array([row["logit"] for row in rows], np.float64)))
        naive.append(f"{log_loss(sums, labels):.3f}")
    table.add_row("probability (calibrated; the model's at the last step)", *calibrated)
    table.add_row("naive partial sum (never published)", *naive)
    return table
