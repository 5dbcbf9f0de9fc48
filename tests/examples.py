"""The number of examples that Hypothesis draws for a property with a number of its own."""

from __future__ import annotations

from hypothesis import settings


def examples(number: int) -> int:
    """Return `number`, or a quarter of it in `make test`, as the profile in `conftest.py` says."""
    return number * settings().max_examples // 100
