"""The number of runs that a poll claims at once."""

from __future__ import annotations

import pytest

from etl.pipeline.due_runs import claim_size


@pytest.mark.parametrize(
    ("claimed", "seconds", "size"),
    [
        (0, 0.0, 20),
        (20, 10.0, 20),
        (20, 0.2, 20),
        (50, 0.2, 50),
        (50, 0.1, 100),
        (100, 0.4, 50),
        (160, 0.05, 160),
        (160, 0.0, 160),
    ],
)
def test_a_claim_takes_what_is_read_in_a_fifth_of_a_second(
    claimed: int, seconds: float, size: int
) -> None:
    """A claim takes 2 to 16 runs for each concurrent read, by the speed of the last reads."""
    assert claim_size(claimed, seconds, 10) == size
