"""JSON in and out.

In: `{"features": [..]}` or named fields, with the optional controls `sequence_id`, `step`, `end`; other fields are
ignored and null stands for not given. Out: one object a record, fields in the documented order, NaN as null.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import chain, repeat
from operator import itemgetter
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import orjson

from worker.core.codec.binary_format import flag_bytes
from worker.core.codec.controls import CONTROL_NAMES, json_type, read_controls
from worker.core.codec.envelope import envelope_rejections, reject_too_large
from worker.core.deciding import UNDECIDED
from worker.core.types import (
    BoolArray,
    DecodedBatch,
    EndedBy,
    Float32Array,
    Kind,
    ModelLabel,
    PredictionBatch,
    RecordBatch,
    Rejection,
    UInt8Array,
)
from worker.errors import ConfigError

Fields = dict[str, Any]

_NUMBERS = {int, float}
_BOUNDARY = b'{"end":true}'
"""What a null value says."""


class _UnusableError(ValueError):
    """Raised when a record's features cannot be used."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.rejection = Rejection(reason, detail)


class JsonDecoder:
    """Reads a batch as columns; a stage that meets a bad record looks at the records of that batch one by one."""

    def __init__(self, features: int, names: Sequence[str], value_bytes_max: int, future_ms_max: int) -> None:
        self._names = tuple(names) or ("features",)
        if names:
            _check_names(names, features)
        self._features = features
        self._vector = _vector_of_names(self._names) if names else itemgetter("features")
        self._vector_type = tuple if names else list
        self._value_bytes_max = value_bytes_max
        self._future_ms_max = future_ms_max

    def decode(self, batch: RecordBatch, now_ms: int) -> DecodedBatch:
        """See InputDecoder."""
        rejections = envelope_rejections(batch, now_ms, self._future_ms_max)
        reject_too_large(batch.values, self._value_bytes_max, rejections)
        records = _parse(batch.values, rejections)
        kinds = np.zeros(len(records), np.uint8)
        try:
            vectors = list(map(self._vector, records))
        except KeyError:
            vectors = None
        # With the features and no other field there can be no control.
        plain = vectors is not None and set(map(len, records)) <= {len(self._names)}
        controls = read_controls(None if plain else records, batch.headers, rejections)
        features = self._columns(vectors) if vectors is not None and not rejections else None
        if features is None:
            features = self._some_are_no_samples(records, controls.ends, kinds, rejections)
        return controls.decoded(features, kinds, rejections)

    def _columns(self, vectors: Sequence[Any]) -> Float32Array | None:
        """(N, F) when every vector holds F finite numbers, else None."""
        if not set(map(type, vectors)) <= {self._vector_type} or not set(map(len, vectors)) <= {self._features}:
            return None
        flat = list(chain.from_iterable(vectors))
        if not set(map(type, flat)) <= _NUMBERS:  # a bool is an int to isinstance
            return None
        features = _float32(flat).reshape(len(vectors), self._features)
        return features if np.isfinite(features).all() else None

    def _some_are_no_samples(
        self, records: Sequence[Fields], ends: BoolArray | None, kinds: UInt8Array, rejections: dict[int, Rejection]
    ) -> Float32Array:
        """(N, F) with zeros where a record has no sample; `kinds` and `rejections` say what it is instead."""
        first = self._names[0]
        given = np.array([record.get(first) is not None for record in records], np.bool_)
        for i in np.flatnonzero(~given).tolist():
            if i in rejections:
                continue
            if any(records[i].get(name) is not None for name in self._names):
                given[i] = True
            elif ends is not None and ends[i]:
                kinds[i] = Kind.END
            else:
                rejections[i] = Rejection("missing_features", f"the object has no {', '.join(self._names)}")
        given[list(rejections)] = False
        samples = np.flatnonzero(given).tolist()
        features = np.zeros((len(records), self._features), np.float32)
        try:
            columns = self._columns([self._vector(records[i]) for i in samples])
        except KeyError:
            columns = None
        if columns is not None:
            features[samples] = columns
            return features
        for i in samples:
            try:
                features[i] = self._sample(records[i])
            except _UnusableError as error:
                rejections[i] = error.rejection
        return features

    def _sample(self, record: Fields) -> Float32Array:
        """(F,) float32. Raises _UnusableError saying what is wrong with which feature."""
        missing = [name for name in self._names if record.get(name) is None]
        if missing:
            raise _UnusableError("missing_features", f"the object has no {', '.join(missing)}")
        vector = self._vector(record)
        if type(vector) is not self._vector_type:
            raise _UnusableError("not_a_number", f"features is a JSON {json_type(vector)}, not an array")
        if len(vector) != self._features:
            raise _UnusableError("feature_count", f"{len(vector)} features, the model takes {self._features}")
        for name, number in zip(self._labels(), vector, strict=True):
            if type(number) not in _NUMBERS:
                raise _UnusableError("not_a_number", f"{name} is a JSON {json_type(number)}, not a number")
        sample = _float32(vector)
        if not np.isfinite(sample).all():
            name = self._labels()[int(np.argmin(np.isfinite(sample)))]
            raise _UnusableError("not_finite", f"{name} is too large for a float32")
        return sample

    def _labels(self) -> Sequence[str]:
        if self._vector_type is tuple:
            return self._names
        return [f"features[{i}]" for i in range(self._features)]


