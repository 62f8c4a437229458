"""The effective configuration as TOML, with what each setting means and without secrets."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel

from worker.config.secrets import MASK, is_secret
from worker.config.settings import Settings

_COMMENT_COLUMN = 44


def effective_toml(settings: Settings) -> str:
    """A file that configures the same, but for secrets: references are shown as written, other secrets masked."""
    lines: list[str] = []
    for name, section in settings:
        lines += [f"[{name}]", *_section(name, section, settings.references), ""]
    return "\n".join(lines)


def _section(path: str, section: BaseModel, references: dict[str, str]) -> Iterator[str]:
    tables: dict[str, dict[str, Any]] = {}
    for name, field in type(section).model_fields.items():
        value = getattr(section, name)
        if isinstance(value, dict):
            tables[name] = value
            continue
        line = f"{name} = {_shown(f'{path}.{name}', value, references)}"
        yield f"{line:<{_COMMENT_COLUMN}} # {field.description}"
    for name, table in tables.items():
        if not table:
            continue
        yield f"[{path}.{name}]"
        for key, value in table.items():
            yield f"{_literal(key)} = {_shown(f'{path}.{name}.{key}', value, references)}"


def _shown(path: str, value: Any, references: dict[str, str]) -> str:
    if path in references:
        return _literal(references[path])
    return _literal(MASK) if value and is_secret(path) else _literal(value)


def _literal(value: Any) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(_literal, value))}]"
    if isinstance(value, BaseModel):
        given = value.model_dump(exclude_defaults=True)
        # An entry of model.previous that says nothing else is written as its path.
        table = ", ".join(f"{name} = {_literal(each)}" for name, each in given.items())
        return _literal(given["path"]) if list(given) == ["path"] else f"{{{table}}}"
    # JSON's strings, numbers, booleans and arrays are TOML's, but for the one control character that JSON leaves as is.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
