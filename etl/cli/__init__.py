"""The command `orchestra-etl`, one module per command group.

Results go to standard output; logs, notes and errors go to standard error.
"""

from __future__ import annotations

import gc
import sys


def main() -> None:
    """Run the command and exit with its status."""
    # Imports create hundreds of thousands of objects that stay. To look for garbage among them
    # after every 700 new ones takes a tenth of the start.
    gc.set_threshold(50_000, 20, 100)
    from etl.cli.commands import run

    sys.exit(run(sys.argv[1:]))
