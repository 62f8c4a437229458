"""`produce`, `watch`, `topics` and `state reset` against the embedded broker."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import orjson
import pytest

from tests.unit.cli.conftest import Cli
from worker.adapters.embedded_broker import PARTITIONS_PER_TOPIC, EmbeddedBroker
from worker.adapters.kafka_admin import KafkaAdmin
from worker.adapters.kafka_follower import FollowedRecord, Follower
from worker.adapters.kafka_producer import KafkaProducer

GOLDENS = Path(__file__).parents[2] / "goldens"
POLLS_MAX = 50

CSV = """recording,split,step,x,y
a,test,1,0.5,1
a,test,2,0.25,2
b,test,1,0.125,3
c,train,1,9,9
"""


@pytest.fixture(scope="module")
def broker() -> Iterator[str]:
    with EmbeddedBroker() as running:
        yield running.bootstrap_servers


@pytest.fixture
def at(broker: str, request: pytest.FixtureRequest) -> list[str]:
    """Options that name the broker and topics of this test alone, which exist."""
    name = request.node.name.translate(str.maketrans("[]", "--"))
    names = [f"{name}-in", f"{name}-out", f"{name}-dead"]
    KafkaAdmin({"bootstrap.servers": broker}).touch_topics(names)
    flags = zip(("input", "output", "dead_letter"), names, strict=True)
    return [
        "--bootstrap-servers",
        broker,
        *(word for key, topic in flags for word in ("--set", f"topics.{key}={topic}")),
    ]


def topic(at: list[str], key: str) -> str:
    return next(word.partition("=")[2] for word in at if word.startswith(f"topics.{key}="))


def records(at: list[str], count: int) -> list[FollowedRecord]:
    follower = Follower(at[1], topic(at, "input"), range(PARTITIONS_PER_TOPIC))
    found: list[FollowedRecord] = []
    for _ in range(POLLS_MAX):
        found += follower.poll(0.1)
        if len(found) >= count:
            break
    follower.close()
    return found


def test_produce_sends_the_recordings_of_a_split_as_streams(cli: Cli, at: list[str], tmp_path: Path) -> None:
    (tmp_path / "data.csv").write_text(CSV)
    ended = cli("produce", "data.csv", "--split", "test", "--speed", "0", *at)
    assert ended.code == 0
    assert "3 samples of 2 streams" in ended.err
    values = {key: [each.value for each in records(at, 3) if each.key == key] for key in (b"a", b"b")}
    assert values == {
        b"a": [b'{"features":[0.5,1.0]}', b'{"features":[0.25,2.0]}'],
        b"b": [b'{"features":[0.125,3.0]}'],
    }


def test_produce_names_features_as_the_worker_expects_them(cli: Cli, at: list[str], tmp_path: Path) -> None:
    (tmp_path / "data.csv").write_text(CSV)
    cli("produce", "data.csv", "--split", "train", "--speed", "0", *at, "--set", "input.features=y,x")
    assert [each.value for each in records(at, 1)] == [b'{"y":9.0,"x":9.0}']


def test_produce_sends_the_windows_of_an_npz_file_as_streams_of_their_own(
    cli: Cli, at: list[str], tmp_path: Path
) -> None:
    np.savez(tmp_path / "data.npz", x=[[[0.5], [1.5]], [[2.5], [3.5]], [[4.5], [5.5]]], recording=["a", "b", "a"])
    ended = cli("produce", "data.npz", "--speed", "0", *at, "--set", "input.features=x")
    assert "6 samples of 3 streams" in ended.err
    sent = records(at, 6)
    assert {key: [each.value for each in sent if each.key == key] for key in (b"a/1", b"a/2", b"b/1")} == {
        b"a/1": [b'{"x":0.5}', b'{"x":1.5}'],
        b"a/2": [b'{"x":4.5}', b'{"x":5.5}'],
        b"b/1": [b'{"x":2.5}', b'{"x":3.5}'],
    }


def test_produce_with_a_wrong_number_of_columns_is_an_error(cli: Cli, at: list[str], tmp_path: Path) -> None:
    (tmp_path / "data.csv").write_text(CSV)
    ended = cli("produce", "data.csv", *at, "--feature-columns", "x", "--set", "input.features=x,y")
    assert ended.code == 2
    assert "input.features names 2 fields, data.csv gives 1" in ended.err


def test_produce_to_a_missing_topic_is_an_error(cli: Cli, at: list[str], tmp_path: Path) -> None:
    (tmp_path / "data.csv").write_text(CSV)
    ended = cli("produce", "data.csv", *at, "--topic", "not-there")
    assert ended.err.startswith("error: topic not-there is missing: create it, or run `lstm-worker topics")


def test_watch_prints_a_line_for_each_record_and_ends_after_count(cli: Cli, at: list[str]) -> None:
    producer = KafkaProducer({"bootstrap.servers": at[1]})
    output = {"step": 1, "probability": 0.5, "final": False, "exact": False, "tainted": False, "ended_by": None}
    values = [orjson.dumps({**output, "step": step}) for step in (1, 2, 3)]
    producer.produce_many(topic(at, "output"), [0] * 3, [b"a"] * 3, values, [0] * 3)
    producer.flush()
    producer.close()
    ended = cli("watch", "--from-beginning", "--count", "2", *at)
    assert (ended.code, ended.out) == (0, "a\t1\t0.5000\na\t2\t0.5000\n")


def test_state_reset_sends_a_null_record_for_the_stream(cli: Cli, at: list[str]) -> None:
    ended = cli("state", "reset", "alice", "--partition", "2", *at, "--set", "http.port=0")
    assert (ended.code, ended.out) == (0, f"sent a null record for alice to {topic(at, 'input')}[2]\n")
    assert [(each.partition, each.key, each.value) for each in records(at, 1)] == [(2, b"alice", None)]


def test_state_reset_of_a_partition_that_is_not_there_is_an_error(cli: Cli, at: list[str]) -> None:
    assert "has partitions 0 to 3, not 4" in cli("state", "reset", "alice", "--partition", "4", *at).err


def test_topics_check_names_what_is_missing(cli: Cli, at: list[str]) -> None:
    ended = cli("topics", "--check", *at)
    assert ended.code == 2
    assert ended.err.startswith("error: topic lstm-worker-state-changelog is missing: run `lstm-worker topics`")


def test_topics_without_an_input_asks_for_its_partitions(cli: Cli, at: list[str]) -> None:
    ended = cli("topics", *at, "--set", "topics.input=not-there")
    assert ended.err == "error: input topic not-there is missing: create it, or give --partitions\n"


def test_calibrate_reads_the_complete_sequences_of_a_topic(cli: Cli, at: list[str], tmp_path: Path) -> None:
    golden = str(GOLDENS / "lstm_flatten.keras")  # 6 steps of 3 features
    producer = KafkaProducer({"bootstrap.servers": at[1]})
    generator = np.random.default_rng(1)
    for stream in range(25):
        values = [orjson.dumps({"features": generator.standard_normal(3).tolist()}) for _ in range(6 + stream % 3)]
        count = len(values)
        keys: list[bytes | None] = [b"%d" % stream] * count
        producer.produce_many(topic(at, "input"), [stream % 2] * count, keys, values, list(range(count)))
    producer.flush()
    producer.close()
    options = [*at, "--output", str(tmp_path / "side-car.json")]
    ended = cli("calibrate", golden, f"topic:{topic(at, 'input')}", *options)
    assert ended.code == 0, ended.err
    assert "25 sequences of 25 recordings" in ended.out
    assert orjson.loads((tmp_path / "side-car.json").read_bytes())["sequences"] == 25


def test_calibrate_ends_the_sequences_of_a_topic_where_the_worker_would(
    cli: Cli, at: list[str], tmp_path: Path
) -> None:
    golden = str(GOLDENS / "lstm_flatten.keras")  # 6 steps of 3 features
    producer = KafkaProducer({"bootstrap.servers": at[1]})
    values = [b'{"features":[%d,0,0]}' % t for t in range(7)]
    times = [1, 2, 3, *range(3_600_000, 3_600_004)]  # 3 samples, an hour's silence, 4 samples; 0 would mean now
    keys: list[bytes | None] = [b"%d" % stream for stream in range(25)]
    for value, time in zip(values, times, strict=True):
        producer.produce_many(topic(at, "input"), [0] * 25, keys, [value] * 25, [time] * 25)
    producer.flush()
    producer.close()
    arguments = ["calibrate", golden, f"topic:{topic(at, 'input')}", *at, "--output", str(tmp_path / "side-car.json")]
    ended = cli(*arguments, "--set", "sequence.idle_timeout_ms=60000")
    assert ended.code == 2
    assert "holds no complete sequence of 6 samples" in ended.err
    ended = cli(*arguments, "--set", "sequence.length=3")
    assert (ended.code, ended.err) == (
        2,
        "error: sequence.length = 3: a calibration forecasts step 6: leave sequence.length at 0\n",
    )
    ended = cli(*arguments, "--set", "sequence.length=6", "--no-save")
    assert "25 sequences of 25 recordings" in ended.out
