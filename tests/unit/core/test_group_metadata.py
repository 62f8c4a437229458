"""The client's serialised group metadata; the bytes are those that confluent-kafka 2.16 returns."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.core.group_metadata import can_fence, parse_group_metadata

NAMES = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=30)


@pytest.mark.parametrize(
    ("raw", "generation", "member_id", "fences"),
    [
        pytest.param(b"CGMDv2:\xff\xff\xff\xffgroup\0\0\x01", -1, "", False, id="classic, before joining"),
        pytest.param(b"CGMDv2:\xff\xff\xff\xffgroup\0own-uuid\0\x01", -1, "own-uuid", False, id="consumer, before"),
        pytest.param(struct.pack("=7si", b"CGMDv2:", 1) + b"group\0\0\x01", 1, "", False, id="max.poll exceeded"),
        pytest.param(struct.pack("=7si", b"CGMDv2:", 2) + b"group\0m\0\0pod-0\0", 2, "m", True, id="static member"),
    ],
)
def test_only_a_member_with_a_generation_and_an_id_can_be_fenced(raw, generation, member_id, fences):
    found = parse_group_metadata(raw)
    assert (found.group, found.generation, found.member_id) == ("group", generation, member_id)
    assert found.can_fence is fences
    assert found.raw == raw


def test_generation_zero_is_a_generation():
    assert can_fence(0, "member")


@given(NAMES, st.integers(-1, (1 << 31) - 1), NAMES)
def test_what_the_client_writes_is_read_back(group, generation, member):
    raw = struct.pack("=7si", b"CGMDv2:", generation) + f"{group}\0{member}\0\x01".encode()
    found = parse_group_metadata(raw)
    assert (found.group, found.generation, found.member_id) == (group, generation, member)


@pytest.mark.parametrize("raw", [b"", b"CGMDv2:", b"CGMDv2:\1\0", b"CGMDv9:\1\0\0\0g\0m\0\1", b"CGMDv2:\1\0\0\0group"])
def test_an_unknown_layout_is_refused_and_not_guessed(raw):
    with pytest.raises(ValueError, match="unknown layout"):
        parse_group_metadata(raw)
