"""The metadata of an input offset commit: the changelog's next offset as restore target, and who wrote it."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass

VERSION = 1
BYTES_MAX = 4095
"""The broker allows 4096, of which the client library uses one for a trailing zero."""
WORKER_CHARACTERS_MAX = 200
OFFSET_MAX = (1 << 63) - 1
MODEL = re.compile(r"[0-9a-f]{8}")


@dataclass(frozen=True, slots=True)
class CommitMetadata:
    """`changelog_next_offset` and `watermark_ms` belong to the offset that the commit carries.

    `model`: 8 hex digits; `worker`: the member's lasting identity; `topic_id`: the input topic's, "" where unknown;
    `partitions`: the input's count, 0 where unknown. `changelog_first_offset`: where the state was last reset; rows
    below it are of no importance.
    """

    changelog_next_offset: int
    watermark_ms: int
    model: str
    worker: str
    topic_id: str = ""
    partitions: int = 0
    changelog_first_offset: int = 0

    def encode(self) -> str:
        """One line of ASCII JSON, at most BYTES_MAX bytes; a longer `worker` is cut, since only people read it."""
        text = json.dumps(
            {
                "v": VERSION,
                "changelog": self.changelog_next_offset,
                "watermark": self.watermark_ms,
                "model": self.model,
                "worker": self.worker[:WORKER_CHARACTERS_MAX],
                "topic_id": self.topic_id,
                "partitions": self.partitions,
                "first": self.changelog_first_offset,
            },
            separators=(",", ":"),
        )
        assert len(text) <= BYTES_MAX
        return text


def parse_metadata(text: str) -> CommitMetadata | None:
    """None for metadata that this worker did not write, whatever it is; never a guess at its meaning."""
    if len(text) > BYTES_MAX:
        return None
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(found, dict) or found.get("v") != VERSION:
        return None
    texts = found.get("model"), found.get("worker"), found.get("topic_id", "")
    if not all(isinstance(each, str) for each in texts) or not MODEL.fullmatch(found["model"]):
        return None
    if not _is_offset(found.get("changelog"), least=0) or not _is_offset(found.get("watermark"), least=-1):
        return None
    partitions, first = found.get("partitions", 0), found.get("first", 0)
    if not _is_offset(partitions, least=0) or not _is_offset(first, least=0) or first > found["changelog"]:
        return None
    return CommitMetadata(
        changelog_next_offset=found["changelog"],
        watermark_ms=found["watermark"],
        model=found["model"],
        worker=found["worker"],
        topic_id=texts[2],
        partitions=partitions,
        changelog_first_offset=first,
    )


def _is_offset(value: object, least: int) -> bool:
    # A bool is an int to isinstance.
    return type(value) is int and least <= value <= OFFSET_MAX
