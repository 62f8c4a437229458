"""Who this member is to the group coordinator, read from the client's serialised group metadata.

A transactional offset commit carries it, so that the broker refuses a former member. A member that has not joined
carries generation -1 or an empty id, and those a broker accepts from anybody, also over a live member's commits.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Literal

MAGIC = b"CGMDv2:"
GENERATION_BYTES = 4
# The client writes the number in the machine's own byte order; it never leaves the process.
BYTE_ORDER: Literal["little", "big"] = sys.byteorder


def can_fence(generation: int, member_id: str) -> bool:
    """Whether the broker can refuse this member's commit once it is a member no longer.

    Both are needed: before joining, a classic member has neither, one of the consumer protocol has an id of its own
    making; a classic member that exceeded max.poll.interval.ms keeps its generation and has lost its id.
    """
    return generation >= 0 and member_id != ""


@dataclass(slots=True, frozen=True)
class GroupMetadata:
    """`raw` is what the client is given back; the rest is what it says."""

    raw: bytes
    group: str
    generation: int
    member_id: str

    @property
    def can_fence(self) -> bool:
        """See `can_fence`."""
        return can_fence(self.generation, self.member_id)


def parse_group_metadata(raw: bytes) -> GroupMetadata:
    """Raises ValueError for a layout that is not known: then nobody can tell whether it fences."""
    strings = raw[len(MAGIC) + GENERATION_BYTES :].split(b"\0")
    if not raw.startswith(MAGIC) or len(strings) < 3:
        raise ValueError(f"group metadata of an unknown layout: {raw[:16]!r}")
    generation = int.from_bytes(raw[len(MAGIC) :][:GENERATION_BYTES], BYTE_ORDER, signed=True)
    return GroupMetadata(raw, strings[0].decode(), generation, strings[1].decode())
