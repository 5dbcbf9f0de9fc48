"""Pages of a run list as a walk gets them, and which of their rows it has seen."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple


class PageRequest(NamedTuple):
    """The query of one page: `offset` rows from the head, at most `limit` rows."""

    offset: int
    limit: int


class Seen:
    """Rows that were seen, in about 1 MB whatever their number.

    Of the first ones it knows exactly which they are. Beyond, a new row may be taken for one of them, hardly ever two pages of
    new ones.
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


@dataclass(frozen=True)
class Page:
    """A page as it was received; an id of None is a row without a usable id."""

    request: PageRequest
    ids: tuple[str | None, ...]
    members: frozenset[str]
    too_large: bool = False
    """The page is a single row that cannot be read; it is known only by that."""
    shows_new: bool = True
    """Whether a row was on no page before."""
    nameless: tuple[int, ...] = ()
    """A hash of each row without a usable id; none: nothing tells them from each other, and each counts as new."""

    @property
    def end(self) -> int:
        """Offset of the row after the page's last one."""
        return self.request.offset + len(self.ids)

    @cached_property
    def usable(self) -> list[str]:
        """The page's ids in list order, each once."""
        return [id for id in dict.fromkeys(self.ids) if id is not None]

    def new_to(self, seen: Seen) -> tuple[set[str], int]:
        """The ids that were not seen before, and how many rows were not; from now on all of them are."""
        ids = {id for id in self.usable if id not in seen}
        others = {row for row in self.nameless if row not in seen}
        for row in (*ids, *others):
            seen.add(row)
        return ids, len(ids) + (len(others) if self.nameless else self.ids.count(None))

    def leads_on(self, new: set[str]) -> bool:
        """Whether the page shows what lies behind known rows: a new row stands behind one of them, or half of its rows are new.

        A server that ignores `offset` shows only what was added at the head meanwhile, before all that is known.
        """
        places = [place for place, id in enumerate(self.ids) if id is None or id in new]
        known = next((place for place, id in enumerate(self.ids) if id is not None and id not in new), len(self.ids))
        return bool(places) and (places[-1] > known or 2 * len(places) >= len(self.ids))

    def joins(self, frontier: Page) -> bool:
        """Whether no row can lie unseen between the frontier and this page.

        Where the rows to be repeated have no usable id between them there is nothing to recognise: the page is
        taken on trust, as a walk that insisted would never get past such rows.
        """
        repeated = frontier.ids[max(0, self.request.offset - frontier.request.offset) :]
        if self.ids and repeated and not frontier.too_large and not any(id is not None for id in repeated):
            return True
        return not set(self.usable).isdisjoint(frontier.usable)
