"""The command `orchestra-etl`, one module per command group.

Results go to standard output; logs, notes and errors go to standard error.
"""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command and exit with its status."""
    from etl.cli.commands import run

    sys.exit(run(sys.argv[1:]))
