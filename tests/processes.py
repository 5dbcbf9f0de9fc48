"""The command in its own process, forked from a server that has imported everything.

A start of the interpreter takes a second of work, most of it for imports. Here the real command
line runs in a fork of a process that only imported it. Signals, exit statuses, standard streams and
sockets are those of a separate process. `fresh=True` starts a new interpreter instead, for the few
tests that need one.
"""

from __future__ import annotations

import importlib
import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from multiprocessing import reduction
from typing import Any, Protocol

Environment = Mapping[str, str]

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["tests.preloaded"])


class _Descriptor:
    """A file descriptor on its way to a forked process, which gets its own copy."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __reduce__(self) -> tuple[Any, ...]:
        return _arrived, (reduction.DupFd(self.number),)


def _arrived(duplicate: Any) -> _Descriptor:
    return _Descriptor(duplicate.detach())


def _work(
    arguments: Sequence[str], environment: Environment, streams: Sequence[_Descriptor]
) -> None:
    for standard, descriptor in enumerate(streams):
        os.dup2(descriptor.number, standard)
        os.close(descriptor.number)
    # The server's file objects belong to the test; these belong to the process, in its locale.
    sys.stdin = os.fdopen(0, encoding="utf-8", closefd=False)
    sys.stdout = os.fdopen(1, "w", encoding="utf-8", closefd=False)
    sys.stderr = os.fdopen(
        2, "w", encoding="utf-8", errors="backslashreplace", buffering=1, closefd=False
    )
    os.environ.clear()
    os.environ.update(environment)
    time.tzset()
    # The tests may run under `nohup`, which ignores SIGHUP, or with `&`, which ignores SIGINT.
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.argv = ["orchestra-etl", *arguments]
    importlib.import_module("etl.cli").main()


class Process(Protocol):
    """A running command: the common interface of `subprocess.Popen` and a forked command."""

    stdout: Any
    stderr: Any

    @property
    def pid(self) -> int:
        """The process id."""

    def poll(self) -> int | None:
        """Return the exit status, the negative number of the signal, or None while it runs."""

    def wait(self, timeout: float | None = None) -> int:
        """Wait until it ends, and return its exit status.

        Raises:
            subprocess.TimeoutExpired: after `timeout` seconds.
        """

    def send_signal(self, sig: int) -> None:
        """Send a signal if it still runs."""

    def terminate(self) -> None:
        """Send SIGTERM."""

    def kill(self) -> None:
        """Send SIGKILL."""


def environment_of(variables: Environment) -> dict[str, str]:
    """Return a command's whole environment: these variables, and what every process has."""
    kept = {
        name: os.environ[name] for name in ("PATH", "HOME", "LANG", "TMPDIR") if name in os.environ
    }
    return {**kept, **variables}


def run(
    *arguments: str, variables: Environment, input: str | bytes = "", fresh: bool = False
) -> subprocess.CompletedProcess[str]:
    """Run the command to its end, which must come within four minutes."""
    given = input.encode() if isinstance(input, str) else input
    with (
        tempfile.TemporaryFile() as stdin,
        tempfile.TemporaryFile() as stdout,
        tempfile.TemporaryFile() as stderr,
    ):
        stdin.write(given)
        stdin.seek(0)
        process = _start(
            arguments, variables, fresh, stdin.fileno(), stdout.fileno(), stderr.fileno()
        )
        try:
            status = process.wait(240)
        finally:
            process.kill()
            process.wait()
        stdout.seek(0)
        stderr.seek(0)
        return subprocess.CompletedProcess(
            arguments, status, stdout.read().decode(), stderr.read().decode()
        )


@contextmanager
def started_on(terminal: int, *arguments: str, variables: Environment) -> Iterator[Process]:
    """Run the command like `started`, with a terminal's descriptor for all its streams."""
    process = _start(arguments, variables, False, terminal, terminal, terminal)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


@contextmanager
def started(*arguments: str, variables: Environment, fresh: bool = False) -> Iterator[Process]:
    """Run the command beside the test, and kill it at the end of the block if it still runs."""
    with open(os.devnull, "rb") as stdin:
        (out, stdout), (err, stderr) = os.pipe(), os.pipe()
        try:
            process = _start(arguments, variables, fresh, stdin.fileno(), stdout, stderr)
        finally:
            os.close(stdout)
            os.close(stderr)
    process.stdout, process.stderr = os.fdopen(out), os.fdopen(err)
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
        process.stderr.close()


def _start(arguments: Sequence[str], variables: Environment, fresh: bool, *streams: int) -> Process:
    environment = environment_of(variables)
    if fresh:
        stdin, stdout, stderr = streams
        return subprocess.Popen(
            [sys.executable, "-m", "etl", *arguments],
            env=environment, stdin=stdin, stdout=stdout, stderr=stderr, text=True,
        )  # fmt: skip
    return _Forked(arguments, environment, streams)


class _Forked:
    """A command forked from the server, with the interface of `subprocess.Popen`."""

    stdout: Any = None
    stderr: Any = None

    def __init__(
        self, arguments: Sequence[str], environment: Environment, streams: Sequence[int]
    ) -> None:
        self._process = _CONTEXT.Process(
            target=_work,
            args=(arguments, environment, [_Descriptor(number) for number in streams]),
            daemon=True,
        )
        self._process.start()

    @property
    def pid(self) -> int:
        number: int | None = self._process.pid
        assert number is not None
        return number

    def poll(self) -> int | None:
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        self._process.join(timeout)
        status = self.poll()
        if status is None:
            raise subprocess.TimeoutExpired("orchestra-etl", timeout or 0.0)
        return status

    def send_signal(self, sig: int) -> None:
        if self.poll() is None:
            # The fork server may not have reported yet that the process has ended.
            with suppress(ProcessLookupError):
                os.kill(self.pid, sig)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)
