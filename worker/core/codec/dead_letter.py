"""A record that could not be used, as Kafka Connect's tools expect dead letters."""

from __future__ import annotations

import hashlib

from worker.core.types import DeadLetter, Headers

STAGES = {"key": "KEY_CONVERTER", "future": "TRANSFORMATION", "timestamp": "TRANSFORMATION", "gap": "TASK_PUT"}
HEADER_ROOM_BYTES = 2048
"""Left for key and headers when a value is cut to what the topic takes."""


def dead_letter_record(
    letter: DeadLetter, *, topic: str, worker: str, value_bytes_max: int
) -> tuple[bytes | None, bytes | None, Headers]:
    """Key, value and headers of a dead letter. `topic`: the input's; `worker`: who rejected it.

    Key, value and headers stay as they are; a value above `value_bytes_max` is cut, its size and sha256 in headers.
    """
    reason = letter.rejection
    given: dict[str, str] = {
        "__connect.errors.topic": topic,
        "__connect.errors.partition": str(letter.partition),
        "__connect.errors.offset": str(letter.offset),
        "__connect.errors.connector.name": "lstm-worker",
        "__connect.errors.task.id": worker,
        "__connect.errors.stage": STAGES.get(reason.reason, "VALUE_CONVERTER"),
        "__connect.errors.class.name": "worker.core.codec",
        "__connect.errors.exception.class.name": f"worker.core.types.Rejection.{reason.reason}",
        "__connect.errors.exception.message": reason.detail,
        "__connect.errors.exception.stacktrace": "",
    }
    value = letter.value
    if value is not None and len(value) > value_bytes_max:
        given["__lstm_worker.value.size"] = str(len(value))
        given["__lstm_worker.value.sha256"] = hashlib.sha256(value).hexdigest()
        value = value[:value_bytes_max]
    headers: Headers = list(letter.headers or [])
    headers.extend((name, text.encode("utf-8")) for name, text in given.items())
    return letter.key, value, headers
