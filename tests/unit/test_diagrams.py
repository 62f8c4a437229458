"""The page of state diagrams says what the tables say."""

from __future__ import annotations

from tools.diagrams import PAGE, diagram, page
from worker.core.partition import TRANSITIONS, PartitionState


def test_the_committed_page_is_the_one_made_from_the_tables():
    assert PAGE.read_text("utf-8") == page(), "run `python -m tools.diagrams`"


def test_every_transition_is_an_arrow_and_terminal_states_end():
    text = "\n".join(diagram(TRANSITIONS, PartitionState.ASSIGNED))
    assert "ASSIGNED --> RESTORING: store_opened" in text
    assert "RUNNING --> RUNNING: batch_admitted, position_reset" in text
    assert "REVOKED --> [*]" in text
    assert text.count("-->") == len({(before, after) for (before, _), after in TRANSITIONS.items()}) + 2
