"""Pages of a run list as a walk receives them, and the set of rows that it has seen."""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple


class PageRequest(NamedTuple):
    """The query of one page: `offset` rows from the head, at most `limit` rows."""

    offset: int
    limit: int


class SeenRows:
    """The set of rows that were seen, in about 1 MB for any number of rows.

    Up to `_EXACTLY` rows, the set is exact. Beyond that it is a Bloom filter: it may mistake a
    single new row for a seen row, but almost never two pages of new rows.
    """

    _EXACTLY = 10_000
    _BITS = 1 << 23

    def __init__(self) -> None:
        self._rows: set[int] = set()
        self._bits = bytearray()

    def __contains__(self, row: object) -> bool:
        number = hash(row)
        if not self._bits:
            return number in self._rows
        return all(self._bits[bit >> 3] & 1 << (bit & 7) for bit in self._places(number))

    def add(self, row: object) -> None:
        """Note that the row was seen."""
        self._rows.add(hash(row))
        if len(self._rows) > self._EXACTLY or self._bits:
            self._bits = self._bits or bytearray(self._BITS >> 3)
            for number in self._rows:
                for bit in self._places(number):
                    self._bits[bit >> 3] |= 1 << (bit & 7)
            self._rows.clear()

    def _places(self, number: int) -> tuple[int, int]:
        return number % self._BITS, (number >> 32) % self._BITS


Row = str | int
"""A row of the list: the run's id, or the row's hash if it has no usable id."""


@dataclass(frozen=True)
class ListPage:
    """A page of the run list as received."""

    request: PageRequest
    rows: tuple[Row, ...]
    members: frozenset[str]
    """The ids of the page that belong to the watermark."""
    too_large: bool = False
    """The page is a single row that is too large to be read."""

    @property
    def end(self) -> int:
        """Offset of the row after the page's last row."""
        return self.request.offset + len(self.rows)

    @cached_property
    def usable(self) -> list[str]:
        """The page's ids in list order, without duplicates."""
        return [row for row in dict.fromkeys(self.rows) if isinstance(row, str)]

    @cached_property
    def places(self) -> dict[Row, int]:
        """The offset of each row in this response; of a row that occurs twice, the last one."""
        return {row: offset for offset, row in enumerate(self.rows, self.request.offset)}

    def offset_of(self, row: Row) -> int:
        """Return the offset of a row of the page; of a row that occurs twice, the first one."""
        return self.request.offset + self.rows.index(row)

    def new_to(self, seen: SeenRows) -> set[Row]:
        """Return the page's rows that are not in `seen`, and add them to it."""
        rows = {row for row in self.rows if row not in seen}
        for row in rows:
            seen.add(row)
        return rows

    def repeats(self, frontier: ListPage) -> tuple[Row, ...]:
        """Return the rows of the frontier that this page was requested to repeat."""
        return frontier.rows[max(0, self.request.offset - frontier.request.offset) :]

    def leads_on(self, frontier: ListPage, new: Set[Row]) -> bool:
        """Return whether the page ends with a new row behind the frontier's last row.

        New rows before the frontier's last row were added at the head. If that row is missing from
        the page, the server may invent rows for each response. A page that ends with a known row
        belongs to a list that repeats itself. A row without an id counts as progress only behind a
        row without an id.
        """
        repeated = self.repeats(frontier)
        if frontier.too_large or not repeated:
            return bool(new)
        from_row = next((row for row in reversed(repeated) if isinstance(row, str)), repeated[-1])
        to_row = (
            self.rows[-1] if isinstance(from_row, int) else next(reversed(self.usable), from_row)
        )
        return to_row in new and self.places.get(from_row, self.end) < self.places[to_row]

    def joins(self, frontier: ListPage) -> bool:
        """Return whether no unseen row can lie between the frontier and this page.

        If none of the rows to be repeated has a usable id, there is nothing to recognise. The page
        is then trusted; otherwise a walk would never get past such rows.
        """
        repeated = self.repeats(frontier)
        if (
            self.rows
            and repeated
            and not frontier.too_large
            and not any(isinstance(row, str) for row in repeated)
        ):
            return True
        return not set(self.usable).isdisjoint(frontier.usable)

    def shift_from(self, earlier: ListPage) -> int | None:
        """Return by how many rows a shared row is farther from the head than in an earlier page.

        If the server follows both offsets, this is the number of rows added in between, less those
        removed. None if the pages share no row.
        """
        row = next((row for row in self.usable if row in earlier.places), None)
        return None if row is None else self.offset_of(row) - earlier.offset_of(row)
