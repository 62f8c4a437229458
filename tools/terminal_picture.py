"""Coloured terminal text to an SVG: `tmux capture-pane -e -p | python -m tools.terminal_picture FILE TITLE`."""

from __future__ import annotations

import sys

from rich.console import Console
from rich.text import Text


def main() -> None:
    """Write the picture."""
    lines = sys.stdin.read().rstrip("\n").split("\n")
    width = max((len(Text.from_ansi(line).plain) for line in lines), default=80)
    console = Console(record=True, width=width + 1, file=open("/dev/null", "w"), force_terminal=True)  # noqa: SIM115
    for line in lines:
        console.print(Text.from_ansi(line), soft_wrap=True)
    console.save_svg(sys.argv[1], title=sys.argv[2])


if __name__ == "__main__":
    main()
