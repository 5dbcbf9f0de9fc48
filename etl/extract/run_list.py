"""The walk through a workflow's run list: which page to request next, and when to stop.

The list is newest first and has no cursor. While it is paged, it grows at its head and may lose
rows anywhere. Four rules keep a walk from losing a run under these conditions, and from going on
for ever:

- **Overlap.** Pages overlap, and a page is accepted only if it shares an id with the page accepted
  before it (the *frontier*): then no row can lie unseen between the two. If it shares none, the
  walk steps back until a page does.
- **Watermark.** Before the list's end, the walk stops only at runs that *complete* walks have
  listed (the watermark), not at any known run: a walk that crashed has listed the newest runs and
  left a hole behind them.
- **End of the list.** A short page is not the end, because servers cap pages below the requested
  limit. The end is an empty page, or a page that shows only rows of the frontier although it had
  room for more.
- **Progress.** A response is progress only if it shows rows that this walk has not seen yet, behind
  those that it has. Rows that are added at the head are no progress. After a page without progress,
  the walk looks at the head. If the head does not explain where the page's rows are, the list does
  not follow `offset`. A list without progress for as many responses as it took to see all of it,
  and some more, is given up (`etl.extract.list_progress`).

If the head is empty although runs are known, it is requested again: a server may return `null` or
nothing by accident.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence, Set
from dataclasses import replace
from typing import Literal

from etl.extract import list_problem
from etl.extract.list_page import ListPage, PageRequest, Row, SeenRows
from etl.extract.list_progress import WalkProgress
from etl.extract.list_watermark import Watermark

Outcome = Literal["met", "ended", "missed", "cut_off"]
"""How a walk ended.

- `met`: the walk reached the watermark.
- `ended`: the walk reached the list's end, and no run can have been missed.
- `missed`: the list ended before it showed the known runs, so runs may have left it unseen: record
  a gap.
- `cut_off`: the walk requested `max_pages` pages, or the list makes no progress. The walk is not
  complete, and the watermark must not move.
"""

REPEATS = 3
"""Pages whose rows the head does not explain, after which the list is taken to have ended.

