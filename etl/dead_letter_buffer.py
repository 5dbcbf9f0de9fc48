"""What one answer has set aside, bounded in number and bytes.

The first letters come one by one, with those that are alike as one letter behind each; the others
as one for each reason.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import msgspec

from etl.records import Rejected, RejectionReason

MAX_LETTERS = 100
"""So many are kept one by one, and as many stand for those that are alike: more than anybody looks at."""

MAX_BYTES = 32 * 1024 * 1024
"""The most that the letters of one answer hold. What is larger is hashed whole, and kept as far as this goes."""


class DeadLetterBuffer:
    """Gathers what is set aside of one answer, in memory of at most `MAX_BYTES` and some kilobytes."""

    def __init__(self, found: Iterable[Rejected] = ()) -> None:
        self._letters: list[Rejected] = []
        self._alike: dict[tuple[RejectionReason, str, str | bytes], _Others] = {}
        self._others: dict[tuple[RejectionReason, bool], _Others] = {}
        self._room = MAX_BYTES
        for one in found:
            self.add(one)

    def add(self, rejected: Rejected, *, count: int = 1) -> None:
        """Set aside one element of the answer, or `count` neighbours as one."""
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
        """All of it, in the order in which it came; then the letters that stand for several."""
        alike = (others.letter(key[0]) for key, others in self._alike.items() if others.count)
        return (
            *self._letters,
            *alike,
            *(others.letter(reason) for (reason, _), others in self._others.items()),
        )


def _identity(rejected: Rejected) -> str | bytes:
    """What is the same of two letters that are alike: the id that both are of, else their bytes. A run's id is in the detail."""
    if rejected.step_id is not None:
        return rejected.step_id
    if rejected.reason == "duplicate_id":
        return b""
    return rejected.content_hash or hashlib.blake2b(rejected.body, digest_size=16).digest()


class _Others:
    """Those of one reason that are not kept one by one; `step_id`: where all of them are one step's."""

    def __init__(self, detail: str, step_id: str | None = None) -> None:
        self.count = 0
        self._detail = detail
        self._step_id = step_id
        self._bytes = 0
        self._body = bytearray(b"[")
        self._is_whole = True
        self._hash = hashlib.blake2b(digest_size=16)

    def add(self, rejected: Rejected, count: int, room: int) -> int:
        """Add it; how many bytes of it are kept: an element whole or not at all, and nothing behind one that was left out."""
        self.count += count
        self._bytes += len(rejected.body)
        # Of what was withheld, the hash is keyed.
        self._hash.update(rejected.content_hash or rejected.body)
        self._hash.update(b",")
        if rejected.content_hash is not None and not rejected.body:
            return 0
        element = rejected.body
        if (
            rejected.reason == "not_storable" and self._step_id != rejected.step_id
        ):  # a value that does not say whose it is
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
        detail = f"And {self.count:,} more: {self._detail}"
        if not self._is_whole:
            detail += f" Of their {self._bytes:,} bytes the first {len(self._body) - 1:,} are kept."
        body = bytes(self._body) + b"]" if len(self._body) > 1 else b""
        return Rejected(reason, detail, body, self._step_id, content_hash=self._hash.digest())


def cut(rejected: Rejected) -> Rejected:
    """The same with at most `MAX_BYTES` of its bytes."""
    size = len(rejected.body)
    if size <= MAX_BYTES:
        return rejected
    return msgspec.structs.replace(
        rejected,
        detail=f"{rejected.detail} Of its {size:,} bytes the first {MAX_BYTES:,} are kept.",
        body=rejected.body[:MAX_BYTES],
        content_hash=rejected.content_hash
        or hashlib.blake2b(rejected.body, digest_size=16).digest(),
    )
