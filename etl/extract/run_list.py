"""The walk through a workflow's run list: which page to ask for next, and when enough has been seen.

The list is newest first, has no cursor, grows at its head and may lose rows anywhere while it is being
paged. Three rules keep a walk from losing a run under these conditions:

- Pages overlap, and a page is only accepted if it shares an id with the page accepted before it (the
  frontier): then no row can lie unseen between the two. Otherwise the walk steps back until it does.
- The walk only ends at what *complete* walks have listed (the watermark), never at what merely is known:
  a walk that died has listed the newest runs and left a hole behind them.
- A short page is not the list's end (servers cap pages below the limit asked for); an empty page is, or
  a page that shows nothing but rows of the frontier although it had room for more.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, NamedTuple

Outcome = Literal["met", "ended", "missed", "cut_off"]
"""How a walk ended.

`met`: the watermark was reached. `ended`: the list's end was reached, and nothing can have been missed.
`missed`: the list ended before it showed what is known, so rows may have left it unseen: record a gap.
`cut_off`: `max_pages` were asked for, or the server would not show what lies behind the head; the walk is not complete and the
watermark must stay where it is.
"""

MAX_REFUSALS = 30
"""Refused pages of a whole walk. The end of a list takes one, or a few where the list shrinks just then; a server that has a head
and refuses all that should lie behind it would be asked for ever."""


class PageRequest(NamedTuple):
    """The query of one page: `offset` rows from the head, at most `limit` rows."""

    offset: int
    limit: int


@dataclass(frozen=True)
class _Page:
    """A page as it was received; an id of None is a row without a usable id."""

    request: PageRequest
    ids: tuple[str | None, ...]
    members: frozenset[str]
    too_large: bool = False
    """The page is a single row that cannot be read; it is known only by that."""

    @property
    def end(self) -> int:
        """Offset of the row after the page's last one."""
        return self.request.offset + len(self.ids)

    @cached_property
    def usable(self) -> list[str]:
        """The page's ids in list order, each once."""
        return [id for id in dict.fromkeys(self.ids) if id is not None]

    def joins(self, frontier: _Page) -> bool:
        """Whether no row can lie unseen between the frontier and this page.

        Where the rows to be repeated have no usable id between them there is nothing to recognise: the page is
        taken on trust, as a walk that insisted would never get past such rows.
        """
        repeated = frontier.ids[max(0, self.request.offset - frontier.request.offset) :]
        if self.ids and repeated and not frontier.too_large and not any(id is not None for id in repeated):
            return True
        return not set(self.usable).isdisjoint(frontier.usable)


