"""The walk through a workflow's run list: which page to ask for next, and when enough has been seen.

The list is newest first, has no cursor, grows at its head and may lose rows anywhere while it is
being paged. Four rules keep a walk from losing a run under these conditions, and from going on for
ever:

- Pages overlap, and a page is only accepted if it shares an id with the page accepted before it (the
  frontier): then no row can lie unseen between the two. Otherwise the walk steps back until it does.
- The walk only ends at what *complete* walks have listed (the watermark), never at what merely is known:
  a walk that died has listed the newest runs and left a hole behind them.
- A short page is not the list's end (servers cap pages below the limit asked for); an empty page is, or
  a page that shows nothing but rows of the frontier although it had room for more.
- WalkProgress is what the server shows, not what was asked for: rows that this walk has not seen yet, behind those that it has.
  Rows that are added at the head are no progress. A page that does not lead on is followed by a look at the head: if the
  head does not explain where the page's rows stand, the list does not follow `offset`. A list that leads no further for as
  many answers as it took to see all of it, and some more, is given up (`etl.extract.list_progress`).

An empty head is asked for again if rows are known: by accident, a server may answer `null` or
nothing once.
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

`met`: the watermark was reached. `ended`: the list's end was reached, and nothing can have been
missed. `missed`: the list ended before it showed what is known, so rows may have left it unseen:
record a gap. `cut_off`: `max_pages` were asked for, or the list makes no progress; the walk is not
complete and the watermark must stay where it is.
"""

REPEATS = 3
"""Pages whose rows stand where the head does not explain it, after which a list is taken to do so for ever: some may do so by
chance, because rows were added and removed just then. So often an empty head is asked for, too."""


