"""Run a command and write what it cost as JSON: `python -I -S launch.py FILE COMMAND ...`.

Linux counts the memory of the process that starts a command in the command's peak memory. So this
small process starts it, not the benchmark.
"""

import json
import os
import sys
import time


def main(file: str, *command: str) -> None:
    """Run the command to its end."""
    begun = time.perf_counter()
    process = os.posix_spawnp(command[0], command, os.environ)
    _, status, usage = os.wait4(process, 0)
    cost = {
        "seconds": time.perf_counter() - begun,
        "cpu_seconds": usage.ru_utime + usage.ru_stime,
        "peak_mb": usage.ru_maxrss / 1024,
    }
    with open(file, "w", encoding="utf-8") as written:
        json.dump(cost, written)
    sys.exit(os.waitstatus_to_exitcode(status))


if __name__ == "__main__":
    main(*sys.argv[1:])
