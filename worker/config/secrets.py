"""Secrets: taken from the environment or from files by reference, and never printed."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from worker.errors import ConfigError

MASK = "********"

_REFERENCE = re.compile(r"\$\{(?P<scheme>[^:}]*):?(?P<name>[^}]*)\}")
_SECRET = re.compile(
    r"password|passphrase|passwd|secret|token|credential|private.?key|\bkey\.pem|\bjaas|oauthbearer\.config"
)
_NOT_SECRET = re.compile(r"\.(location|url|uri|method|endpoint)$")
_SECRET_BYTES_MAX = 1 << 20


def is_secret(name: str) -> bool:
    """Whether the value of a setting or property of this name must not be shown."""
    name = name.lower()
    return bool(_SECRET.search(name)) and not _NOT_SECRET.search(name)


def resolve(layer: dict[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
    """The layer with every `${env:NAME}` and `${file:PATH}` replaced, and the texts that held one by dotted path.

    Raises ConfigError for a reference that leads nowhere.
    """
    references: dict[str, str] = {}
    return _resolved(layer, "", references), references


def _resolved(value: Any, path: str, references: dict[str, str]) -> Any:
    if isinstance(value, dict):
        return {name: _resolved(inner, f"{path}.{name}" if path else name, references) for name, inner in value.items()}
    if isinstance(value, list):
        return [_resolved(inner, path, references) for inner in value]
    if not isinstance(value, str) or not _REFERENCE.search(value):
        return value
    references[path] = value
    return _REFERENCE.sub(lambda match: _looked_up(match, path), value)


def _looked_up(match: re.Match[str], path: str) -> str:
    scheme, name = match["scheme"], match["name"]
    if scheme == "env":
        if name not in os.environ:
            raise ConfigError(
                f"{path}: environment variable {name} is not set", "set it, or give the value another way"
            )
        return os.environ[name]
    if scheme == "file":
        return _read(Path(name), path)
    raise ConfigError(f"{path}: {match[0]} is no reference", "write ${env:NAME} or ${file:/path}")


def _read(file: Path, path: str) -> str:
    try:
        with file.open(encoding="utf-8") as opened:
            text = opened.read(_SECRET_BYTES_MAX)
    except OSError as error:
        raise ConfigError(f"{path}: {file} cannot be read ({error.strerror})", "check the path and its mode") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: {file} is not text in UTF-8", "give a text file") from error
    # Editors and `echo` end a file with a line break that is no part of the secret.
    return text.rstrip("\r\n")
