"""`python -m worker` and the program `lstm-worker`."""

from __future__ import annotations

import sys
from io import TextIOWrapper

from worker.cli.app import build_app
from worker.errors import UserError

INTERRUPTED = 130
"""What shells report of a program ended by Ctrl-C: 128 + SIGINT."""


def main() -> None:
    """Run the command line. A person's mistake is one line on standard error and an exit code; a bug is a traceback."""
    arguments = sys.argv[1:]
    if isinstance(sys.stdout, TextIOWrapper):
        # A pipe or terminal that is not UTF-8 gets a question mark for what it lacks, as standard error gets an escape.
        sys.stdout.reconfigure(errors="replace")
    try:
        build_app(arguments)(arguments, prog_name="lstm-worker")
    except UserError as error:
        for line in str(error).splitlines():
            sys.stderr.write(f"error: {line}\n")
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)


if __name__ == "__main__":
    main()
