"""One checker per property; each returns what is wrong, "" when nothing is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

from tests.sim.disk import Row
from tests.sim.owned import Output, step
from tests.sim.world import PARTITIONS, World
from worker.core.commit_metadata import parse_metadata
from worker.core.state_row import decode_row

Check = Callable[[World], str]


def expected(world: World, index: int) -> tuple[list[Output], dict[str, Row]]:
    """What the whole input of a partition implies: outputs in order, and the rows in the end."""
    rows: dict[str, Row] = {}
    outputs = []
    for offset in range(world.kafka.input_low, len(world.input[index])):
        record = world.input[index][offset]
        output, row = step(rows, record, offset)
        if row is None:
            rows.pop(record.key, None)
        else:
            rows[record.key] = row
        if output is not None:
            outputs.append(output)
    return outputs, rows


def published(world: World, index: int) -> list[Output]:
    log = world.kafka.logs["output", index]
    return [entry.value for entry in log.read(0, log.high_watermark)]


def as_row(value: Any) -> Row:
    """A row as the simulated worker holds it, also from the bytes of the real one."""
    if not isinstance(value, bytes):
        return Row(*value)
    row = decode_row(value)
    return Row(int(str(row.header["step"])), int(row.state[0]), int(str(row.header["last_offset"])))


def finished(world: World) -> str:
    """All input is committed in the end, and no transaction is open: last stable offset = high watermark."""
    return "" if world.done() else "stuck: input is left, or a transaction is open"


def none_lost(world: World) -> str:
    for index in range(PARTITIONS):
        missing = {output.offset for output in expected(world, index)[0]} - {o.offset for o in published(world, index)}
        if missing:
            return f"lost: partition {index}, outputs of offsets {sorted(missing)}"
    return ""


def none_doubled(world: World) -> str:
    for index in range(PARTITIONS):
        counted = Counter(output.offset for output in published(world, index))
        doubled = sorted(offset for offset, count in counted.items() if count > 1)
        if doubled:
            return f"doubled: partition {index}, outputs of offsets {doubled}"
    return ""


def none_wrong(world: World) -> str:
    for index in range(PARTITIONS):
        right = set(expected(world, index)[0])
        wrong = [output for output in published(world, index) if output not in right]
        if wrong:
            return f"wrong: partition {index}, {wrong[0]}"
    return ""


def in_order(world: World) -> str:
    for index in range(PARTITIONS):
        offsets = [output.offset for output in published(world, index)]
        if offsets != sorted(offsets):
            return f"out of order: partition {index}, {offsets}"
    return ""


def changelog_is_the_state(world: World) -> str:
    """The compacted changelog holds the rows that the input implies and no others."""
    for index in range(PARTITIONS):
        log, rows = world.kafka.logs["changelog", index], {}
        for entry in log.read(0, log.high_watermark):
            rows[entry.key] = entry.value
        held = {key: as_row(row) for key, row in rows.items() if row is not None}
        if held != expected(world, index)[1]:
            return f"changelog: partition {index} holds {held}"
    return ""


def stores_are_the_state(world: World) -> str:
    """The store of each partition's owner; damage that nobody has met yet is left out."""
    for name, owned in world.held:
        for index, partition in owned.items():
            rows = {key: as_row(row) for key, row in partition.disk.rows().items()}
            current = partition.running and not partition.changed and not partition.disk.corrupted
            if current and rows != expected(world, index)[1]:
                return f"store: partition {index} of {name} holds {rows}"
    return ""


def no_zombie_committed(world: World) -> str:
    """Whoever sent a committed offset was the partition's owner at that moment, to the group's knowledge."""
    return f"zombie: committed {world.kafka.zombie_commits[0]}" if world.kafka.zombie_commits else ""


def reader_saw_the_same(world: World) -> str:
    """A read_committed reader during the faults and one afterwards."""
    for index in range(PARTITIONS):
        if world.reader[index] != published(world, index):
            return f"reader: partition {index} showed something else during the faults"
    return ""


def watermark_is_of_the_state(world: World) -> str:
    """The committed one is the highest number below the committed offset, whoever saw it."""
    for index in range(PARTITIONS):
        found = world.kafka.committed(index)
        if not isinstance(found, tuple):
            continue
        metadata = parse_metadata(found[1])
        seen = world.input[index][world.kafka.input_low : found[0]]
        right = max((record.number for record in seen if record.kind != "skip"), default=-1)
        if metadata is None or metadata.watermark_ms != right:
            return f"watermark: partition {index} has {metadata}, not {right}"
    return ""


def never_halted(world: World) -> str:
    """The worker's self-checks found nothing."""
    return f"halted: {world.halts[0]}" if world.halts else ""


def tables_held(world: World) -> str:
    """No event came in a state that has no cell for it."""
    return f"illegal: {world.illegal[0]}" if world.illegal else ""


CHECKS: tuple[Check, ...] = (
    tables_held,
    never_halted,
    no_zombie_committed,
    none_wrong,
    none_doubled,
    none_lost,
    in_order,
    reader_saw_the_same,
    finished,
    watermark_is_of_the_state,
    changelog_is_the_state,
    stores_are_the_state,
)


def violations(world: World) -> list[str]:
    """Everything that is wrong. A run that stopped early is judged by what stopped it and by what was published."""
    found = [check(world) for check in CHECKS[:2]]
    if any(found):
        return [*filter(None, found), *filter(None, (check(world) for check in (none_wrong, none_doubled)))]
    return [*filter(None, (check(world) for check in CHECKS))]
