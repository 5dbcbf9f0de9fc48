"""Run lists that change while they are paged, and interrupted walks: the walker's simulation."""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field

from etl.extract.list_page import PageRequest, Row
from etl.extract.run_list import Outcome, RunListWalker

ENOUGH = 25


class TooLarge(Exception):
    """The simulated page is larger than the client can read."""


@dataclass
class ServerList:
    """A run list as the API shows it: newest first, changing between requests."""

    rng: random.Random
    rows: list[str] = field(default_factory=list)
    shown: int | None = None
    """The number of rows that can be listed at all ("the last 100")."""
    page_cap: int | None = None
    """The largest number of rows in a page, for any requested limit."""
    growth: float = 0
    shrinkage: float = 0
    reorder: bool = False
    heavy: set[str] = field(default_factory=set)
    """Rows of which a page can hold only one."""
    huge: set[str] = field(default_factory=set)
    """Rows that are too large even alone."""
    requests: int = 0
    born: int = 0
    deleted: set[str] = field(default_factory=set)

    def visible(self) -> list[str]:
        """Return the rows that can be listed."""
        return self.rows[: self.shown]

    def grow(self, count: int) -> None:
        """Add new runs at the head."""
        self.rows[:0] = [f"r{self.born + n}" for n in reversed(range(count))]
        self.born += count

    def shrink(self, count: int) -> None:
        """Delete rows anywhere: one by one, or a range at once."""
        if self.rng.random() < 0.5:
            victims = self.rng.sample(self.rows, min(count, len(self.rows)))
        else:
            start = self.rng.randrange(len(self.rows) + 1)
            victims = self.rows[start : start + count]
        self.deleted.update(victims)
        self.rows = [row for row in self.rows if row not in self.deleted]

    def change(self) -> None:
        """Change the list as a server may between two requests."""
        rng = self.rng
        if rng.random() < self.growth:
            self.grow(int(rng.paretovariate(1.0)) % 100)
        if rng.random() < self.shrinkage:
            self.shrink(int(rng.paretovariate(1.0)) % 100)
        if self.reorder and self.rows and rng.random() < 0.5:
            start = rng.randrange(len(self.rows))
            stretch = self.rows[start : start + 6]
            rng.shuffle(stretch)
            self.rows[start : start + 6] = stretch

    def page(self, request: PageRequest) -> list[str]:
        """Return the response to a request."""
        self.requests += 1
        limit = min(request.limit, self.page_cap or request.limit)
        rows = self.visible()[request.offset : request.offset + limit]
        if not self.huge.isdisjoint(rows) or (len(rows) > 1 and not self.heavy.isdisjoint(rows)):
            raise TooLarge
        return rows


@dataclass
class Ledger:
    """The stored state: every listed run, and the runs that complete walks have listed."""

    known: set[str] = field(default_factory=set)
    members: set[str] = field(default_factory=set)


class StopsAtFirstKnownPage(RunListWalker):
    """The naive walk: pages without overlap, until one shows a stored run."""

    def __init__(self, ledger: Ledger, page_size: int) -> None:
        super().__init__(watermark_size=0, max_pages=400, page_size=page_size)
        self.request = PageRequest(0, page_size)
        self.stored = frozenset(ledger.known)

    def next_page(self) -> PageRequest | None:
        """Return the page after the last one."""
        return self.request if self.outcome is None else None

    def receive(self, rows: Sequence[Row], members: Collection[str]) -> None:
        """Stop at the first known run."""
        if not rows or not self.stored.isdisjoint(rows):
            self.outcome = "ended"
        self.request = PageRequest(self.request.offset + len(rows), self.request.limit)


def walker(
    ledger: Ledger, page_size: int, *, whole_list: bool = False, max_pages: int = 400
) -> RunListWalker:
    """Return the walker of a sweep over the ledger's content."""
    size = min(len(ledger.members), ENOUGH)
    return RunListWalker(
        watermark_size=size, max_pages=max_pages, page_size=page_size, whole_list=whole_list
    )


def walk(
    server: ServerList,
    ledger: Ledger,
    walker: RunListWalker,
    *,
    dies: float = 0,
    quiet: bool = False,
) -> Outcome | None:
    """Walk the list as a sweep does, and return the walker, or None if the walk was interrupted.

    Every page is stored at once; the last page also stores the members.
    """
    listed: set[str] = set()
    while (request := walker.next_page()) is not None:
        if not quiet:
            server.change()
        try:
            ids = server.page(request)
        except TooLarge:
            walker.too_large()
            continue
        if server.rng.random() < dies:
            return None
        walker.receive(ids, ledger.members.intersection(ids))
        if walker.last_is_listed:
            ledger.known.update(ids)
            listed.update(ids)
        if walker.outcome is not None and walker.outcome != "cut_off":
            ledger.members |= listed
        elif server.rng.random() < dies:
            return None
    return walker.outcome


def changing_list(seed: int, **settings: object) -> ServerList:
    """Return a random server with its size, its page limit, and its pace of change."""
    rng = random.Random(seed)
    server = ServerList(rng, page_cap=rng.choice([None, None, 3, 7, 20]), **settings)  # type: ignore[arg-type]
    server.grow(rng.choice([0, 1, 2, 10, 40, 100]))
    return server


def lost_runs(
    server: ServerList, make: Callable[[Ledger, int], RunListWalker], sweeps: int = 4
) -> set[str]:
    """Walk a changing list several times.

    Returns:
        The runs that a complete walk should have stored and did not.
    """
    rng, ledger = server.rng, Ledger()
    dies = rng.choice([0, 0.02, 0.1])
    page_size = rng.choice([4, 10, 25])
    lost: set[str] = set()
    for _ in range(sweeps):
        before = set(server.visible())
        if walk(server, ledger, make(ledger, page_size), dies=dies) not in {None, "cut_off"}:
            lost |= before.difference(server.deleted, ledger.known)
        server.grow(rng.choice([0, 1, 5, 30, 60]))
    return lost


def pace(seed: int) -> dict[str, object]:
    """Return how fast a random list grows and shrinks."""
    rng = random.Random(-seed)
    return {"growth": rng.choice([0, 0.05, 0.2]), "shrinkage": rng.choice([0, 0.05, 0.2])}
