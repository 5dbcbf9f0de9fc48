"""Pages of a run list as a walk gets them, and which of their rows it has seen."""

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
    """Rows that were seen, in about 1 MB whatever their number.

    Of the first ones it knows exactly which they are. Beyond, a new row may be taken for one of
    them, hardly ever two pages of new ones.
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
"""A row of the list: its run's id, or a hash of a row without a usable id, by which it is known again."""


@dataclass(frozen=True)
class ListPage:
    """A page as it was received."""

    request: PageRequest
    rows: tuple[Row, ...]
    members: frozenset[str]
    too_large: bool = False
    """The page is a single row that cannot be read; it is known only by that."""

    @property
    def end(self) -> int:
        """Offset of the row after the page's last one."""
        return self.request.offset + len(self.rows)

    @cached_property
    def usable(self) -> list[str]:
        """The page's ids in list order, each once."""
        return [row for row in dict.fromkeys(self.rows) if isinstance(row, str)]

    @cached_property
    def places(self) -> dict[Row, int]:
        """The offset at which each row stands, by this answer; of a row that comes twice, the last one."""
        return {row: offset for offset, row in enumerate(self.rows, self.request.offset)}

    def offset_of(self, row: Row) -> int:
        """The offset at which a row of the page stands; where it comes twice, the first one."""
        return self.request.offset + self.rows.index(row)

    def new_to(self, seen: SeenRows) -> set[Row]:
        """The rows that were not seen before; from now on all of them are."""
        rows = {row for row in self.rows if row not in seen}
        for row in rows:
            seen.add(row)
        return rows

    def repeats(self, frontier: ListPage) -> tuple[Row, ...]:
        """The rows of the frontier that this page was asked to repeat."""
        return frontier.rows[max(0, self.request.offset - frontier.request.offset) :]

    def leads_on(self, frontier: ListPage, new: Set[Row]) -> bool:
        """Whether the page ends with a new row, behind the frontier's last one.

        New rows before that one were added at the head, and where it is gone, the server may make
        up rows for each answer. A page that ends with a known row goes round to it. Rows without an
        id lead on only from each other.
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
        """Whether no row can lie unseen between the frontier and this page.

        Where the rows to be repeated have no usable id between them there is nothing to recognise:
        the page is taken on trust, as a walk that insisted would never get past such rows.
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
        """How many rows farther from the head a row stands here than in an earlier page: if both offsets are followed, so many
        rows were added meanwhile, less those that were removed. None: no row is in both."""
        row = next((row for row in self.usable if row in earlier.places), None)
        return None if row is None else self.offset_of(row) - earlier.offset_of(row)
