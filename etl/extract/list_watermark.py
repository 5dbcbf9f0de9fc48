"""How far a walk has met the watermark: the runs that complete walks have listed."""

from __future__ import annotations

from collections.abc import Set

from etl.extract.list_page import ListPage, Row


class Watermark:
    """Counts the members of the watermark that a walk's pages show."""

    def __init__(self, size: int, *, enough: int) -> None:
        """Begin with no member met.

        Args:
            size: number of members; counting may stop at `enough`.
            enough: number of consecutive members that meet the watermark.
        """
        self.is_reached = False
        """Whether the rows accepted so far end with `enough` consecutive members."""
        self.was_reached = False
        """Whether they ever did."""
        self._size = size
        self._enough = enough
        self._in_a_row = 0
        self._met: set[str] = set()  # distinct members, up to `enough`
        self._deepest: str | None = None  # the row farthest from the head
        self._deepest_is_member = False

    def count(self, page: ListPage, frontier: ListPage | None, new: Set[Row]) -> None:
        """Count the members that an accepted page shows.

        Args:
            page: the page.
            frontier: the page that it joins. If None, the count of consecutive members begins at 0.
            new: those of its rows that the walk has not seen before.
        """
        known = set() if frontier is None else set(frontier.usable)
        if frontier is None or not (
            page.request.offset >= frontier.end or set(frontier.usable[-1:]) <= set(page.usable)
        ):
            self._in_a_row, known = 0, set()
        for id in page.usable:
            if id in page.members and len(self._met) < self._enough:
                self._met.add(id)
            if id not in known:
                self._in_a_row = self._in_a_row + 1 if id in page.members else 0
        last = next(reversed(page.usable), None)
        if last is not None and (frontier is None or last in new or self._deepest in page.usable):
            self._deepest, self._deepest_is_member = last, last in page.members
        self.is_reached = self._in_a_row >= self._enough
        self.was_reached = self.was_reached or self.is_reached

    def shows_nothing_missed(self, *, otherwise: bool) -> bool:
        """Return whether a list that has ended showed all runs newer than the watermark.

        Without a watermark, return `otherwise`.
        """
        if not self._size:
            return otherwise
        return self._deepest_is_member or len(self._met) >= min(self._enough, self._size)
