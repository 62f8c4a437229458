"""Defaults < configuration file < environment < flags: merged, resolved and checked; mistakes named by their path."""

from __future__ import annotations

import difflib
import json
import os
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails
from pydantic_settings import EnvSettingsSource

from worker.config.checks import contradictions
from worker.config.kafka_properties import flattened
from worker.config.secrets import is_secret, resolve
from worker.config.settings import ENVIRONMENT_DELIMITER, ENVIRONMENT_PREFIX, PreviousModel, Settings
from worker.errors import ConfigError, SettingsRefused

PASS_THROUGH = ("properties", "consumer", "producer")
"""Tables of [kafka] whose keys are librdkafka's."""

_VALUE_SHOWN_MAX = 60


def load_settings(file: Path | None = None, overrides: Sequence[str] = ()) -> Settings:
    """Read all settings. `overrides` are flags, each `section.key=value`; a later one wins.

    Raises ConfigError with one line for each mistake: the dotted path, what is wrong, where it was set.
    """
    layers = {
        str(file): _file_layer(file) if file is not None else {},
        "the environment": _environment_layer(),
        "a flag": _flag_layer(overrides),
    }
    merged: dict[str, Any] = {}
    for layer in layers.values():
        merged = _merged(merged, layer)
    resolved, references = resolve(merged)
    try:
        settings = Settings(**resolved)
    except ValidationError as error:
        raise SettingsRefused("\n".join(_line(each, layers) for each in error.errors(include_url=False))) from error
    problems = list(contradictions(settings))
    if problems:
        raise SettingsRefused("\n".join(problems))
    settings.references.update(references)
    return settings


def known_paths() -> list[str]:
    """The dotted path of every setting, in the order of the file."""
    return [f"{section}.{key}" for section, model in _sections().items() for key in model.model_fields]


def _sections() -> dict[str, type[BaseModel]]:
    sections = {}
    for name, field in Settings.model_fields.items():
        assert isinstance(field.annotation, type)
        sections[name] = field.annotation
    return sections


def _file_layer(file: Path) -> dict[str, Any]:
    try:
        with file.open("rb") as opened:
            layer = tomllib.load(opened)
    except OSError as error:
        raise ConfigError(f"{file} cannot be read ({error.strerror})", "give --config an existing file") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file} is not TOML: {error}") from error
    return _with_flat_properties(layer)


def _environment_layer() -> dict[str, Any]:
    for variable in sorted(os.environ):
        if variable.upper().startswith(ENVIRONMENT_PREFIX):
            _check_variable(variable)
    layer: dict[str, Any] = EnvSettingsSource(Settings)()
    kafka = layer.get("kafka")
    if isinstance(kafka, dict):
        tables = {table: _with_dots(kafka[table]) for table in PASS_THROUGH if isinstance(kafka.get(table), dict)}
        layer["kafka"] = {**kafka, **tables}
    return layer


def _check_variable(variable: str) -> None:
    """What the source would pass over in silence, or report without the variable's name."""
    names = variable.lower()[len(ENVIRONMENT_PREFIX) :].split(ENVIRONMENT_DELIMITER)
    if names[0] not in Settings.model_fields:
        raise ConfigError(f"{variable}: {_unknown(names[0])}")
    if len(names) == 1 or (names[0] == "kafka" and names[1] in PASS_THROUGH and len(names) == 2):
        try:
            json.loads(os.environ[variable])
        except ValueError as error:
            raise ConfigError(f"{variable}: a table is written as JSON ({error})") from error


def _with_dots(table: Mapping[str, Any]) -> dict[str, Any]:
    """Names of environment variables cannot hold the dots of librdkafka's names; one of those has no dot."""
    return {name if name == "log_level" else name.replace("_", "."): value for name, value in table.items()}


def _flag_layer(overrides: Sequence[str]) -> dict[str, Any]:
    layer: dict[str, Any] = {}
    for override in overrides:
        path, equals, value = override.partition("=")
        names = path.strip().split(".")
        if not equals or len(names) < 2:
            raise ConfigError(f"--set {override}", "write --set section.key=value")
        if names[0] == "kafka" and names[1] in PASS_THROUGH and len(names) > 2:
            names = [*names[:2], ".".join(names[2:])]
        nested: Any = value
        for name in reversed(names):
            nested = {name: nested}
        layer = _merged(layer, nested)
    return layer


