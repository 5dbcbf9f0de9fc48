"""The command in a process of its own, a hundred times a minute: forked from a server that has imported everything.

A start of the interpreter takes a second, most of it imports. Here the real command line runs in a
fork of a process that did nothing but import it: signals, exit statuses, sockets and outputs are
those of a process of its own.
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
"""Seconds in which a worker must end: PostgreSQL ends a stopped worker's transaction, whose locks others wait for, after 60."""

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["tests.faults.preloaded"])


def _work(
    arguments: Sequence[str], variables: Mapping[str, str], log: str, without: Sequence[str]
) -> None:
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    # The forkserver's file objects are the parent's; these are this process's own.
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
        """Its process id."""
        pid: int = self._process.pid
        return pid

    @property
    def status(self) -> int | None:
        """Its exit status; minus the signal's number where one ended it; None while it runs."""
        code: int | None = self._process.exitcode
        return code

    def send(self, number: signal.Signals) -> None:
        """Send it a signal, if it still runs."""
        if self._process.exitcode is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """End it as a power cut would."""
        self.send(signal.SIGKILL)
        self._process.join()

    def wait(self, seconds: float = PATIENCE) -> int:
        """Its exit status, once it has ended by itself.

        Raises:
            TimeoutError: it has not, in so many seconds.
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
    """Run the command beside the test; it is killed at the end of the block where it still runs.

    Args:
        arguments: of the command line, such as `sync`.
        variables: its whole environment, but for PATH and the like.
        log: file to which both its outputs are appended.
        without: guards that it goes without, each as `module:function`; the function is called in the worker before the
            command and replaces what it must in the product's modules.
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
    """Run the command to its end, which must come within so many seconds; its exit status."""
    with started(*arguments, variables=variables, log=log, without=without) as worker:
        return worker.wait(seconds)


def said(log: Path) -> str:
    """What workers with this log have said so far, for messages of tests that fail."""
    return log.read_text(errors="replace")[-4000:]