def _check_names(names: Sequence[str], features: int) -> None:
    hint = "name one JSON field for each feature of the model, in its order"
    if len(names) != features:
        raise ConfigError(f"input.features has {len(names)} names, the model takes {features} features", hint)
    if len(set(names)) != len(names):
        raise ConfigError("input.features names a field twice", hint)
    taken = sorted(set(names) & set(CONTROL_NAMES))
    if taken:
        raise ConfigError(f"input.features: the field {taken[0]} is a control", "rename the field of this feature")


def _vector_of_names(names: tuple[str, ...]) -> Callable[[Fields], Any]:
    if len(names) == 1:
        only = names[0]
        return lambda record: (record[only],)
    return itemgetter(*names)


def _parse(values: Sequence[bytes | None], rejections: dict[int, Rejection]) -> list[Fields]:
    """The values' objects, an empty one for a rejected record.

    One call a value: joining the values into one array costs as much again for the proof that no value reached into
    its neighbour.
    """
    if rejections or None in values:
        values = [b"{}" if i in rejections else _BOUNDARY if v is None else v for i, v in enumerate(values)]
    given = cast("Sequence[bytes]", values)  # none is None by now
    try:
        records = list(map(orjson.loads, given))
    except orjson.JSONDecodeError:
        records = [_parse_one(i, value, rejections) for i, value in enumerate(given)]
    if not set(map(type, records)) <= {dict}:
        for i, record in enumerate(records):
            if type(record) is not dict:
                rejections[i] = Rejection("not_object", f"the value is a JSON {json_type(record)}, not an object")
                records[i] = {}
    return records


def _parse_one(i: int, value: bytes, rejections: dict[int, Rejection]) -> Any:
    try:
        return orjson.loads(value)
    except orjson.JSONDecodeError as error:
        rejections[i] = Rejection("not_json", f"the value is not JSON: {error}")
        return {}


def _float32(numbers: Sequence[float]) -> Float32Array:
    with np.errstate(over="ignore"):  # what overflows is found by its not being finite
        return np.fromiter(numbers, np.float32, len(numbers))


