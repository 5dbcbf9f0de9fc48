"""The progress of a walk through the run list, and when there is too little to continue."""

from __future__ import annotations

from etl.extract.list_problem import leads_nowhere, outruns_walk

PATIENCE = 30
"""Consecutive responses without progress that a walk may have, plus one for each with progress.

The bound grows with the walk because a walk that searches for its position may have to pass
everything that it has seen.
"""


class WalkProgress:
    """Counts the responses of one walk with and without progress.

    The bound follows from what the list has shown, not from a number of pages.

    A response leads on (is progress) if it shows a run that the walk has not seen yet, behind those
    that it has. Rows that are added at the head, or invented for each response, could go on for
    ever without bringing the walk nearer to the list's end.
    """

    def __init__(self) -> None:
        self.idle = 0
        """Consecutive responses without progress, up to the latest one."""
        self.leading = 0
        """Responses with progress."""
        self._restarts = 0

    def responded(self) -> None:
        """Count a response; until `led_on` is called, it counts as one without progress."""
        self.idle += 1

    def led_on(self) -> None:
        """Note that the last response was progress."""
        self.leading += 1
        self.idle = 0

    def restarted(self) -> None:
        """Note that the walk begins again at the head, because the list moved by over a page."""
        self._restarts += 1

    def problem(self, offset: int, *, too_large: bool) -> str | None:
        """Return in one line why the walk must be given up; None if it may continue.

        Args:
            offset: offset of the last page.
            too_large: whether that page was a row too large to be read.
        """
        if self.idle > self.leading + PATIENCE:
            return leads_nowhere(self.idle, offset, too_large=too_large)
        if self._restarts > PATIENCE + self.leading // 10:
            return outruns_walk(self._restarts)
        return None
