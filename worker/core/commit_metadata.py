"""The metadata of an input offset commit: the changelog's next offset as restore target, and who wrote it."""

from __future__ import annotations

import json
from dataclasses import dataclass

VERSION = 1
BYTES_MAX = 4095
"""The broker allows 4096, of which the client library uses one for a trailing zero."""


@dataclass(frozen=True, slots=True)
class CommitMetadata:
    """`changelog_next_offset` and `watermark_ms` belong to the offset that the commit carries.

    `model`: 8 hex digits; `worker`: the member's lasting identity; `topic_id`: the input topic's, "" where unknown.
    """

    changelog_next_offset: int
    watermark_ms: int
    model: str
    worker: str
    topic_id: str = ""

    def encode(self) -> str:
        """One line of JSON, at most BYTES_MAX bytes."""
        text = json.dumps(
            {
                "v": VERSION,
                "changelog": self.changelog_next_offset,
                "watermark": self.watermark_ms,
                "model": self.model,
                "worker": self.worker[:200],
                "topic_id": self.topic_id,
            },
            separators=(",", ":"),
        )
        assert len(text.encode()) <= BYTES_MAX
        return text


def parse_metadata(text: str) -> CommitMetadata | None:
    """None for metadata that this worker did not write."""
    try:
        found = json.loads(text)
    except json.JSONDecodeError:
        return None
    if not isinstance(found, dict) or found.get("v") != VERSION:
        return None
    numbers = found.get("changelog"), found.get("watermark")
    texts = found.get("model"), found.get("worker"), found.get("topic_id", "")
    if not all(type(number) is int for number in numbers) or not all(isinstance(each, str) for each in texts):
        return None
    return CommitMetadata(found["changelog"], found["watermark"], found["model"], found["worker"], texts[2])
