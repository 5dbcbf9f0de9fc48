"""Two connected network namespaces, in which a single connection can lose every packet."""

from __future__ import annotations

import ctypes
import os
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TypeVar

import pytest

T = TypeVar("T")

NEAR, FAR = "10.255.255.1", "10.255.255.2"
VARIABLE = "FAULT_NETWORK"
_CLONE_NEWNET = 0x40000000


def enter() -> None:
    """Move this thread into the namespace that the environment names.

    Workers call it too, as the first function of `without`.
    """
    _enter(os.environ[VARIABLE])


def _enter(path: str) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        if ctypes.CDLL(None, use_errno=True).setns(descriptor, _CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), "setns")
    finally:
        os.close(descriptor)


class Cable:
    """Both ends of the cable, each a process that keeps its namespace alive."""

    def __init__(self, near: int, far: int) -> None:
        self._near = near
        self._far = far
        self.near = f"/proc/{near}/ns/net"

    def plug(self) -> None:
        """Connect the two namespaces, and put rules about single connections before all others."""
        for pid in (self._near, self._far):
            _ip(pid, "link set lo up")
        _ip(self._near, f"link add near type veth peer name far netns {self._far}")
        for pid, name, address in ((self._near, "near", NEAR), (self._far, "far", FAR)):
            _ip(pid, f"addr add {address}/30 dev {name}")
            _ip(pid, f"link set {name} up")
        _ip(self._far, "rule add pref 100 lookup local")
        _ip(self._far, "rule del pref 0")

    def lose(self, port: int) -> None:
        """Drop every packet that reaches the far end from this port of the near end."""
        _ip(self._far, f"rule add pref 50 from {NEAR} ipproto tcp sport {port} blackhole")

    def at_far_end(self, work: Callable[[], T]) -> T:
        """Run `work` in the far namespace; its sockets and threads stay there."""
        return _inside(f"/proc/{self._far}/ns/net", work)

    def at_near_end(self, work: Callable[[], T]) -> T:
        """Run `work` in the near namespace; its sockets and threads stay there."""
        return _inside(self.near, work)


def listener() -> socket.socket:
    """Return a socket that listens on the far end's address; call it in the far namespace."""
    made = socket.socket()
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    made.bind((FAR, 5432))
    return made


@contextmanager
def cable() -> Iterator[Cable]:
    """Provide two namespaces for the block; skip the test if they cannot be created."""
    with ExitStack() as kept:
        try:
            near, far = (_namespace(kept) for _ in range(2))
            found = Cable(near, far)
            found.plug()
        except (OSError, subprocess.CalledProcessError):
            pytest.skip(
                "cannot create network namespaces or rules in them here: they need root and `ip`"
            )
        yield found


def _namespace(kept: ExitStack) -> int:
    # The process prints a line once the namespace exists.
    process = subprocess.Popen(
        ["unshare", "--net", "sh", "-c", "echo made; exec sleep 600"], stdout=subprocess.PIPE
    )
    kept.callback(process.wait)
    kept.callback(process.kill)
    if process.stdout is not None:
        made = process.stdout.readline()
        process.stdout.close()
        if not made:
            raise OSError("no namespace")
    return process.pid


def _ip(pid: int, arguments: str) -> None:
    subprocess.run(
        ["nsenter", "-t", str(pid), "-n", "ip", *arguments.split()], check=True, capture_output=True
    )


def _inside(path: str, work: Callable[[], T]) -> T:
    results: list[T] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            _enter(path)
            results.append(work())
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    return results[0]