class RunListWalker:
    """One walk through one workflow's run list; an object without I/O.

    Call `next_page`, ask the server for that page, and answer with exactly one of `receive`, `end_of_list`
    and `too_large`, until `outcome` is set (it is set as soon as the last answer is in, so that the last
    page and the end of the sweep can be committed together; `next_page` then gives None).

    Memory is bounded by two pages, whatever the length of the list.

    Attributes:
        outcome: None while the walk goes on.
        watermark_met: whether the walk has come upon the watermark; a walk of the whole list goes on behind it.
        pages: pages asked for so far.
        skipped_offsets: where a single row was too large to be read; such a run has not been listed. The
            same row can appear twice if the list moved under the walk.
    """

    def __init__(
        self,
        *,
        watermark_size: int,
        max_pages: int,
        page_size: int = 100,
        whole_list: bool = False,
        overlap: int = 5,
        watermark_run: int = 25,
    ) -> None:
        """Start at the head of the list.

        Args:
            watermark_size: number of runs that complete walks have listed; counting may stop at
                `watermark_run`. 0 where no walk has completed yet.
            max_pages: pages asked for, at most.
            page_size: rows asked for a page.
            whole_list: do not stop at the watermark.
            overlap: rows that a page repeats of the one before it (half a page, at most).
            watermark_run: consecutive members of the watermark that end the walk. One would do on a list
                that keeps its order; more tolerate rows that change places.

        Raises:
            ValueError: a number is too small to walk with.
        """
        if min(max_pages, page_size, overlap, watermark_run) < 1 or watermark_size < 0:
            raise ValueError("max_pages, page_size, overlap and watermark_run must be at least 1, watermark_size 0")
        self.outcome: Outcome | None = None
        self.watermark_met = False
        self.pages = 0
        self.skipped_offsets: list[int] = []
        self._watermark_size = watermark_size
        self._max_pages = max_pages
        self._page_size = page_size
        self._whole_list = whole_list
        self._overlap = overlap
        self._watermark_run = watermark_run

        self._asked: PageRequest | None = None
        self._refusals = 0
        self._offset = 0
        self._limit = page_size
        self._step = 0
        self._frontier: _Page | None = None
        self._unproven: _Page | None = None  # accepted once the row before it turns out not to have moved
        self._largest_page = 0
        self._run = 0  # consecutive members, ending with the frontier's last row
        self._met: set[str] = set()  # distinct members seen, counted up to watermark_run
        self._last_is_member = False
        self._left_behind: frozenset[str] = frozenset()  # the frontier before a restart that has not met it again

    @property
    def last_page_short(self) -> bool:
        """Whether the last accepted page was shorter than asked: then a 400 or 404 to the next one means the end."""
        return self._frontier is not None and len(self._frontier.ids) < self._frontier.request.limit

    def next_page(self) -> PageRequest | None:
        """The page to ask for, the same one until it is answered; None when the walk is over."""
        if self.outcome is not None:
            return None
        if self._asked is None:
            if self._unproven is not None:
                self._asked = PageRequest(self._unproven.request.offset - 1, 1)
            else:
                self._asked = PageRequest(self._offset, self._limit)
            self.pages += 1
        return self._asked

    def receive(self, ids: Sequence[str | None], members: Collection[str]) -> None:
        """Take the page asked for.

        Args:
            ids: the page's run ids in list order, None for a row without a usable id.
            members: those of them that belong to the watermark: runs that complete walks have listed. Runs
                known by other means, and those that only this walk has listed, are no members.
        """
        request = self._answered()
        if self._unproven is None:
            self._judge(_Page(request, tuple(ids), frozenset(members)))
        else:
            frontier = self._frontier
            self._prove(frontier is not None and not frontier.too_large and tuple(ids[:1]) == frontier.ids[-1:])
        self._bound()

    def end_of_list(self) -> None:
        """The server answered that there is no such page: a 400 or 404, not for the list's head, while `last_page_short` holds.

        That counts as an empty page: the end, or, where it should repeat rows of the page before, a step back.
        """
        self._refusals += 1
        self.receive((), ())

    def too_large(self) -> None:
        """The page was too large to be read: ask for half of it, and pass over a row that is too large alone."""
        request = self._answered()
        if self._unproven is not None:
            self._prove(self._frontier is not None and self._frontier.too_large)
        elif request.limit > 1:
            self._limit = request.limit // 2
        else:
            self.skipped_offsets.append(request.offset)
            self._judge(_Page(request, (None,), frozenset(), too_large=True))
        self._bound()

    def _answered(self) -> PageRequest:
        if self._asked is None:
            raise RuntimeError("no page was asked for")
        request, self._asked = self._asked, None
        return request

    def _bound(self) -> None:
        if self.outcome is None and (self.pages >= self._max_pages or self._refusals > MAX_REFUSALS):
            self.outcome = "cut_off"

    def _judge(self, page: _Page) -> None:
        """Accept the page if no row can lie unseen before it; else ask for the proof, or step back."""
        frontier, offset = self._frontier, page.request.offset
        if frontier is None or offset == 0 or page.joins(frontier):
            self._accept(page)
        elif offset < frontier.end:
            self._step_back(offset)
        elif len(frontier.ids) == 1 < frontier.request.limit:
            # A server that gives a single row where more were asked for: mostly, that is all it has.
            self._accept(page)
        else:
            # Rows too large to be read two at a time leave no room for an overlap. In its place the row before
            # this page is asked for once more: as long as it has not moved, nothing has slipped past.
            self._unproven = page

    def _prove(self, unmoved: bool) -> None:
        """Settle the page that waited for a second look at the row before it."""
        page, self._unproven = self._unproven, None
        if page is not None and unmoved:
            self._accept(page)
        elif page is not None:
            self._step_back(page.request.offset)

    def _accept(self, page: _Page) -> None:
        """Make the page the frontier, and see whether it ends the walk."""
        if not page.ids:
            self._end()
            return
        if self._frontier is not None and page.request.offset == 0 and not page.joins(self._frontier):
            # Thrown back to the head: the walk begins again, and remembers what it should come upon once more.
            self._left_behind = self._left_behind or frozenset(self._frontier.usable)
            self._frontier = None
        known = set() if self._frontier is None else set(self._frontier.usable)
        usable = page.usable
        self._count_members(page, known)
        if usable:
            self._last_is_member = usable[-1] in page.members
        if not self._left_behind.isdisjoint(usable):
            self._left_behind = frozenset()
        self._frontier = page
        self._step = 0
        self._largest_page = max(self._largest_page, len(page.ids))

        self.watermark_met = self.watermark_met or self._run >= self._watermark_run
        nothing_new = bool(usable) and known.issuperset(usable)
        if nothing_new and len(page.ids) < min(page.request.limit, self._largest_page):
            self._end()
        elif self._run >= self._watermark_run and not self._whole_list:
            self.outcome = "met"
        else:
            self._offset = page.end - min(self._overlap, len(page.ids) // 2)
            self._widen()

    def _count_members(self, page: _Page, known: set[str]) -> None:
        """Continue the run of consecutive members behind the frontier's last row, or begin anew where that is gone."""
        frontier = self._frontier
        if frontier is None or not (
            page.request.offset >= frontier.end or set(frontier.usable[-1:]) <= set(page.usable)
        ):
            self._run, known = 0, set()
        for id in page.usable:
            if id in page.members and len(self._met) < self._watermark_run:
                self._met.add(id)
            if id not in known:
                self._run = self._run + 1 if id in page.members else 0

    def _step_back(self, offset: int) -> None:
        """Go back from a page that does not join the frontier, twice as far each time, at last to the list's head."""
        self._step = 2 * self._step or max(1, 0 if self._frontier is None else len(self._frontier.ids) // 2)
        self._offset = max(0, offset - self._step)

    def _widen(self) -> None:
        """Recover from `too_large` by a quarter a page: doubling would ask for too much every second time."""
        self._limit = min(self._page_size, self._limit + self._limit // 4 + 1)

    def _end(self) -> None:
        """The list has ended: say whether it showed everything that is newer than the watermark."""
        if self._largest_page == 0:
            complete = True  # an empty list proves nothing, and shows nothing that could have been missed
        elif self._watermark_size:
            enough = min(self._watermark_run, self._watermark_size)
            complete = self._last_is_member or len(self._met) >= enough
        else:
            # Nothing is known from before; but a walk that was thrown back to the head must at least have
            # come upon its own earlier rows again.
            complete = not self._left_behind
        self.outcome = "ended" if complete else "missed"
