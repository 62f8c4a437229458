"""The main job on the embedded broker, seen as its neighbours see it: topics, exit codes, HTTP."""

from __future__ import annotations

import json
import struct

from tests.e2e.harness import sample
from tests.model_files import PREFIX_FEATURES, logit_and_probability
from tests.oracle import Oracle
from tests.recordings import compare, produce, samples
from worker.adapters.http_client import stream_of_running_worker


def test_a_mixed_input_gives_exactly_what_the_oracle_says_over_a_restart(job):
    one = job()
    given = samples(7, 600, features=PREFIX_FEATURES)
    oracle = Oracle().feed(given)
    produce(one.bootstrap, one.input, given[:350])
    one.start()
    one.wait_processed(350)
    assert one.stop() == 0, one.errors()
    produce(one.bootstrap, one.input, given[350:])
    one.start()
    one.wait_processed(250)
    key, partition, sequence = next(
        (key, partition, sequence) for (partition, key), sequence in oracle.open.items() if len(sequence.samples) > 1
    )
    answer = stream_of_running_worker("127.0.0.1", one.port, key)
    assert answer is not None
    assert answer.stream is not None
    assert (answer.stream["step"], answer.stream["partition"]) == (len(sequence.samples), partition)
    assert stream_of_running_worker("127.0.0.1", one.port, b"nobody").stream is None
    assert one.stop() == 0, one.errors()
    found = compare(one.read(), oracle, logit_and_probability, repeats_allowed=False)
    assert found.expected == len(oracle.outputs)


def test_outputs_keep_key_partition_and_event_time_and_the_wanted_headers(job):
    one = job(output={"copy_headers": ["traceparent"]})
    headers = [[("traceparent", b"00-abc"), ("other", b"x")], None]
    one.send([sample(1, 2), sample(3, 4)], keys=[b"k", b"k"], partition=3, times=[1000, 2000], headers=headers)
    one.start()
    one.wait_processed(2)
    assert one.stop() == 0
    first, second = one.read()
    assert (first.key, first.partition, first.timestamp_ms) == (b"k", 3, 1000)
    assert (first.headers, second.headers) == ([("traceparent", b"00-abc")], [])
    assert json.loads(second.value)["event_time"] == second.timestamp_ms == 2000


def test_binary_samples_with_controls_in_headers_give_binary_outputs(job):
    one = job(input={"format": "binary"}, output={"format": "binary"})
    value = struct.pack("<2f", 0.5, -0.5)
    one.send([value] * 3, headers=[[("step", b"1")], [("step", b"2")], [("step", b"3"), ("end", b"true")]])
    one.start()
    one.wait_processed(3)
    assert one.stop() == 0
    rows = [struct.unpack("<ifBq", record.value) for record in one.read()]
    assert [row[0] for row in rows] == [1, 2, 3]
    assert [row[2] & 1 for row in rows] == [0, 0, 1]
    assert [row[3] for row in rows] == [0, 1, 2]
    assert abs(rows[2][1] - logit_and_probability(((0.5, -0.5),) * 3)[1]) < 1e-6


def test_idle_streams_are_closed_by_the_event_time_of_others_even_after_a_restart(job):
    one = job(sequence={"idle_timeout_ms": 1000})
    one.send([sample(1, 2), sample(1, 2)], keys=[b"a", b"b"], times=[1000, 1500])
    one.start()
    one.wait_processed(2)
    assert one.stop() == 0
    one.send([sample(1, 2)], keys=[b"c"], times=[2200])
    one.start()
    one.wait_processed(1)
    assert one.stop() == 0
    closing = [(record.key, json.loads(record.value)) for record in one.read() if json.loads(record.value)["closing"]]
    assert [(key, output["ended_by"], output["source"]["offset"]) for key, output in closing] == [
        (b"a", "idle_timeout", 2)
    ]


def test_emit_final_publishes_one_output_a_sequence(job):
    one = job(output={"emit": "final"}, sequence={"length": 3})
    one.send([sample(1, 2)] * 7)
    one.start()
    one.wait_processed(7)
    assert one.stop() == 0
    assert [(output["step"], output["final"]) for output in one.published()] == [(3, True), (3, True)]


def test_health_and_metrics_tell_what_happened(job):
    from http.client import HTTPConnection

    one = job()
    one.send([sample(1, 2), b"no", sample(1, 2, end=True)])
    one.start()
    one.wait_processed(3)

    def ask(path: str) -> tuple[int, str]:
        connection = HTTPConnection("127.0.0.1", one.port, timeout=5)
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()

    assert [ask(path)[0] for path in ("/livez", "/startupz")] == [200, 200]
    one.wait_until(lambda: ask("/readyz")[0] == 200)
    # Dead letters count when they are committed, up to a commit interval after the record was consumed.
    one.wait_until(lambda: "lstm_worker_dead_letters_total{" in ask("/metrics")[1])
    metrics = ask("/metrics")[1]
    for line in (
        'lstm_worker_records_consumed_total{partition="0"} 3.0',
        "lstm_worker_predictions_produced_total 2.0",
        'lstm_worker_dead_letters_total{reason="not_json"} 1.0',
        'lstm_worker_sequences_ended_total{ended_by="end_marker"} 1.0',
    ):
        assert line in metrics
    assert one.stop() == 0
