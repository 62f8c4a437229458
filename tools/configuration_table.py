"""Writes the configuration table of the README from the settings: `python -m tools.configuration_table`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from worker.config.settings import Settings

README = Path(__file__).parents[1] / "README.md"
BEGIN, END = "<!-- configuration -->\n", "<!-- /configuration -->\n"


def table() -> str:
    """Markdown: every setting with its default and meaning, in the order of the file."""
    rows = ["| setting | default | meaning |", "|---|---|---|"]
    for section, field in Settings.model_fields.items():
        model: Any = field.annotation
        for name, setting in model.model_fields.items():
            default = setting.get_default(call_default_factory=True)
            shown = "" if isinstance(default, dict) else f"`{json.dumps(default)}`"
            rows.append(f"| `{section}.{name}` | {shown} | {setting.description} |")
    return "\n".join(rows) + "\n"


def with_table(text: str) -> str:
    """The README's text with the table as the settings are now."""
    before, rest = text.split(BEGIN)
    return before + BEGIN + table() + END + rest.split(END)[1]


if __name__ == "__main__":
    README.write_text(with_table(README.read_text("utf-8")), "utf-8")
