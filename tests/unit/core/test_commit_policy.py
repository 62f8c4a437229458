"""When a commit is due."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from worker.core.commit_policy import CommitPolicy


def test_nothing_processed_is_never_due():
    policy = CommitPolicy(0.1)
    policy.processed(now=5.0, records=0)
    assert not policy.should_commit(now=1e9)
    assert not policy.should_commit(now=1e9, rebalance_pending=True)


def test_a_commit_is_due_an_interval_after_the_first_uncommitted_record():
    policy = CommitPolicy(2.0)
    policy.processed(now=5.0, records=1)
    policy.processed(now=6.0, records=1)
    assert not policy.should_commit(now=6.99)
    assert policy.should_commit(now=7.0)


def test_a_commit_starts_the_interval_anew():
    policy = CommitPolicy(2.0)
    policy.processed(now=5.0, records=1)
    policy.did_commit(now=7.0)
    assert not policy.should_commit(now=100.0)
    policy.processed(now=100.0, records=1)
    assert not policy.should_commit(now=101.9)
    assert policy.should_commit(now=102.0)


def test_many_records_make_it_due_early():
    policy = CommitPolicy(60.0, records_max=100)
    policy.processed(now=0.0, records=99)
    assert not policy.should_commit(now=0.0)
    policy.processed(now=0.0, records=1)
    assert policy.should_commit(now=0.0)
    policy.did_commit(now=0.0)
    policy.processed(now=0.0, records=99)
    assert not policy.should_commit(now=0.0)


def test_many_uncommitted_bytes_make_it_due_early():
    policy = CommitPolicy(60.0, uncommitted_bytes_max=1000)
    policy.processed(now=0.0, records=5, uncommitted_bytes=999)
    assert not policy.should_commit(now=0.0)
    policy.processed(now=0.0, records=5, uncommitted_bytes=1000)
    assert policy.should_commit(now=0.0)


def test_a_pending_rebalance_makes_anything_uncommitted_due():
    policy = CommitPolicy(60.0)
    policy.processed(now=0.0, records=1)
    assert not policy.should_commit(now=0.0)
    assert policy.should_commit(now=0.0, rebalance_pending=True)


@given(st.floats(0, 10), st.floats(0, 1e6), st.floats(0, 20), st.floats(0, 1))
def test_waiting_as_long_as_allowed_makes_the_commit_due_or_was_cut_short(interval, start, later, at_most):
    policy = CommitPolicy(interval)
    assert policy.seconds_until_due(start, at_most) == at_most
    policy.processed(now=start, records=1)
    now = start + later
    wait = policy.seconds_until_due(now, at_most)
    assert 0 <= wait <= at_most
    if wait == 0 and at_most > 0:
        assert policy.should_commit(now)


def test_a_commit_can_be_owed_without_a_record():
    policy = CommitPolicy(interval_seconds=0.1)
    policy.owed(5.0)
    policy.owed(5.05)
    assert not policy.should_commit(5.09)
    assert policy.should_commit(5.11)
