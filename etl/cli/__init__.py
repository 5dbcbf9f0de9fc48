"""The command `orchestra-etl`: one module a command group. Results go to standard output, everything else to standard error."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command and exit with its status; an error is one line."""
    from etl.cli.commands import run

    sys.exit(run(sys.argv[1:]))
