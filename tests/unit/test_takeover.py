"""The rows of a model that is not served any more: their sequences are ended in the records' own form."""

from __future__ import annotations

import json

import pytest

from tests.contract.dict_store import DictStore
from tests.unit.core.codec.helpers import encoder
from worker.core.partition import PartitionMachine
from worker.core.slots import StreamTable
from worker.core.state_row import RowFormat
from worker.partitions import OwnedPartition
from worker.takeover import Takeover

SERVED, FOREIGN = RowFormat("11" * 32, 1, 1), RowFormat("22" * 32, 1, 1)


class Sent:
    """Keeps what is sent in place of a delivery."""

    def __init__(self) -> None:
        self.values: list[bytes] = []
        self.commits = 0

    def send(self, _predictions, values) -> None:
        self.values += values

    def commit(self, _partitions, _letters) -> None:
        self.commits += 1


def foreign_row() -> bytes:
    row = FOREIGN.blank.copy()
    row["step"], row["probabilities"], row["logits"] = 2, 0.75, 1.0
    return FOREIGN.pack(row)[0]


@pytest.mark.parametrize(("decides", "decision"), [(False, {}), (True, {"decision": None})])
def test_a_closing_record_has_a_decision_of_null_exactly_where_sequences_are_decided_early(decides, decision):
    store, sent = DictStore(), Sent()
    store.rows[b"a"] = foreign_row()
    takeover = Takeover(
        table=StreamTable(SERVED, 8),
        delivery=sent,
        encoder_of=lambda labels: encoder("json", models=labels),
        on_model_change="reset",
        idle_timeout_ms=0,
        decides=decides,
    )
    takeover.prepare(OwnedPartition(3, PartitionMachine(assignment_id=1), store))
    (closed,) = map(json.loads, sent.values)
    assert (closed["ended_by"], closed["step"], closed["probability"]) == ("model_change", 2, 0.75)
    assert {name: closed[name] for name in closed if name == "decision"} == decision
    assert sent.commits == 1
