"""Writes docs/states.md from the state tables: `python -m tools.diagrams`."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from pathlib import Path

from worker.core import joint, partition, transaction

PAGE = Path(__file__).parents[1] / "docs" / "states.md"


def page() -> str:
    """Markdown: a diagram of each state machine, and the table that couples them."""
    return "\n".join(
        [
            "# State machines",
            "",
            "Made by `python -m tools.diagrams` from the tables in `worker/core/`. An event without an arrow raises",
            "`IllegalTransition` and changes nothing.",
            "",
            "## One assignment of one partition",
            "",
            *diagram(partition.TRANSITIONS, partition.PartitionState.ASSIGNED),
            "",
            "## The producer's transactions",
            "",
            *diagram(transaction.TRANSITIONS, transaction.TransactionState.IDLE),
            "",
            "## Both together",
            "",
            "What the worker does when something happens to a partition (rows) in a state of the transaction.",
            "",
            *joint_table(),
            "",
        ]
    )


def diagram(transitions: Mapping[tuple[Enum, Enum], Enum], initial: Enum) -> list[str]:
    """A mermaid state diagram; events between the same two states share an arrow, in the table's order."""
    arrows: dict[tuple[Enum, Enum], list[str]] = {}
    for (before, event), after in transitions.items():
        arrows.setdefault((before, after), []).append(event.value)
    final = [state for state in type(initial) if not any(before is state for before, _ in transitions)]
    lines = [f"    {before.name} --> {after.name}: {', '.join(events)}" for (before, after), events in arrows.items()]
    ends = [f"    {state.name} --> [*]" for state in final]
    return ["```mermaid", "stateDiagram-v2", f"    [*] --> {initial.name}", *lines, *ends, "```"]


def joint_table() -> list[str]:
    """The joint table as Markdown; an empty cell raises."""
    states = list(transaction.TransactionState)
    lines = ["| | " + " | ".join(state.name for state in states) + " |", "|---" * (len(states) + 1) + "|"]
    for incident in joint.PartitionIncident:
        actions = (joint.JOINT_ACTIONS.get((incident, state)) for state in states)
        cells = ["" if action is None else action.value for action in actions]
        lines.append(f"| {incident.name} | " + " | ".join(cells) + " |")
    return lines


if __name__ == "__main__":
    PAGE.write_text(page(), "utf-8")
