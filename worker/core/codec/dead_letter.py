"""A record that could not be used, with the headers that Kafka Connect's tools look for in dead letters."""

from __future__ import annotations

import hashlib

from worker.core.types import DeadLetter, Headers

CONNECT = "__connect.errors."
OWN = "__lstm_worker."
EXCEPTION_CLASS = "worker.core.types.Rejection"
DETAIL_CHARACTERS_MAX = 1000
"""A detail may name every missing feature of a wide model; the record must still fit the topic."""

_STAGES = {
    "key": ("KEY_CONVERTER", "worker.core.codec.envelope"),
    "timestamp": ("TRANSFORMATION", "worker.core.codec.envelope"),
    "future": ("TRANSFORMATION", "worker.core.codec.envelope"),
    "gap": ("TRANSFORMATION", "worker.core.sequence"),
}
_VALUE_STAGE = ("VALUE_CONVERTER", "worker.core.codec.InputDecoder")


def dead_letter_record(
    letter: DeadLetter, *, topic: str, worker: str, value_bytes_max: int
) -> tuple[bytes | None, bytes | None, Headers]:
    """Key, value and headers of a dead letter. `topic`: the input's; `worker`: the id of the one that rejected it.

    Key, value and headers are the original's, the headers followed by those that say why. Where key, headers and
    value together exceed `value_bytes_max`, the value is cut to what is left; where key and headers alone do, the
    headers are left out, and at last the key is cut. What was cut has its size and sha256 in headers, so that no
    record a producer can send is too large for the dead-letter topic.
    """
    cuts: dict[str, str] = {}
    key = _cut("key", letter.key, value_bytes_max, cuts)
    room = value_bytes_max - len(key or b"")
    headers: Headers = list(letter.headers or [])
    headers_size = sum(len(name.encode("utf-8")) + len(content or b"") for name, content in headers)
    if headers_size > room:
        cuts["headers.size"] = str(headers_size)
        headers, headers_size = [], 0
    value = _cut("value", letter.value, room - headers_size, cuts)
    reasons = _reasons(letter, topic, worker)
    headers.extend((CONNECT + name, text.encode("utf-8")) for name, text in reasons.items())
    headers.append((OWN + "reason", letter.rejection.reason.encode("utf-8")))
    headers.extend((OWN + name, text.encode("utf-8")) for name, text in cuts.items())
    return key, value, headers


def _reasons(letter: DeadLetter, topic: str, worker: str) -> dict[str, str]:
    reason = letter.rejection.reason
    stage, class_name = _STAGES.get(reason, _VALUE_STAGE)
    message = f"{reason}: {letter.rejection.detail}"[:DETAIL_CHARACTERS_MAX]
    return {
        "topic": topic,
        "partition": str(letter.partition),
        "offset": str(letter.offset),
        "connector.name": "lstm-worker",
        "task.id": worker,
        "stage": stage,
        "class.name": class_name,
        "exception.class.name": EXCEPTION_CLASS,
        "exception.message": message,
        # A rejection is a verdict, nothing was thrown: the first line of a stack trace is all there is.
        "exception.stacktrace": f"{EXCEPTION_CLASS}: {message}",
    }


def _cut(what: str, content: bytes | None, bytes_max: int, cuts: dict[str, str]) -> bytes | None:
    if content is None or len(content) <= bytes_max:
        return content
    cuts[f"{what}.size"] = str(len(content))
    cuts[f"{what}.sha256"] = hashlib.sha256(content).hexdigest()
    return content[:bytes_max]
