"""Logs: one event a line, for a person or for a machine."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator

import pytest

from worker.logs import LIBRDKAFKA, REPEAT_SECONDS, RepeatFilter, configure_logging

log = logging.getLogger("worker.test")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def _restore_logging() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.captureWarnings(False)


def json_event(stream: io.StringIO) -> dict[str, object]:
    (line,) = stream.getvalue().splitlines()
    event: dict[str, object] = json.loads(line)
    return event


def test_an_event_is_one_json_object_with_its_own_and_the_common_fields() -> None:
    stream = io.StringIO()
    configure_logging("json", fields={"app": "lstm-worker"}, stream=stream)
    log.info("restored %d rows\nand more", 7, extra={"partition": 3})
    event = json_event(stream)
    assert event.pop("ts").endswith("Z")
    assert event == {
        "level": "info",
        "event": "restored 7 rows\nand more",
        "logger": "worker.test",
        "app": "lstm-worker",
        "partition": 3,
    }


def test_an_error_is_a_field_of_its_event_with_class_and_traceback() -> None:
    stream = io.StringIO()
    configure_logging("json", stream=stream)
    try:
        raise ValueError("broken")
    except ValueError:
        log.exception("failed")
    event = json_event(stream)
    assert (event["error"], event["error_detail"]) == ("ValueError", "broken")
    assert "test_logs.py" in str(event["traceback"])


def test_a_value_that_json_does_not_know_is_written_as_text() -> None:
    stream = io.StringIO()
    configure_logging("json", stream=stream)
    log.info("odd", extra={"thing": {1, 2}.__class__})
    assert json_event(stream)["thing"] == "<class 'set'>"


def test_auto_is_text_on_a_terminal_and_json_elsewhere() -> None:
    terminal, pipe = Terminal(), io.StringIO()
    for stream in (terminal, pipe):
        configure_logging("auto", stream=stream)
        log.warning("hello", extra={"partition": 3})
    assert terminal.getvalue()[12:] == " WARNING worker.test: hello  partition=3\n"
    assert json_event(pipe)["event"] == "hello"


def test_a_line_break_does_not_look_like_a_second_event_in_text() -> None:
    stream = io.StringIO()
    configure_logging("text", stream=stream)
    log.info("one\ntwo")
    assert len(stream.getvalue().splitlines()) == 1


def test_events_below_the_level_are_left_out() -> None:
    stream = io.StringIO()
    configure_logging("json", "warning", stream=stream)
    log.info("quiet")
    assert stream.getvalue() == ""


def test_configuring_twice_does_not_log_twice() -> None:
    stream = io.StringIO()
    configure_logging("json", stream=stream)
    configure_logging("json", stream=stream)
    log.info("once")
    json_event(stream)


def librdkafka_event(kind: str, created: float) -> logging.LogRecord:
    record = logging.makeLogRecord({"msg": "%s [%s] %s", "args": (kind, "client-1", f"after {created} ms")})
    record.created = created
    return record


def test_librdkafkas_repeated_complaint_passes_once_in_a_while_and_says_how_often_it_was_held_back() -> None:
    repeats = RepeatFilter()
    passed = [repeats.filter(librdkafka_event("FAIL", second)) for second in (0.0, 1.0, 2.0)]
    later = librdkafka_event("FAIL", REPEAT_SECONDS)
    assert passed == [True, False, False]
    assert repeats.filter(later)
    assert later.repeated == 2


def test_complaints_of_different_kinds_do_not_hold_each_other_back() -> None:
    repeats = RepeatFilter()
    assert repeats.filter(librdkafka_event("FAIL", 0.0))
    assert repeats.filter(librdkafka_event("SESSTMOUT", 0.0))


def test_librdkafkas_logger_has_one_such_filter() -> None:
    configure_logging("json", stream=io.StringIO())
    configure_logging("json", stream=io.StringIO())
    assert len(logging.getLogger(LIBRDKAFKA).filters) == 1
