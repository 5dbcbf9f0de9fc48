"""When the computed runs of a history start."""

from __future__ import annotations

from bisect import bisect_right

import msgspec


class Arrivals(msgspec.Struct, frozen=True):
    """The starts of the computed runs of each workflow; times and gaps are in microseconds."""

    seed: int
    epoch: int
    past: int
    """The number of runs at `epoch`."""
    live: int
    """How many of these are in progress at `epoch`."""
    settled: int
    """When the first run after the finished ones would start at their pace."""
    spacing: int
    """Between the starts of two finished runs."""
    live_gap: int
    """Between the starts of two runs that are in progress at `epoch`."""
    arrival_gap: int | None
    """Between the starts of two runs after `epoch`; None: no run starts."""

    def start(self, workflow: int, number: int) -> int:
        """Return when a run starts.

        It grows with the number: the jitter is less than the distance to the next run.
        """
        jitter = (
            ((number * 0x9E3779B1 + workflow * 0x85EBCA77 + self.seed) * 0xC2B2AE3D >> 12 & 0xFFFF)
            / 0x10000
            * 0.8
        )
        since_epoch = number - self.past
        if since_epoch < -self.live:
            return self.settled + int((since_epoch + self.live + jitter) * self.spacing)
        if since_epoch < 0 or self.arrival_gap is None:
            return self.epoch + int((since_epoch + jitter) * self.live_gap)
        return self.epoch + int((since_epoch + jitter) * self.arrival_gap)

    def arrived(self, workflow: int, now: int) -> int:
        """Return how many runs have started."""
        upper = self.past
        if self.arrival_gap is not None and now >= self.epoch:
            upper += (now - self.epoch) // self.arrival_gap + 1
        return bisect_right(range(upper), now, key=lambda number: self.start(workflow, number))

    def has_started(self, workflow: int, number: int, now: int) -> bool:
        """Return whether the run exists and has started."""
        exists = number < self.past or self.arrival_gap is not None
        return exists and self.start(workflow, number) <= now
