"""The runs that complete walks have listed, as far as one walk comes upon them again."""

from __future__ import annotations

from collections.abc import Set

from etl.extract.list_page import ListPage, Row


class Watermark:
    """Counts the members of the watermark that a walk's pages show."""

    def __init__(self, size: int, *, enough: int) -> None:
        """`size`: how many members there are, counted up to `enough`, which is how many in a row meet the watermark."""
        self.is_reached = False
        """Whether the rows accepted last end with enough members in a row."""
        self.was_reached = False
        """Whether they ever did."""
        self._size = size
        self._enough = enough
        self._in_a_row = 0
        self._met: set[str] = set()  # distinct members, counted up to `enough`
        self._deepest: str | None = None  # the row that lies farthest behind those at the head
        self._deepest_is_member = False

    def come_upon(self, page: ListPage, frontier: ListPage | None, new: Set[Row]) -> None:
        """Count the members that an accepted page shows.

        Args:
            page: the page.
            frontier: the page that it joins; None: none, or not any more. What is in a row is then counted from the start.
            new: those of its rows that the walk has not shown before.
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
        """Whether a list that has ended showed all that is newer than the watermark; `otherwise`: where there is no watermark."""
        if not self._size:
            return otherwise
        return self._deepest_is_member or len(self._met) >= min(self._enough, self._size)
