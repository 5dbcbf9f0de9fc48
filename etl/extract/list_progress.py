"""What a walk of the run list has come to, and when that is too little to go on."""

from __future__ import annotations

from etl.extract.list_problem import leads_nowhere, outruns_walk

PATIENCE = 30
"""Answers in a row that do not lead on, beyond as many as have done so: to find its place again, a walk may have to pass all
that it has seen."""


class WalkProgress:
    """Counts the answers of one walk. Its bound follows from what the list has shown, not from a number of pages.

    An answer leads on if it shows a run for the first time, and behind those that are known: rows
    that are added at the head, or made up for each answer, can go on for ever without bringing the
    walk nearer to the list's end.
    """

    def __init__(self) -> None:
        self.idle = 0
        """Answers in a row, up to the last one, that did not lead on."""
        self.leading = 0
        """Answers that led on."""
        self._restarts = 0

    def answered(self) -> None:
        """There was an answer; what it is worth is not known yet."""
        self.idle += 1

    def led_on(self) -> None:
        """The last answer led on."""
        self.leading += 1
        self.idle = 0

    def restarted(self) -> None:
        """The walk has to begin again at the head: the list has moved on by more than a page."""
        self._restarts += 1

    def problem(self, offset: int, *, too_large: bool) -> str | None:
        """Why the walk is to be given up, in one line; None: it may go on.

        Args:
            offset: where the last page was.
            too_large: whether it was a row that cannot be read.
        """
        if self.idle > self.leading + PATIENCE:
            return leads_nowhere(self.idle, offset, too_large=too_large)
        if self._restarts > PATIENCE + self.leading // 10:
            return outruns_walk(self._restarts)
        return None
