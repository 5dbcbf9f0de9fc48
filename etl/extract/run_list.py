"""The walk through a workflow's run list: which page to ask for next, and when enough has been seen.

The list is newest first, has no cursor, grows at its head and may lose rows anywhere while it is being
paged. Four rules keep a walk from losing a run under these conditions, and from going on for ever:

- Pages overlap, and a page is only accepted if it shares an id with the page accepted before it (the
  frontier): then no row can lie unseen between the two. Otherwise the walk steps back until it does.
- The walk only ends at what *complete* walks have listed (the watermark), never at what merely is known:
  a walk that died has listed the newest runs and left a hole behind them.
- A short page is not the list's end (servers cap pages below the limit asked for); an empty page is, or
  a page that shows nothing but rows of the frontier although it had room for more.
- Progress is what the server shows, not what was asked for: a row that this walk has not seen yet, behind rows that it
  has seen. A page without a new row is followed by a look at the head; where nothing was added there, the list repeats
  itself, and has ended. A list that leads no further for as many answers as it took to see all of it, and some more, is
  given up.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence, Set
from dataclasses import replace
from typing import Literal

from etl.extract.list_page import Page, PageRequest, Seen

Outcome = Literal["met", "ended", "missed", "cut_off"]
"""How a walk ended.

`met`: the watermark was reached. `ended`: the list's end was reached, and nothing can have been missed.
`missed`: the list ended before it showed what is known, so rows may have left it unseen: record a gap.
`cut_off`: `max_pages` were asked for, or the list makes no progress; the walk is not complete and the watermark must stay where
it is.
"""

PATIENCE = 30
"""Answers in a row that do not lead on, beyond as many as have done so: to find its place again, a walk may have to pass all
that it has seen."""

REPEATS = 3
"""Pages that repeat rows while nothing was added at the head, after which a list is taken to do so for ever. Some may do so by
chance: rows were added and removed just then."""


class RunListWalker:
    """One walk through one workflow's run list; an object without I/O.

    Call `next_page`, ask the server for that page, and answer with exactly one of `receive`, `end_of_list`
    and `too_large`, until `outcome` is set (it is set as soon as the last answer is in, so that the last
    page and the end of the sweep can be committed together; `next_page` then gives None).

    Memory is bounded by three pages and 2 MB, whatever the length of the list.

    Attributes:
        outcome: None while the walk goes on.
        problem: how the list behaves otherwise than the API says, in one line; None while it does not.
        listed: rows from the head to the last one that was new to the walk.
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
        self.problem: str | None = None
        self.listed = 0
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
        self._shown = Seen()  # by any answer of the walk
        self._walked = Seen()  # by pages that were accepted since it last went back;
        self._reached = 0  # the end of the farthest of them
        self._rows = 0  # that were shown, each once
        self._new_answers = 0  # those that showed a row for the first time
        self._idle_answers = 0  # those in a row, up to the last one, that did not
        self._head: Page | None = None
        self._grown = False  # since that was the head, rows were added to it: rows come again for that reason
        self._restarts = 0  # times that the walk had to begin again at the head
        self._looks: Page | None = None  # waits for a look at the head: it showed nothing new
        # Since a page with a new row was accepted:
        self._missing = False  # there was an empty page where rows should have been repeated,
        self._landings = 0  # and behind it pages that showed some of them;
        self._stranger: PageRequest | None = None  # a page showed others than should have been repeated;
        self._returns = 0  # times that the walk came back to the head;
        self._repeats = 0  # pages that repeated rows though none was added at the head,
        self._suspicion: str | None = None  # and what that means
        self._offset = 0
        self._limit = page_size
        self._step = 0
        self._frontier: Page | None = None
        self._unproven: Page | None = None  # accepted once the row before it turns out not to have moved
        self._largest_page = 0
        self._run = 0  # consecutive members, ending with the frontier's last row
        self._met: set[str] = set()  # distinct members seen, counted up to watermark_run
        self._last_is_member = False
        self._left_behind: frozenset[str] = frozenset()  # the frontier before a restart that has not met it again

    def walk_whole_list(self, problem: str, *, max_pages: int) -> None:
        """Do not stop at the watermark after all, because of this problem with the list; `max_pages` in place of those before."""
        self._whole_list = True
        self._max_pages = max_pages
        self.problem = problem

    @property
    def looks_at_head(self) -> bool:
        """Whether the page asked for only tells whether rows were added at the head.

        The walk does not lead from that page to the others: its rows must not be taken for listed.
        """
        return self._looks is not None and self._unproven is None

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

    def receive(self, ids: Sequence[str | None], members: Collection[str], nameless: Sequence[int] = ()) -> None:
        """Take the page asked for.

        Args:
            ids: the page's run ids in list order, None for a row without a usable id.
            members: those of them that belong to the watermark: runs that complete walks have listed. Runs
                known by other means, and those that only this walk has listed, are no members.
            nameless: a hash of each row without a usable id, by which it is known again; none: each counts as new.
        """
        request = self._answered()
        page = Page(request, tuple(ids), frozenset(members), nameless=tuple(nameless))
        if self._looks is not None:
            self._count(0)
            self._look(page)
            self._bound()
            return
        new_ids, new_rows = page.new_to(self._shown)
        page = replace(page, shows_new=new_rows > 0)
        self._count(new_rows, leads_on=request.offset == 0 or page.leads_on(new_ids))
        if self._unproven is not None:
            frontier = self._frontier
            self._prove(frontier is not None and not frontier.too_large and tuple(ids[:1]) == frontier.ids[-1:])
        else:
            self._judge(page)
        self._bound()

    def end_of_list(self) -> None:
        """The server answered that there is no such page (not of the list's head): it counts as an empty page."""
        self.receive((), ())

    def too_large(self) -> None:
        """The page was too large to be read: ask for half of it, and pass over a row that is too large alone."""
        request = self._answered()
        if self._unproven is not None:
            self._count(0)
            self._prove(self._frontier is not None and self._frontier.too_large)
        elif self._looks is not None:
            self._count(0)
            self._looks = None
        elif request.limit > 1:
            self._limit = request.limit // 2
        else:
            self._idle_answers += 1
            self._rows += 1
            self.skipped_offsets.append(request.offset)
            self._judge(Page(request, (None,), frozenset(), too_large=True))
        self._bound()

    def _answered(self) -> PageRequest:
        if self._asked is None:
            raise RuntimeError("no page was asked for")
        request, self._asked = self._asked, None
        return request

    def _count(self, new_rows: int, *, leads_on: bool = True) -> None:
        advances = new_rows > 0 and leads_on
        self._rows += new_rows
        self._new_answers += advances
        self._idle_answers = 0 if advances else self._idle_answers + 1

    def _bound(self) -> None:
        if self.outcome is not None:
            return
        if self._idle_answers > self._new_answers + PATIENCE:
            too_large = self._frontier is not None and self._frontier.too_large
            why = "changes faster than it can be walked, or does not follow `offset`"
            self._give_up(
                f"{self._idle_answers} answers in a row, the last at offset {self._offset:,}, led to no further run: "
                f"the list {'has rows larger than api.max_response_bytes' if too_large else why}"
            )
        elif self._restarts > PATIENCE + self._new_answers // 10:
            # Each answer shows new runs, and none leads on: as on a list that makes an id for each answer.
            self._give_up(
                f"the walk had to begin again {self._restarts} times: the list grows faster than it can be walked, or gives "
                "runs other ids in each answer"
            )
        elif self.pages >= self._max_pages:
            self.outcome = "cut_off"

    def _give_up(self, problem: str) -> None:
        self.problem = problem
        self.outcome = "cut_off"

    def _judge(self, page: Page) -> None:
        """Accept the page if no row can lie unseen before it; else ask for the proof, or step back."""
        frontier, offset = self._frontier, page.request.offset
        if frontier is None or offset == 0 or page.joins(frontier):
            self._accept(page)
        elif offset < frontier.end:
            if page.ids:
                self._stranger = page.request
            elif self._landings > 1 and self._stranger is None and not self._left_behind:
                # Empty a third time, though what lies before it was answered twice meanwhile.
                self._end()
                return
            else:
                self._missing = True
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

    def _look(self, head: Page) -> None:
        """Settle the page that showed nothing new: with nothing added at the head, the list has repeated itself."""
        page, self._looks = self._looks, None
        before = [] if self._head is None else self._head.usable
        if page is None or set(head.usable[:1]).isdisjoint(before):
            self._grown = True
            return
        # The first repetition tells: a list that goes round repeats the very head later.
        self._suspicion = self._suspicion or self._suspected(page, before)
        self._repeats += 1
        if self._repeats == REPEATS:
            self._end()

    def _suspected(self, page: Page, head: Sequence[str]) -> str:
        """What it means that this page repeats rows."""
        offset = page.request.offset
        if set(page.usable) <= set(head):
            return (
                f"the list answers the same rows at offset {offset:,} as at 0: runs behind its first {self.listed:,} cannot be "
                "listed, unless a larger api.page_size shows them"
            )
        return f"the list repeats at offset {offset:,} what it showed before: it is taken to end there"

    def _accept(self, page: Page) -> None:
        """Make the page the frontier, and see whether it ends the walk."""
        if not page.ids:
            self._end()
            return
        offset, at_head = page.request.offset, page.request.offset == 0
        returned = at_head and self._head is not None
        if at_head or self._step:
            # What comes now may well have been walked before.
            self._walked, self._reached = Seen(), 0
        new_ids, new_rows = page.new_to(self._walked)
        if self._frontier is not None and at_head and not page.joins(self._frontier):
            # Thrown back to the head: the walk begins again, and remembers what it should come upon once more.
            self._left_behind = self._left_behind or frozenset(self._frontier.usable)
            self._restarts += 1
            self._frontier = None
        known = set() if self._frontier is None else set(self._frontier.usable)
        usable = page.usable
        self._count_members(page, known)
        if usable:
            self._last_is_member = usable[-1] in page.members
        onward, self._reached = page.end > self._reached > 0, max(self._reached, page.end)
        if onward and self._is_out_of_order(usable, known, new_ids):
            self.problem = self.problem or (
                f"the list changes its order while it is walked (at offset {offset:,}): runs may be found late"
            )
        if not self._left_behind.isdisjoint(usable):
            self._left_behind = frozenset()
        self._frontier = page
        self._step = 0
        self._largest_page = max(self._largest_page, len(page.ids))
        if at_head:
            self._head, self._grown, self.listed = page, False, 0
        if new_rows:
            last = max((at for at, id in enumerate(page.ids, 1) if id is None or id in new_ids), default=0)
            self.listed = min(max(self.listed, page.request.offset + last), self._rows)
        if page.shows_new:
            self._missing, self._landings = False, 0
            self._stranger, self._returns, self._repeats, self._suspicion = None, 0, 0, None
        elif self._missing:
            self._landings += 1

        self.watermark_met = self.watermark_met or self._run >= self._watermark_run
        nothing_new = bool(usable) and known.issuperset(usable)
        if nothing_new and len(page.ids) < min(page.request.limit, self._largest_page):
            self._end()
        elif self._run >= self._watermark_run and not self._whole_list:
            self.outcome = "met"
        elif returned and self._stranger is not None and self._returns:
            self._give_up(
                f"at offset {self._stranger.offset:,} the list shows other rows than follow those at 0: is `offset` taken as the "
                "number of a page?"
            )
        else:
            self._returns += returned
            self._offset = page.end - min(self._overlap, len(page.ids) // 2)
            if self._is_to_be_looked_at(page, known, new=new_rows > 0, onward=onward):
                self._looks = page
            self._widen()

    def _is_to_be_looked_at(self, page: Page, known: frozenset[str] | set[str], *, new: bool, onward: bool) -> bool:
        """Whether the page repeats rows, so that the head must tell whether rows were added there or the list repeats itself."""
        head = [] if self._head is None else self._head.usable
        rows = page.usable
        if not rows or page.request.offset == 0 or self._left_behind or self._grown:
            return False
        if rows[:1] == head[:1]:
            return True
        # Only a page that reaches beyond the one before must show something new.
        return onward and not new and (known.issuperset(rows) or set(head).issuperset(rows) or self._idle_answers > 1)

    @staticmethod
    def _is_out_of_order(usable: Sequence[str], known: Set[str], new: Set[str]) -> bool:
        """Whether a row stands between two of the frontier's that has not been seen before."""
        places = [place for place, id in enumerate(usable) if id in known]
        return bool(places) and any(id in new for id in usable[places[0] : places[-1]])

    def _count_members(self, page: Page, known: set[str]) -> None:
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
        # Not to the head at once: what stands at offset 1 tells a list that follows `offset` from one that does not.
        self._offset = max(0 if offset <= 1 else 1, offset - self._step)

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
        self.problem = self._suspicion or self.problem
        self.outcome = "ended" if complete else "missed"