def _with_flat_properties(layer: dict[str, Any]) -> dict[str, Any]:
    """Done before layers are merged, so that both spellings of one property meet."""
    kafka = layer.get("kafka")
    if not isinstance(kafka, dict):
        return layer
    flat = {name: flattened(value) if name in PASS_THROUGH else value for name, value in kafka.items()}
    return {**layer, "kafka": flat}


def _merged(lower: Mapping[str, Any], upper: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(lower)
    for name, value in upper.items():
        below = merged.get(name)
        merged[name] = _merged(below, value) if isinstance(below, dict) and isinstance(value, dict) else value
    return merged


def _line(error: ErrorDetails, layers: Mapping[str, Mapping[str, Any]]) -> str:
    location = _relevant([str(part) for part in error["loc"]])
    path = _written(location, error["loc"])
    source = next((name for name, layer in reversed(list(layers.items())) if _holds(layer, location)), "")
    where = f" (set by {source})" if source else ""
    if error["type"] == "extra_forbidden" and location == ["model", "previous"]:
        return f"{path} is none of {', '.join(PreviousModel.model_fields)}{where}"
    if error["type"] == "extra_forbidden":
        return f"{_unknown(path)}{where}"
    if error["type"] == "missing":
        return f"{path} is missing{where}"
    reason = error["msg"].removeprefix("Value error, ").removeprefix("Input should be ")
    if not reason.startswith("must "):
        reason = f"must be {reason}" if error["msg"].startswith("Input should be ") else reason
    if error["type"] in ("model_type", "model_attributes_type", "dict_type"):
        return f"{path} is a table: write [{path}]{where}"
    return f"{path} = {_value(path, error['input'])}: {reason}{where}"


def _relevant(location: Sequence[str]) -> Sequence[str]:
    """Section and key; below a pass-through table librdkafka's name too."""
    return location[:3] if location[0] == "kafka" and location[1:2] and location[1] in PASS_THROUGH else location[:2]


def _written(location: Sequence[str], whole: Sequence[str | int]) -> str:
    """The path as a person writes it, `model.previous[0].length` within an entry of a list."""
    path = ".".join(location)
    if list(location) == ["model", "previous"] and len(whole) > 2:
        path += f"[{whole[2]}]" + "".join(f".{part}" for part in whole[3:])
    return path


def _holds(layer: Mapping[str, Any], location: Sequence[str]) -> bool:
    value: Any = layer
    for part in location:
        if not isinstance(value, Mapping) or part not in value:
            return False
        value = value[part]
    return True


def _value(path: str, value: object) -> str:
    if is_secret(path):
        return "(hidden)"
    shown = repr(value)
    return shown if len(shown) <= _VALUE_SHOWN_MAX else f"{shown[:_VALUE_SHOWN_MAX]}…"


def _unknown(path: str) -> str:
    section, _, key = path.partition(".")
    known = _nearest(section, key)
    if section == "kafka" and not known:
        return f"{path} is not a setting; librdkafka's own properties go below [kafka.properties]"
    return f"{path} is not a setting" + (f"; did you mean {known}?" if known else "")


def _nearest(section: str, key: str) -> str:
    """The nearest known path, "" where nothing is near."""
    candidates = [*_candidates(section, key)]
    return candidates[0] if candidates else ""


def _candidates(section: str, key: str) -> Iterator[str]:
    paths = known_paths()
    sections = list(_sections())
    if not key:
        yield from (path for path in paths if path.partition(".")[2] == section)
        yield from difflib.get_close_matches(section, sections, 1)
        return
    if section in sections:
        keys = [path.partition(".")[2] for path in paths if path.startswith(f"{section}.")]
        yield from (f"{section}.{near}" for near in difflib.get_close_matches(key, keys, 1))
    yield from (path for path in paths if path.partition(".")[2] == key)
    yield from difflib.get_close_matches(f"{section}.{key}", paths, 1)
