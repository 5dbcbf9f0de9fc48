"""The command in its own process, a hundred times a minute: forked from a prepared server.

A start of the interpreter takes a second, most of it for imports. Here the real command line runs
in a fork of a process that only imported it. Signals, exit statuses, sockets and outputs are those
of a separate process.
"""

from __future__ import annotations

import importlib
import multiprocessing
import os
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

PATIENCE = 240.0
"""Seconds in which a worker must end.

PostgreSQL ends a stopped worker's transaction, whose locks others wait for, after 60.
"""

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["tests.preloaded"])


def _work(
    arguments: Sequence[str], variables: Mapping[str, str], log: str, without: Sequence[str]
) -> None:
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    # The forkserver's file objects belong to the parent; these belong to this process.
    sys.stdout = os.fdopen(1, "w", buffering=1, closefd=False)
    sys.stderr = os.fdopen(2, "w", buffering=1, closefd=False)
    kept = {
        name: os.environ[name] for name in ("PATH", "HOME", "LANG", "TMPDIR") if name in os.environ
    }
    os.environ.clear()
    os.environ.update({**kept, **variables})
    for path in without:
        module, _, name = path.partition(":")
        getattr(importlib.import_module(module), name)()
    from etl.cli.commands import run

    status = run([*arguments])
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


class Worker:
    """A running command."""

    def __init__(self, process: Any) -> None:
        self._process = process

    @property
    def pid(self) -> int:
        """The process id."""
        pid: int = self._process.pid
        return pid

    @property
    def status(self) -> int | None:
        """The exit status, a signal's number negated if it ended the command, or None.

        It is None while the command runs.
        """
        code: int | None = self._process.exitcode
        return code

    def send(self, number: signal.Signals) -> None:
        """Send a signal if the command still runs."""
        if self._process.exitcode is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """Kill the command like a power cut."""
        self.send(signal.SIGKILL)
        self._process.join()

    def wait(self, seconds: float = PATIENCE) -> int:
        """Wait until the command ends by itself, and return its exit status.

        Raises:
            TimeoutError: if it still runs after `seconds`.
        """
        self._process.join(seconds)
        code: int | None = self._process.exitcode
        if code is None:
            raise TimeoutError(f"the worker still runs after {seconds} s")
        return code


@contextmanager
def started(
    *arguments: str, variables: Mapping[str, str], log: Path, without: Sequence[str] = ()
) -> Iterator[Worker]:
    """Run the command beside the test, and kill it at the end of the block if it still runs.

    Args:
        arguments: of the command line, such as `sync`.
        variables: the whole environment, except PATH and the like.
        log: file to which both outputs are appended.
        without: guards to switch off, each as `module:function`. The worker calls the function
            before the command; it replaces parts of the product's modules.
    """
    process = _CONTEXT.Process(
        target=_work, args=(arguments, dict(variables), str(log), tuple(without)), daemon=True
    )
    process.start()
    worker = Worker(process)
    try:
        yield worker
    finally:
        worker.kill()
        process.close()


def run(
    *arguments: str,
    variables: Mapping[str, str],
    log: Path,
    without: Sequence[str] = (),
    seconds: float = PATIENCE,
) -> int:
    """Run the command to its end, within `seconds`, and return its exit status."""
    with started(*arguments, variables=variables, log=log, without=without) as worker:
        return worker.wait(seconds)


def output_of(log: Path) -> str:
    """Return the output of workers with this log so far, for the messages of failing tests."""
    return log.read_text(errors="replace")[-4000:]
