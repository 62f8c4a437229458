"""Logs: one event a line on standard error, for a person on a terminal, as JSON otherwise.

Modules log with the standard library; what belongs to an event travels in `extra`, e.g.
`log.info("restored", extra={"partition": 3, "records": 1200})`. Keys and values of records are never logged.
"""

from __future__ import annotations

import logging
import sys
from collections import Counter
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, TextIO

import orjson

LIBRDKAFKA = "librdkafka"
"""Name of the logger that takes the client library's own lines."""

REPEAT_SECONDS = 10.0
"""librdkafka tries to connect 20 times a second while a broker is away, and says so each time."""

_STANDARD = {*vars(logging.makeLogRecord({})), "message", "asctime", "taskName"}


def configure_logging(
    log_format: str = "auto",
    level: str = "info",
    *,
    fields: Mapping[str, object] | None = None,
    stream: TextIO | None = None,
) -> None:
    """Send all events of at least `level` to `stream` (standard error), replacing what was configured before.

    `log_format`: text, json, or auto (text where the stream is a terminal). `fields` go into every JSON event.
    """
    stream = stream or sys.stderr
    as_text = log_format == "text" or (log_format == "auto" and stream.isatty())
    handler = logging.StreamHandler(stream)
    handler.setFormatter(TextFormatter() if as_text else JsonFormatter(fields or {}))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    logging.captureWarnings(True)
    logging.getLogger(LIBRDKAFKA).filters[:] = [RepeatFilter()]


class RepeatFilter(logging.Filter):
    """Lets an event of one kind of one librdkafka client through once in REPEAT_SECONDS; the rest is counted in it."""

    def __init__(self) -> None:
        super().__init__()
        self._last: dict[tuple[object, ...], float] = {}
        self._repeated: Counter[tuple[object, ...]] = Counter()

    def filter(self, record: logging.LogRecord) -> bool:
        # librdkafka's lines come as (kind, client, text); the text differs in times.
        kind = record.args[:2] if isinstance(record.args, tuple) else (record.msg,)
        if record.created - self._last.get(kind, -REPEAT_SECONDS) < REPEAT_SECONDS:
            self._repeated[kind] += 1
            return False
        self._last[kind] = record.created
        if repeated := self._repeated.pop(kind, 0):
            record.repeated = repeated
        return True


class JsonFormatter(logging.Formatter):
    """An object a line: `ts` (UTC), `level`, `event`, `logger`, then the event's own fields."""

    def __init__(self, fields: Mapping[str, object]) -> None:
        super().__init__()
        self._fields = dict(fields)

    def format(self, record: logging.LogRecord) -> str:
        event: dict[str, Any] = {
            "ts": _time(record).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "event": record.getMessage(),
            "logger": record.name,
            **self._fields,
            **_extra(record),
        }
        error = _error(record)
        if error is not None:
            event["error"] = type(error).__name__
            event["error_detail"] = str(error)
            event["traceback"] = self.formatException((type(error), error, error.__traceback__))
        return orjson.dumps(event, default=str, option=orjson.OPT_SERIALIZE_NUMPY).decode()


class TextFormatter(logging.Formatter):
    """`HH:MM:SS.mmm LEVEL logger: event  name=value …` in local time; a traceback follows on its own lines."""

    def format(self, record: logging.LogRecord) -> str:
        time = _time(record).astimezone().strftime("%H:%M:%S.%f")[:-3]
        fields = "".join(f"  {name}={value}" for name, value in _extra(record).items())
        # A line break in a message would look like a second event.
        event = f"{record.getMessage()}{fields}".replace("\n", "\\n")
        line = f"{time} {record.levelname:<7} {record.name}: {event}"
        error = _error(record)
        if error is not None:
            line += "\n" + self.formatException((type(error), error, error.__traceback__))
        return line


def _time(record: logging.LogRecord) -> datetime:
    return datetime.fromtimestamp(record.created, UTC)


def _extra(record: logging.LogRecord) -> dict[str, Any]:
    return {name: value for name, value in vars(record).items() if name not in _STANDARD}


def _error(record: logging.LogRecord) -> BaseException | None:
    return record.exc_info[1] if record.exc_info else None