class RunListWalker:
    """One walk through one workflow's run list; an object without I/O.

    Call `next_page`, ask the server for that page, and answer with exactly one of `receive`,
    `end_of_list` and `too_large`, until `outcome` is set (it is set as soon as the last answer is
    in, so that the last page and the end of the sweep can be committed together; `next_page` then
    gives None).

    Memory is bounded by three pages and 2 MB, whatever the length of the list.

    Attributes:
        outcome: None while the walk goes on.
        problem: how the list behaves otherwise than the API says, in one line; None while it does not.
        listed: rows from the head to the last one that was new to the walk.
        pages: pages asked for so far.
        last_is_listed: False where the last answer only told whether rows were added at the head: the walk does not lead from
            it to the other pages, and its rows must not be taken for listed.
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
            raise ValueError(
                "max_pages, page_size, overlap and watermark_run must be at least 1, watermark_size 0"
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

        self._asked: PageRequest | None = None
        self._progress = WalkProgress()
        self._shown = SeenRows()  # by pages that were accepted,
        self._rows = 0  # so many of them;
        self._walked = SeenRows()  # by those since it last went back;
        self._reached = 0  # the end of the farthest of them
        # the head that was accepted, and the last two answers in place of it
        self._heads: tuple[ListPage, ...] = ()
        # waits for a look at the head: it did not lead on, or shows rows out of place
        self._looks: ListPage | None = None
        self._shift = 0  # so many rows must have been added between the frontier and that page
        # Since a page that led on was accepted:
        self._missing = False  # there was an empty page where rows should have been repeated,
        self._landings = 0  # and behind it pages that showed some of them;
        # a page showed others than should have been repeated;
        self._stranger: PageRequest | None = None
        self._returns = 0  # times that the walk came back to the head;
        self._repeats = 0  # pages that repeated rows though the head does not explain it,
        self._suspicion: str | None = None  # and what that means
        self._offset = 0
        self._limit = page_size
        self._step = 0
        self._frontier: ListPage | None = None
        # accepted once the row before it turns out not to have moved
        self._unproven: ListPage | None = None
        self._largest_page = 0
        self._disordered = False  # rows have changed places: where one stands tells nothing
        self._empty_heads = 0
        # the frontier before a restart that has not met it again
        self._left_behind: frozenset[str] = frozenset()

    def walk_whole_list(self, problem: str, *, max_pages: int) -> None:
        """Do not stop at the watermark after all, because of this problem with the list; `max_pages` in place of those before."""
        self._whole_list = True
        self._max_pages = max_pages
        self.problem = problem

    @property
    def watermark_met(self) -> bool:
        """Whether the walk has come upon the watermark; a walk of the whole list goes on behind it."""
        return self._watermark.was_reached

    @property
    def emptied(self) -> bool:
        """Whether the walk ended at an empty head, though the list has shown rows before, in this walk or an earlier one."""
        return self._empty_heads > 0

    def next_page(self) -> PageRequest | None:
        """The page to ask for, the same one until it is answered; None when the walk is over."""
        if self.outcome is not None:
            return None
        if self._asked is None:
            if self._unproven is not None:
                self._asked = PageRequest(self._unproven.request.offset - 1, 1)
            elif self._looks is not None:
                self._asked = PageRequest(0, self._page_size)
            else:
                self._asked = PageRequest(self._offset, self._limit)
            self.pages += 1
        return self._asked

    def receive(self, rows: Sequence[Row], members: Collection[str]) -> None:
        """Take the page asked for.

        Args:
            rows: the page's run ids in list order, a hash for a row without a usable id.
            members: those of them that belong to the watermark: runs that complete walks have listed. Runs
                known by other means, and those that only this walk has listed, are no members.
        """
        request = self._answered()
        page = ListPage(request, tuple(rows), frozenset(members))
        self._progress.answered()
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
        """The server answered that there is no such page (not of the list's head): it counts as an empty page."""
        self.receive((), ())

    def too_large(self) -> None:
        """The page was too large to be read: ask for half of it, and pass over a row that is too large alone."""
        request = self._answered()
        if self._looks is None and self._unproven is None and request.limit > 1:
            self._limit = request.limit // 2
            self._bound()
            return
        self._progress.answered()
        if self._unproven is not None:
            self._prove(self._frontier is not None and self._frontier.too_large)
        elif self._looks is not None:
            self._looks = None
        else:
            self.skipped_offsets.append(request.offset)
            row = hash(("too large", request.offset))
            self._judge(ListPage(request, (row,), frozenset(), too_large=True))
        self._bound()

    def _answered(self) -> PageRequest:
        if self._asked is None:
            raise RuntimeError("no page was asked for")
        request, self._asked = self._asked, None
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
        """Accept the page if no row can lie unseen before it; else ask for the proof, or step back."""
        frontier, offset = self._frontier, page.request.offset
        if frontier is None or offset == 0 or page.joins(frontier):
            self._accept(page)
        elif offset < frontier.end:
            if page.rows:
                self._stranger = page.request
            elif self._landings > 1 and self._stranger is None and not self._left_behind:
                # Empty a third time, though what lies before it was answered twice meanwhile.
                self._end()
                return
            else:
                self._missing = True
            self._step_back(offset)
        elif not page.rows and len(frontier.rows) == 1 < frontier.request.limit:
            # A server that gives a single row where more were asked for: that is all it has.
            self._accept(page)
        else:
            # Rows too large to be read two at a time leave no room for an overlap. In its place the
            # row before this page is asked for once more: as long as it has not moved, nothing has
            # slipped past.
            self._unproven = page

    def _prove(self, unmoved: bool) -> None:
        """Settle the page that waited for a second look at the row before it."""
        page, self._unproven = self._unproven, None
        if page is not None and unmoved:
            self._accept(page)
        elif page is not None:
            self._step_back(page.request.offset)

    def _look(self, head: ListPage) -> None:
        """Settle the page that did not lead on, or shows rows out of place, by what stands at the head just after it."""
        page, self._looks = self._looks, None
        # The frontier before the page was answered after the head before the last one.
        first, before = self._heads[0], self._heads[-2:][0]
        self._heads = (first, self._heads[-1], head)
        if page is None:
            return
        grown = head.shift_from(before)
        shared = next((row for row in page.usable if row in head.places), None)
        row = page.usable[0] if shared is None else shared
        # So many rows must have been added at the head since the page, if it followed `offset`.
        moved = head.places.get(row, head.end) - page.offset_of(row)
        if shared is not None and moved < 0 and self._progress.leading == 1:
            # Rows that are added only move others away from the head: this one never stood where it
            # was shown. The head is what the list answers at that offset, too.
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
        # Else rows come again because others were added at the head.

    def _count_repeat(self, suspicion: str) -> None:
        """Note a page that the head does not explain; the list has ended where there are several.

        The first one tells what is wrong: a list that goes round repeats the very head later.
        """
        self._suspicion = self._suspicion or suspicion
        self._repeats += 1
        if self._repeats < REPEATS:
            return
        if self._stranger is None:
            self._end()
        else:
            # Rows were listed that the walk does not lead to.
            self._give_up(list_problem.counts_pages(self._stranger.offset))

    def _accept(self, page: ListPage) -> None:
        """Make the page the frontier, and see whether it ends the walk."""
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
            # What comes now may well have been walked before.
            self._walked, self._reached = SeenRows(), 0
        self._shift = (None if self._frontier is None else page.shift_from(self._frontier)) or 0
        if self._frontier is not None and at_head and not page.joins(self._frontier):
            # Thrown back to the head: the walk begins again, and remembers what it should come upon
            # once more.
            self._left_behind = self._left_behind or frozenset(self._frontier.usable)
            self._progress.restarted()
            self._frontier, self._stranger, self._returns = None, None, 0
        frontier = self._frontier
        new_in_walk, new = page.new_to(self._shown), page.new_to(self._walked)
        self._rows += len(new_in_walk)
        # New rows at the head bring the walk no nearer to the list's end.
        leads_on = page.leads_on(frontier, new_in_walk) if frontier is not None else not returned
        known: Set[str] = set() if frontier is None else set(frontier.usable)
        usable = page.usable
        self._watermark.come_upon(page, frontier, new_in_walk)
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
        """Whether the head must tell why the page does not lead on, or shows rows out of place."""
        head = self._heads[-1]
        rows = set(page.usable)
        if not rows or page.request.offset == 0 or self._left_behind or self._disordered:
            return False
        if page.usable[:1] == head.usable[:1] or (
            self._shift < 0 and page.request.offset < len(head.rows)
        ):
            return True
        # Only a page that reaches beyond the one before must show something new.
        return (
            onward
            and not leads_on
            and (known >= rows or set(head.usable) >= rows or self._progress.idle > 1)
        )

    @staticmethod
    def _is_out_of_order(usable: Sequence[str], known: Set[str], new: Set[Row]) -> bool:
        """Whether a row stands between two of the frontier's that has not been seen before."""
        places = [place for place, id in enumerate(usable) if id in known]
        return bool(places) and any(id in new for id in usable[places[0] : places[-1]])

    def _step_back(self, offset: int) -> None:
        """Go back from a page that does not join the frontier, twice as far each time, at last to the list's head."""
        self._step = 2 * self._step or max(
            1, 0 if self._frontier is None else len(self._frontier.rows) // 2
        )
        # Not to the head at once: what stands at offset 1 tells a list that follows `offset` from
        # one that does not.
        self._offset = max(0 if offset <= 1 else 1, offset - self._step)

    def _widen(self) -> None:
        """Recover from `too_large` by a quarter a page: doubling would ask for too much every second time."""
        self._limit = min(self._page_size, self._limit + self._limit // 4 + 1)

    def _end(self) -> None:
        """The list has ended: say whether it showed everything that is newer than the watermark."""
        # Without a watermark, a walk that was thrown back to the head must at least have come upon
        # its own earlier rows again. A list that was not empty before, and now is, shows nothing of
        # what came meanwhile.
        first = not self._left_behind and not self._empty_heads
        complete = self._watermark.shows_nothing_missed(otherwise=first)
        self.problem = self._suspicion or self.problem
        self.outcome = "ended" if complete else "missed"