Fewer may be chance, if rows were added and removed at that moment. An empty head is requested as
many times.
"""


class RunListWalker:
    """One walk through one workflow's run list, without I/O.

    Call `next_page`, request that page from the server, and report the response with exactly one of
    `receive`, `end_of_list` and `too_large`. Repeat this until `outcome` is set; `next_page` then
    returns None. The last response sets `outcome` at once, so that the last page and the end of the
    sweep can be committed together.

    Memory is bounded by three pages and 2 MB, for a list of any length.

    Attributes:
        outcome: how the walk ended; None while it goes on.
        problem: how the list deviates from the API's description, in one line; None if it does not.
        listed: rows from the head to the last row that was new to the walk.
        pages: pages requested so far.
        last_is_listed: False if the last response only showed whether rows were added at the head.
            The walk does not connect it to the other pages, so its rows must not count as listed.
        skipped_offsets: offsets at which a single row was too large to be read. Such a run has not
            been listed. The same row can appear twice if the list moved during the walk.
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
                `watermark_run`. 0 if no walk has completed yet.
            max_pages: maximum number of pages to request.
            page_size: rows to request with each page.
            whole_list: do not stop at the watermark.
            overlap: rows that a page repeats of the page before it; at most half a page.
            watermark_run: consecutive members of the watermark that end the walk. A single member
                would suffice in a list that keeps its order; more tolerate rows that change places.

        Raises:
            ValueError: an argument is too small.
        """
        if min(max_pages, page_size, overlap, watermark_run) < 1 or watermark_size < 0:
            raise ValueError(
                "max_pages, page_size, overlap and watermark_run must be at least 1, "
                "watermark_size at least 0"
            )
        self.outcome: Outcome | None = None
        self.problem: str | None = None
        self.listed = 0
        self.pages = 0
        self.last_is_listed = True
        self.skipped_offsets: list[int] = []
        self._watermark = Watermark(watermark_size, enough=watermark_run)
        self._knows_runs = watermark_size > 0
        self._max_pages = max_pages
        self._page_size = page_size
        self._whole_list = whole_list
        self._overlap = overlap

        self._pending_request: PageRequest | None = None
        self._progress = WalkProgress()
        # Rows of all accepted pages, and their number.
        self._shown = SeenRows()
        self._rows = 0
        # Rows of the pages accepted since the walk last went back, and the offset after the
        # farthest of these pages.
        self._walked = SeenRows()
        self._reached = 0
        # The head that was accepted, and the last two later responses to the same request.
        self._heads: tuple[ListPage, ...] = ()
        # A page that waits for a look at the head, because it did not lead on or shows rows out of
        # place.
        self._looks: ListPage | None = None
        # Rows that must have been added between the responses of the frontier and that page.
        self._shift = 0
        # The next six values hold since the last accepted page that led on.
        # Whether a page was empty although it should have repeated rows, and the number of later
        # pages that did show some of these rows.
        self._missing = False
        self._landings = 0
        # The request of a page that showed other rows than those it should have repeated.
        self._stranger: PageRequest | None = None
        # Times that the walk returned to the head.
        self._returns = 0
        # Pages whose repeated rows the head does not explain, and what the first of them means.
        self._repeats = 0
        self._suspicion: str | None = None
        self._offset = 0
        self._limit = page_size
        self._step = 0
        self._frontier: ListPage | None = None
        # A page that is accepted if the row before it has not moved.
        self._unproven: ListPage | None = None
        self._largest_page = 0
        self._disordered = False  # rows have changed places, so that offsets prove nothing
        self._empty_heads = 0
        # The frontier before a restart, until the walk meets one of its rows again.
        self._left_behind: frozenset[str] = frozenset()

    def walk_whole_list(self, problem: str, *, max_pages: int) -> None:
        """Walk to the list's end, past the watermark, because of this problem with the list.

        `max_pages` replaces the previous limit.
        """
        self._whole_list = True
        self._max_pages = max_pages
        self.problem = problem

    @property
    def watermark_met(self) -> bool:
        """Whether the walk has met the watermark; a walk of the whole list continues behind it."""
        return self._watermark.was_reached

    @property
    def emptied(self) -> bool:
        """Whether the head is empty although this or an earlier walk saw rows."""
        return self._empty_heads > 0

    def next_page(self) -> PageRequest | None:
        """Return the page to request; None if the walk is over.

        Until its response is reported, each call returns the same page.
        """
        if self.outcome is not None:
            return None
        if self._pending_request is None:
            if self._unproven is not None:
                self._pending_request = PageRequest(self._unproven.request.offset - 1, 1)
            elif self._looks is not None:
                self._pending_request = PageRequest(0, self._page_size)
            else:
                self._pending_request = PageRequest(self._offset, self._limit)
            self.pages += 1
        return self._pending_request

    def receive(self, rows: Sequence[Row], members: Collection[str]) -> None:
        """Take the rows of the requested page.

        Args:
            rows: the page's run ids in list order, with a hash for each row without a usable id.
            members: those of them that belong to the watermark: runs that complete walks have
                listed. Runs known by other means, and runs that only this walk has listed, are not
                members.
        """
        request = self._take_request()
        page = ListPage(request, tuple(rows), frozenset(members))
        self._progress.responded()
        self.last_is_listed = self._looks is None
        if self._looks is not None:
            self._look(page)
        elif self._unproven is not None:
            frontier = self._frontier
            self._prove(
                frontier is not None
                and not frontier.too_large
                and page.rows[:1] == frontier.rows[-1:]
            )
        else:
            self._judge(page)
        self._bound()

    def end_of_list(self) -> None:
        """Note that the requested page does not exist: it counts as empty. Never for the head."""
        self.receive((), ())

    def too_large(self) -> None:
        """Note that the page was too large to be read: request half of it next.

        A single row that is too large is skipped.
        """
        request = self._take_request()
        if self._looks is None and self._unproven is None and request.limit > 1:
            self._limit = request.limit // 2
            self._bound()
            return
        self._progress.responded()
        if self._unproven is not None:
            self._prove(self._frontier is not None and self._frontier.too_large)
        elif self._looks is not None:
            self._looks = None
        else:
            self.skipped_offsets.append(request.offset)
            row = hash(("too large", request.offset))
            self._judge(ListPage(request, (row,), frozenset(), too_large=True))
        self._bound()

    def _take_request(self) -> PageRequest:
        if self._pending_request is None:
            raise RuntimeError("no page was requested")
        request, self._pending_request = self._pending_request, None
        return request

    def _bound(self) -> None:
        if self.outcome is not None:
            return
        too_large = self._frontier is not None and self._frontier.too_large
        problem = self._progress.problem(self._offset, too_large=too_large)
        if problem is not None:
            self._give_up(problem)
        elif self.pages >= self._max_pages:
            self.outcome = "cut_off"

    def _give_up(self, problem: str) -> None:
        self.problem = problem
        self.outcome = "cut_off"

    def _judge(self, page: ListPage) -> None:
        """Accept the page if no unseen row can lie before it; else seek a proof, or step back."""
        frontier, offset = self._frontier, page.request.offset
        if frontier is None or offset == 0 or page.joins(frontier):
            self._accept(page)
        elif offset < frontier.end:
            if page.rows:
                self._stranger = page.request
            elif self._landings > 1 and self._stranger is None and not self._left_behind:
                # Empty for the third time, although the server returned the rows before it twice
                # in between.
                self._end()
                return
            else:
                self._missing = True
            self._step_back(offset)
        elif not page.rows and len(frontier.rows) == 1 < frontier.request.limit:
            # The server returned a single row although more were requested: it has no more.
            self._accept(page)
        else:
            # Rows too large to be read two at a time leave no room for an overlap. Instead, the
            # walk requests the row before this page again: if it has not moved, no row was missed.
            self._unproven = page

    def _prove(self, unmoved: bool) -> None:
        """Accept the page that waited for a second look at the row before it, or step back."""
        page, self._unproven = self._unproven, None
        if page is not None and unmoved:
            self._accept(page)
        elif page is not None:
            self._step_back(page.request.offset)

    def _look(self, head: ListPage) -> None:
        """Judge a page that did not lead on, or shows rows out of place, by the head after it."""
        page, self._looks = self._looks, None
        # `before` is older than the page's frontier: `grown` includes all rows added since then.
        first, before = self._heads[0], self._heads[-2:][0]
        self._heads = (first, self._heads[-1], head)
        if page is None:
            return
        grown = head.shift_from(before)
        shared = next((row for row in page.usable if row in head.places), None)
        row = page.usable[0] if shared is None else shared
        # If the server follows `offset`, this many rows were added at the head since the page.
        moved = head.places.get(row, head.end) - page.offset_of(row)
        if shared is not None and moved < 0 and self._progress.leading == 1:
            # Added rows only move others away from the head, so this row was never where the page
            # showed it. The list returns its head at that offset, too.
            self._accept(replace(head, request=page.request))
            self._looks, self.last_is_listed, self.listed = None, True, len(head.rows)
            self._count_repeat(
                list_problem.ignores_offset(page.request.offset, shown=len(head.rows))
            )
        elif shared is not None and moved < 0:
            self._count_repeat(list_problem.goes_round(page.request.offset))
        elif grown is not None and moved > grown:
            self._give_up(list_problem.counts_pages(page.request.offset))
        elif (grown is not None and self._shift > grown) or not set(head.usable[:1]).isdisjoint(
            first.usable
        ):
            self._count_repeat(list_problem.goes_round(page.request.offset))
        # Otherwise rows are repeated because others were added at the head.

    def _count_repeat(self, suspicion: str) -> None:
        """Count a page that the head does not explain; `REPEATS` of them end the list.

        The suspicion of the first one is kept, because a list that repeats itself shows its head
        again later.
        """
        self._suspicion = self._suspicion or suspicion
        self._repeats += 1
        if self._repeats < REPEATS:
            return
        if self._stranger is None:
            self._end()
        else:
            # The list showed rows that the walk cannot reach.
            self._give_up(list_problem.counts_pages(self._stranger.offset))

    def _accept(self, page: ListPage) -> None:
        """Make the page the frontier, and end the walk if it is the last one."""
        if not page.rows:
            if page.request.offset == 0 and (self._knows_runs or self._largest_page):
                self._empty_heads += 1
            if self._empty_heads in (0, REPEATS):
                self._end()
            return
        self._empty_heads = 0
        offset, at_head = page.request.offset, page.request.offset == 0
        returned = at_head and bool(self._heads)
        if at_head or self._step:
            # The next pages may repeat rows that the walk has passed.
            self._walked, self._reached = SeenRows(), 0
        self._shift = (None if self._frontier is None else page.shift_from(self._frontier)) or 0
        if self._frontier is not None and at_head and not page.joins(self._frontier):
            # Stepped back to the head without joining the frontier: the walk begins again, and
            # remembers which rows it must meet again.
            self._left_behind = self._left_behind or frozenset(self._frontier.usable)
            self._progress.restarted()
            self._frontier, self._stranger, self._returns = None, None, 0
        frontier = self._frontier
        new_in_walk, new = page.new_to(self._shown), page.new_to(self._walked)
        self._rows += len(new_in_walk)
        # New rows at the head do not bring the walk nearer to the list's end.
        leads_on = page.leads_on(frontier, new_in_walk) if frontier is not None else not returned
        known: Set[str] = set() if frontier is None else set(frontier.usable)
        usable = page.usable
        self._watermark.count(page, frontier, new_in_walk)
        onward, self._reached = page.end > self._reached > 0, max(self._reached, page.end)
        disorder = self._is_out_of_order(usable, known, new_in_walk)
        self._disordered = self._disordered or disorder
        if onward and disorder:
            self.problem = self.problem or list_problem.changes_order(offset)
        if not self._left_behind.isdisjoint(usable):
            self._left_behind = frozenset()
        self._frontier = page
        self._step = 0
        self._largest_page = max(self._largest_page, len(page.rows))
        if at_head:
            self._heads, self.listed = (page,), 0
        if new:
            last = max(at for at, row in enumerate(page.rows, 1) if row in new)
            self.listed = min(max(self.listed, page.request.offset + last), self._rows)
        if leads_on and not disorder and not page.too_large:
            self._progress.led_on()
            self._missing, self._landings = False, 0
            self._stranger, self._returns, self._repeats, self._suspicion = None, 0, 0, None
        elif self._missing:
            self._landings += 1

        nothing_new = bool(usable) and known >= set(usable)
        if nothing_new and len(page.rows) < min(page.request.limit, self._largest_page):
            self._end()
        elif self._watermark.is_reached and not self._whole_list:
            self.outcome = "met"
        elif returned and self._stranger is not None and self._returns:
            self._give_up(list_problem.counts_pages(self._stranger.offset))
        else:
            self._returns += returned
            self._offset = page.end - min(self._overlap, len(page.rows) // 2)
            leads_on_here = frontier is None or page.leads_on(frontier, new)
            if self._is_to_be_looked_at(page, known, leads_on=leads_on_here, onward=onward):
                self._looks = page
            self._widen()

    def _is_to_be_looked_at(
        self, page: ListPage, known: Set[str], *, leads_on: bool, onward: bool
    ) -> bool:
        """Return whether the head must explain the page: it leads nowhere, or is out of place."""
        head = self._heads[-1]
        rows = set(page.usable)
        if not rows or page.request.offset == 0 or self._left_behind or self._disordered:
            return False
        if page.usable[:1] == head.usable[:1] or (
            self._shift < 0 and page.request.offset < len(head.rows)
        ):
            return True
        # Only a page that reaches beyond the page before it must show a new row.
        return (
            onward
            and not leads_on
            and (known >= rows or set(head.usable) >= rows or self._progress.idle > 1)
        )

    @staticmethod
    def _is_out_of_order(usable: Sequence[str], known: Set[str], new: Set[Row]) -> bool:
        """Return whether a row that was not seen before is between two rows of the frontier."""
        seen = [index for index, id in enumerate(usable) if id in known]
        return bool(seen) and any(id in new for id in usable[seen[0] : seen[-1]])

    def _step_back(self, offset: int) -> None:
        """Go back from a page that does not join the frontier.

        Each step is twice as long as the one before it; the last one leads to the list's head.
        """
        self._step = 2 * self._step or max(
            1, 0 if self._frontier is None else len(self._frontier.rows) // 2
        )
        # Offset 1 comes before the head, because its rows show whether the list follows `offset`.
        self._offset = max(0 if offset <= 1 else 1, offset - self._step)

    def _widen(self) -> None:
        """Raise the limit, which `too_large` halves, by a quarter with each page.

        If the limit were doubled, every second request would be too large.
        """
        self._limit = min(self._page_size, self._limit + self._limit // 4 + 1)

    def _end(self) -> None:
        """End the walk at the list's end, which may have come before everything new was shown."""
        # Without a watermark, a walk that began again at the head must at least have met its own
        # earlier rows again. A list that is empty, but was not before, shows none of the runs added
        # in between.
        first = not self._left_behind and not self._empty_heads
        complete = self._watermark.shows_nothing_missed(otherwise=first)
        self.problem = self._suspicion or self.problem
        self.outcome = "ended" if complete else "missed"
