"""The command `orchestra-etl`, one module per command group.

Results go to standard output; logs, notes and errors go to standard error.
"""

from __future__ import annotations

import gc
import os
import sys


def main() -> None:
    """Run the command and exit with its status."""
    _open_standard_streams()
    # Imports create hundreds of thousands of objects that stay. Searching them for garbage after
    # every 700 new ones takes a tenth of the start.
    gc.set_threshold(200_000, 20, 100)
    try:
        from etl.cli.commands import flushed, run
    except KeyboardInterrupt:
        # Nothing has begun, so a traceback would not help.
        sys.exit(130)
    status = flushed(run(sys.argv[1:]), sys.argv[1:])
    # The exiting interpreter would look through all objects for garbage several times, which takes
    # a quarter of a short command's time.
    gc.freeze()
    sys.exit(status)


def _open_standard_streams() -> None:
    """Open /dev/null in place of each standard stream that the parent process has closed.

    Otherwise the next files and connections would take the numbers 0 to 2, and the programs of
    PostgreSQL would use them as their standard streams.
    """
    opened = 0
    while opened <= 2:
        opened = os.open(os.devnull, os.O_RDWR)
    os.close(opened)