class JsonEncoder:
    """Each column is written by one call and cut at its commas; a row is these pieces and constant ones, joined."""

    def __init__(self, topic: str, models: Sequence[ModelLabel], outputs: int) -> None:
        self._outputs = outputs
        probability, logit = ("probability", "logit") if outputs == 1 else ("probabilities", "logits")
        self._probability_names = [
            b',"length":%b,"%b":' % (orjson.dumps(label.length), probability.encode()) for label in models
        ]
        self._logit_name = b',"%b":' % logit.encode()
        self._flags = [_flag_fields(flags) for flags in range(256)]
        self._source = b',"source":{"topic":%b,"partition":' % orjson.dumps(topic)
        self._tails = [
            b'},"model":%b,"calibration":%b}' % (orjson.dumps(label.model), orjson.dumps(label.calibration))
            for label in models
        ]

    def encode(self, predictions: PredictionBatch) -> list[bytes]:
        """See OutputEncoder."""
        partitions = predictions.partitions.tolist()
        first_offsets = _numbers(predictions.first_offsets)
        sources = {partition: b'%b%d,"offset":' % (self._source, partition) for partition in set(partitions)}
        pieces = zip(
            *_sequences(partitions, first_offsets, predictions.sequence_ids),
            repeat(b'","step":'),
            _numbers(predictions.steps),
            _of_each_model(self._probability_names, predictions.models),
            self._outputs_of(predictions.probabilities),
            repeat(self._logit_name),
            self._outputs_of(predictions.logits),
            map(self._flags.__getitem__, flag_bytes(predictions).tolist()),
            _numbers(predictions.event_times),
            repeat(b',"first_offset":'),
            first_offsets,
            map(sources.__getitem__, partitions),
            _numbers(predictions.source_offsets),
            *self._ends(predictions),
        )
        return list(map(b"".join, pieces))

    def _ends(self, predictions: PredictionBatch) -> tuple[Iterable[bytes], ...]:
        """The last pieces: model and calibration, and the decision where sequences are decided early."""
        if predictions.decisions is None:
            return (_of_each_model(self._tails, predictions.models),)
        answers = predictions.decisions.tolist()
        named = {each: b',"decision":%b}' % (b"null" if each == UNDECIDED else b"%d" % each) for each in set(answers)}
        open_tails = [tail.removesuffix(b"}") for tail in self._tails]
        return _of_each_model(open_tails, predictions.models), map(named.__getitem__, answers)

    def _outputs_of(self, values: Float32Array) -> list[bytes]:
        """(M, K) → M numbers, or M arrays where K > 1; null where there is none."""
        if self._outputs == 1:
            return _numbers(values[:, 0])
        text = orjson.dumps(np.ascontiguousarray(values), option=orjson.OPT_SERIALIZE_NUMPY)[1:-1]
        nothing = b"[%b]" % b",".join([b"null"] * self._outputs)
        return text.replace(b"],[", b"] [").replace(nothing, b"null").split(b" ") if text else []


def _of_each_model(pieces: list[bytes], models: UInt8Array | None) -> Iterable[bytes]:
    return repeat(pieces[0]) if models is None else map(pieces.__getitem__, models.tolist())


def _numbers(column: npt.NDArray[Any]) -> list[bytes]:
    text = orjson.dumps(np.ascontiguousarray(column), option=orjson.OPT_SERIALIZE_NUMPY)[1:-1]
    return text.split(b",") if text else []


def _sequences(
    partitions: list[int], first_offsets: list[bytes], ids: list[bytes] | None
) -> tuple[Iterable[bytes], Iterable[bytes]]:
    """Beginnings of the rows in two columns, up to the last character of the sequence's name.

    The name is the given id, escaped for a JSON string; where none was given, partition and first offset.
    """
    begins = {partition: b'{"sequence":"%d-' % partition for partition in set(partitions)}
    begin = map(begins.__getitem__, partitions)
    if ids is None:
        return begin, first_offsets
    given = {name: b'{"sequence":"' + orjson.dumps(name.decode("utf-8"))[1:-1] for name in set(ids) if name}
    own = zip(ids, begin, first_offsets, strict=True)
    return [given[name] if name else derived + offset for name, derived, offset in own], repeat(b"")


def _flag_fields(flags: int) -> bytes:
    """The JSON fields of a flags byte (see `flag_bytes`), from `exact` up to the name of `event_time`."""
    final, exact, tainted, closing = (orjson.dumps(bool(flags >> bit & 1)) for bit in range(4))
    reason = flags >> 4
    ended_by = EndedBy(reason).name.lower() if 0 < reason < len(EndedBy) else None
    return b',"exact":%b,"final":%b,"ended_by":%b,"closing":%b,"tainted":%b,"event_time":' % (
        exact,
        final,
        orjson.dumps(ended_by),
        closing,
        tainted,
    )
