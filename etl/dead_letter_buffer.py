"""The dead letters of one response, bounded in number and bytes.

The first `MAX_LETTERS` are kept one by one. The repetitions of each of these are combined into one
more dead letter. All others are combined into one dead letter for each reason; those without their
bytes are combined separately.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import msgspec

from etl.records import Rejected, RejectionReason

MAX_LETTERS = 100
"""Maximum number of dead letters kept one by one; the repetitions of each add one more."""

MAX_BYTES = 32 * 1024 * 1024
"""Maximum bytes kept of one response's dead letters; all other bytes only enter the hashes."""


class DeadLetterBuffer:
    """The dead letters of one response, in `MAX_BYTES` of memory plus a few kilobytes."""

    def __init__(self, found: Iterable[Rejected] = ()) -> None:
        self._letters: list[Rejected] = []
        self._alike: dict[tuple[RejectionReason, str, str | bytes], _Others] = {}
        self._others: dict[tuple[RejectionReason, bool], _Others] = {}
        self._room = MAX_BYTES
        for one in found:
            self.add(one)

    def add(self, rejected: Rejected, *, count: int = 1) -> None:
        """Add the dead letter of one element, or of `count` neighbouring elements."""
        size = len(rejected.body)
        if count == 1:
            key = (rejected.reason, rejected.detail, _identity(rejected))
            if key in self._alike:
                self._room -= self._alike[key].add(rejected, 1, self._room)
                return
            if len(self._letters) < MAX_LETTERS and (size <= self._room or not self._letters):
                self._letters.append(cut(rejected))
                self._alike[key] = _Others(rejected.detail, rejected.step_id)
                self._room = max(0, self._room - size)
                return
        is_withheld = not size and rejected.content_hash is not None
        others = self._others.setdefault((rejected.reason, is_withheld), _Others(rejected.detail))
        self._room -= others.add(rejected, count, self._room)

    def letters(self) -> tuple[Rejected, ...]:
        """Return the dead letters: first those kept one by one, in the response's order."""
        if not self._letters and not self._others:
            return ()
        alike = (others.letter(key[0]) for key, others in self._alike.items() if others.count)
        return (
            *self._letters,
            *alike,
            *(others.letter(reason) for (reason, _), others in self._others.items()),
        )


def _identity(rejected: Rejected) -> str | bytes:
    """Return the key by which dead letters of the same reason and detail are repetitions.

    It is the step id or, without a step id, the hash. For `duplicate_id` without a step id it is
    constant, because the detail already contains the run's id.
    """
    if rejected.step_id is not None:
        return rejected.step_id
    if rejected.reason == "duplicate_id":
        return b""
    return rejected.content_hash or hashlib.blake2b(rejected.body, digest_size=16).digest()


class _Others:
    """Several elements that are combined into one dead letter.

    `step_id` is set if all elements belong to that step.
    """

    def __init__(self, detail: str, step_id: str | None = None) -> None:
        self.count = 0
        self._detail = detail
        self._step_id = step_id
        self._bytes = 0
        self._body = bytearray(b"[")
        self._is_whole = True
        self._hash = hashlib.blake2b(digest_size=16)

    def add(self, rejected: Rejected, count: int, room: int) -> int:
        """Add an element, and return how many bytes of it are kept.

        An element is kept whole or not at all. After the first element that does not fit in `room`
        (in bytes), no other is kept, so the kept bytes are the beginning.
        """
        self.count += count
        self._bytes += len(rejected.body)
        # A withheld body is represented by its keyed hash.
        self._hash.update(rejected.content_hash or rejected.body)
        self._hash.update(b",")
        if rejected.content_hash is not None and not rejected.body:
            return 0
        element = rejected.body
        # The body is a single value, which does not contain the id of its step.
        if rejected.reason == "not_storable" and self._step_id != rejected.step_id:
            element = b'{"step_id":%b,"value":%b}' % (
                msgspec.json.encode(rejected.step_id),
                element,
            )
        self._is_whole = self._is_whole and len(element) < room
        if not self._is_whole:
            return 0
        if len(self._body) > 1:
            self._body += b","
        self._body += element
        return len(element) + 1

    def letter(self, reason: RejectionReason) -> Rejected:
        """Return the combined dead letter."""
        detail = f"And {self.count:,} more: {self._detail}"
        if not self._is_whole:
            detail += (
                f" Only the first {len(self._body) - 1:,} of their {self._bytes:,} bytes are kept."
            )
        body = bytes(self._body) + b"]" if len(self._body) > 1 else b""
        return Rejected(reason, detail, body, self._step_id, content_hash=self._hash.digest())


def cut(rejected: Rejected) -> Rejected:
    """Return the dead letter with at most `MAX_BYTES` of its body."""
    size = len(rejected.body)
    if size <= MAX_BYTES:
        return rejected
    return msgspec.structs.replace(
        rejected,
        detail=f"{rejected.detail} Only the first {MAX_BYTES:,} of its {size:,} bytes are kept.",
        body=rejected.body[:MAX_BYTES],
        content_hash=rejected.content_hash
        or hashlib.blake2b(rejected.body, digest_size=16).digest(),
    )
