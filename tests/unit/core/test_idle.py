"""Idle streams are found in (deadline, key) order, whatever happened to their deadlines in between."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from worker.core.idle import IdleIndex


@given(
    st.lists(
        st.tuples(st.sampled_from([b"a", b"b", b"c", b"d"]), st.integers(0, 60), st.booleans()), min_size=1, max_size=60
    )
)
def test_the_index_agrees_with_looking_at_every_stream(events):
    index, last, watermark = IdleIndex(10), {}, -1
    for key, time, ends in events:
        if time > watermark:
            watermark = time
            expected = [key for _, key in sorted((at + 10, key) for key, at in last.items() if at + 10 <= watermark)]
            assert set(expected) <= set(index.due_keys(watermark))
            got = []
            for idle_key in index.expire(watermark, last.get):
                got.append(idle_key)
                del last[idle_key]
            assert got == expected
        if ends:
            last.pop(key, None)
        else:
            last[key] = time
            index.watch(key, time)


def test_nothing_is_due_before_its_deadline():
    index = IdleIndex(10)
    index.watch(b"a", 5)
    assert index.due_keys(14) == []
    assert index.due_keys(15) == [b"a"]
