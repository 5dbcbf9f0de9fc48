"""Keys of runs, and their ids: keys that are scrambled to look random.

A run's key is (workflow << 36) + number. Keys are below 2**48, so that they fit into the first two
groups of a UUID.
"""

from __future__ import annotations

import uuid

ADDED = 1 << 35
"""Numbers from here on are runs that were added manually."""

_NUMBER_BITS = 36
_KEY_MASK = (1 << 48) - 1
_SCRAMBLE = 0x9E3779B97F4B
_UNSCRAMBLE = pow(_SCRAMBLE, -1, 1 << 48)


def key_of(workflow: int, number: int) -> int:
    """Return the key of a run."""
    return (workflow << _NUMBER_BITS) + number


def parts_of(key: int) -> tuple[int, int]:
    """Return the index of the run's workflow, and the run's number."""
    return key >> _NUMBER_BITS, key & (1 << _NUMBER_BITS) - 1


def id_of(key: int, seed: int) -> str:
    """Return the id of the run with this key, in the history of this seed."""
    value = (key ^ seed & _KEY_MASK) * _SCRAMBLE & _KEY_MASK
    value ^= value >> 24
    value = value * _SCRAMBLE & _KEY_MASK
    tail = value * 0xD6E8FEB86659FD93 & (1 << 80) - 1
    return str(uuid.UUID(int=value << 80 | tail, version=4))


def key_of_id(run_id: str, seed: int) -> int | None:
    """Return the key of the run with this id; None if no run can have it."""
    try:
        value = int(run_id.replace("-", "")[:12], 16)
    except ValueError:
        return None
    value = value * _UNSCRAMBLE & _KEY_MASK
    value ^= value >> 24
    key = value * _UNSCRAMBLE & _KEY_MASK ^ seed & _KEY_MASK
    return key if id_of(key, seed) == run_id else None
