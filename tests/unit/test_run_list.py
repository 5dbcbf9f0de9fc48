"""The walk of the run list, against simulated lists that change while they are paged."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Sequence

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from etl.extract.list_page import PageRequest, Row
from etl.extract.run_list import Outcome, RunListWalker
from tests.changing_list import (
    ENOUGH,
    Ledger,
    ServerList,
    StopsAtFirstKnownPage,
    changing_list,
    lost_runs,
    pace,
    walk,
    walker,
)
from tests.examples import examples
from tests.support import slow

simulated = pytest.mark.parametrize("simulations", [300, *slow(3000)])
"""Simulated lists per property; each is walked several times."""


@simulated
def test_no_run_is_lost_on_a_changing_list_with_interrupted_walks(simulations: int) -> None:
    """A run that is listed from a completed walk's start to its end is stored after it."""
    for seed in range(simulations):
        lost = lost_runs(changing_list(seed, **pace(seed)), walker)
        assert not lost, f"seed {seed} loses {sorted(lost)}"


def test_the_simulation_catches_a_walk_that_stops_at_the_first_known_page() -> None:
    """The naive walk repeatedly loses runs in the simulation, so the simulation is hard enough."""
    losing = sum(
        bool(lost_runs(changing_list(seed, **pace(seed)), StopsAtFirstKnownPage))
        for seed in range(200)
    )
    assert losing > 50


def test_the_simulation_catches_a_watermark_of_all_stored_runs() -> None:
    """If every stored run is a member, interrupted walks leave holes in the simulation."""

    def forgetful(ledger: Ledger, page_size: int) -> RunListWalker:
        ledger.members = ledger.known
        return walker(ledger, page_size)

    assert (
        sum(bool(lost_runs(changing_list(seed, **pace(seed)), forgetful)) for seed in range(200))
        > 10
    )


@simulated
def test_a_full_walk_of_a_quiet_list_finds_reordered_runs(simulations: int) -> None:
    """After any disorder, one full walk of a quiet list stores every run of it."""
    for seed in range(simulations // 3):
        server, ledger = changing_list(seed, reorder=True, **pace(seed)), Ledger()
        for _ in range(3):
            walk(server, ledger, walker(ledger, 25), dies=0.05)
            server.grow(server.rng.choice([0, 5, 60]))
        outcome = walk(server, ledger, walker(ledger, 25, whole_list=True), quiet=True)
        assert outcome in {"ended", "missed"}
        assert ledger.known.issuperset(server.rows), f"seed {seed}"


@simulated
def test_runs_that_left_a_capped_list_unseen_are_reported(simulations: int) -> None:
    """If runs leave a list capped at 100 between two walks, the next complete one says `missed`."""
    covered = 0
    for seed in range(simulations // 2):
        rng = random.Random(seed)
        server = ServerList(
            rng, shown=100, page_cap=rng.choice([None, 20]), growth=rng.choice([0, 0.05, 0.2])
        )
        server.grow(rng.choice([0, 3, 100, 250]))
        ledger, dies, page_size = Ledger(), rng.choice([0, 0.1]), rng.choice([20, 100])
        # Runs born later are watched: from the first complete walk that found any run.
        start: int | None = None
        missed: set[str] = set()
        for _ in range(6):
            outcome = walk(server, ledger, walker(ledger, page_size), dies=dies)
            if outcome not in {None, "cut_off"}:
                if start is not None:
                    unseen = (
                        {f"r{n}" for n in range(start, server.born)}
                        - ledger.known
                        - set(server.visible())
                    )
                    assert unseen <= missed or outcome == "missed", f"seed {seed}"
                    covered += not unseen <= missed
                    missed |= unseen
                elif ledger.members:
                    start = server.born
            server.grow(rng.choice([0, 1, 20, 90, 130, 400]))
    assert covered > simulations // 4


def test_the_first_walk_reports_runs_pushed_out_of_a_capped_list() -> None:
    """A first walk that a burst throws back to the head, without a known row, is not whole."""
    server = ServerList(random.Random(0), shown=100, page_cap=20)
    server.grow(100)
    ledger = Ledger()
    first = walker(ledger, 20)
    first.receive(server.page(request(first)), set())
    server.grow(300)
    assert walk(server, ledger, first, quiet=True) == "missed"


def request(walker: RunListWalker) -> PageRequest:
    """Return the next page of a walk that must continue."""
    page_request = walker.next_page()
    assert page_request is not None
    return page_request


@simulated
def test_rows_too_large_to_be_read_together_lose_nothing(simulations: int) -> None:
    """Halved pages, single rows and skipped rows lose nothing while the list shrinks or grows."""
    cut_off = 0
    for seed in range(simulations // 3):
        rng = random.Random(seed)
        direction = rng.choice(["growth", "shrinkage"])
        server = changing_list(seed, **{direction: 0.02})
        server.heavy = {row for row in server.rows if rng.random() < 0.04}
        server.huge = {row for row in server.rows if rng.random() < 0.03}
        before, ledger = set(server.rows), Ledger()
        walking = walker(ledger, 25)
        if walk(server, ledger, walking) == "cut_off":
            cut_off += 1
            continue
        assert before.difference(server.deleted, server.huge) <= ledger.known, f"seed {seed}"
        assert walking.skipped_offsets or not server.huge - server.deleted
    assert cut_off < simulations // 60


@settings(max_examples=examples(200))
@given(
    length=st.integers(0, 250),
    page_size=st.integers(1, 120),
    page_cap=st.none() | st.integers(1, 50),
    unusable=st.sets(st.integers(0, 250), max_size=20) | st.just(set(range(60, 250))),
)
@example(length=21, page_size=2, page_cap=None, unusable={*range(0, 18, 2), 20})
def test_a_quiet_list_is_read_once_and_no_more(
    length: int, page_size: int, page_cap: int | None, unusable: set[int]
) -> None:
    """On a quiet list the walk lists every row, says `ended`, and requests only needed pages."""
    rows = [n if n in unusable else f"r{n}" for n in range(length)]
    walking = RunListWalker(watermark_size=0, max_pages=2_000, page_size=page_size)
    seen: set[int] = set()
    while (page_request := walking.next_page()) is not None:
        size = min(page_request.limit, page_cap or page_request.limit)
        seen.update(range(page_request.offset, min(page_request.offset + size, length)))
        walking.receive(rows[page_request.offset : page_request.offset + size], ())
    assert walking.outcome == "ended"
    assert seen == set(range(length))
    size = min(page_size, page_cap or page_size)
    advance = size - min(5, size // 2)
    confirmations = 2 if size == 1 else 1
    # In pages of two rows the single row of the overlap may have no usable id. Then only the head
    # shows whether the list has moved.
    looks = len(unusable & seen) if size == 2 else 0
    assert walking.pages <= (
        confirmations * (length // advance + 4) + (5 if unusable else 0) + looks
    )


def test_a_second_walk_requests_the_head_only() -> None:
    """With a watermark, an unchanged list of any length needs one page."""
    server, ledger = ServerList(random.Random(1)), Ledger()
    server.grow(2_000)
    assert walk(server, ledger, walker(ledger, 100)) == "ended"
    server.requests = 0
    assert walk(server, ledger, walker(ledger, 100)) == "met"
    assert server.requests == 1


def test_the_whole_list_is_walked_past_the_watermark() -> None:
    """A full walk does not stop where a sweep would."""
    server, ledger = ServerList(random.Random(1)), Ledger()
    server.grow(300)
    walk(server, ledger, walker(ledger, 100))
    assert walk(server, ledger, walker(ledger, 100, whole_list=True)) == "ended"
    assert server.requests == 2 * 5


def test_an_unknown_row_among_the_members_continues_the_walk() -> None:
    """Only consecutive members end the walk; any other row restarts the count, across pages too."""
    members = {f"r{n}" for n in range(200)} - {"r20"}
    walking = RunListWalker(watermark_size=ENOUGH, max_pages=50, page_size=10)
    rows = [f"r{n}" for n in range(200)]
    while (page_request := walking.next_page()) is not None:
        walking.receive(
            rows[page_request.offset : page_request.offset + page_request.limit], members
        )
        last = page_request.offset + page_request.limit
    assert walking.outcome == "met"
    assert 20 + ENOUGH < last <= 20 + ENOUGH + 10


def test_a_walk_thrown_back_to_the_head_restarts_the_member_count() -> None:
    """Members seen before a restart are not consecutive with those behind it."""
    walking = RunListWalker(watermark_size=ENOUGH, max_pages=50, page_size=20)
    request(walking)
    walking.receive([f"old{n}" for n in range(20)], [f"old{n}" for n in range(20)])
    while request(walking).offset:
        walking.receive([f"strange{n}" for n in range(20)], ())
    walking.receive([f"head{n}" for n in range(20)], [f"head{n}" for n in range(20)])
    assert walking.outcome is None


def test_rows_deleted_above_cause_a_step_back_and_no_restart() -> None:
    """If rows vanish during a long walk, it finds its position again with a few more pages."""
    server, ledger = ServerList(random.Random(1)), Ledger()
    server.grow(1_000)
    walking = walker(ledger, 100)
    while (page_request := walking.next_page()) is not None:
        if server.requests == 6:
            del server.rows[100:200]
        walking.receive(server.page(page_request), ())
    assert walking.outcome == "ended"
    assert server.requests <= 1_000 // 95 + 2 + 2


def test_max_pages_cuts_the_walk_off_at_once() -> None:
    """A walk of an endless list is given up after exactly `max_pages`, at its last page."""
    server, ledger = ServerList(random.Random(1)), Ledger()
    walking = walker(ledger, 10, max_pages=7)
    while (page_request := walking.next_page()) is not None:
        server.grow(50)
        walking.receive(server.page(page_request), set())
    assert walking.outcome == "cut_off"
    assert server.requests == walking.pages == 7


@simulated
def test_every_walk_ends_within_max_pages(simulations: int) -> None:
    """Any walk requests at most `max_pages` pages."""
    for seed in range(simulations // 3):
        server = changing_list(seed, growth=0.9, shrinkage=0.9, reorder=True)
        server.huge = {row for row in server.rows if server.rng.random() < 0.05}
        server.requests = 0
        assert walk(server, Ledger(), walker(Ledger(), 10, max_pages=60)) is not None
        assert server.requests <= 60


@pytest.mark.parametrize(
    ("watermark_size", "members", "rows", "expected"),
    [
        (0, set(), [], "ended"),
        (ENOUGH, set(), [], "missed"),
        (ENOUGH, set(), ["a", "b", "c", "d"], "missed"),
        (ENOUGH, {"d"}, ["a", "b", "c", "d"], "ended"),
        (2, {"a", "b"}, ["a", "b", "c", "d"], "ended"),
        (3, {"a", "b"}, ["a", "b", "c", "d"], "missed"),
        (0, set(), ["a", "b", "c", "d"], "ended"),
    ],
    ids=[
        "empty, first walk",
        "empty",
        "nothing known",
        "last row known",
        "all members seen",
        "too few members",
        "first walk",
    ],
)
def test_the_end_of_the_list_is_judged_by_the_watermark(
    watermark_size: int, members: set[str], rows: list[str], expected: Outcome
) -> None:
    """A list that ends before the watermark is met has missed rows, unless no run was known."""
    walking = RunListWalker(watermark_size=watermark_size, max_pages=9)
    while (page_request := walking.next_page()) is not None:
        page = rows[page_request.offset : page_request.offset + page_request.limit]
        walking.receive(page, members.intersection(page))
    assert walking.outcome == expected


def test_a_refusal_past_the_last_row_is_the_end() -> None:
    """A status 400 or 404 past the last row means the end of the list."""
    walking = RunListWalker(watermark_size=0, max_pages=9, page_size=10)
    walking.next_page()
    walking.receive(["a"], ())
    assert walking.next_page() == (1, 10)
    walking.end_of_list()
    assert walking.outcome == "ended"
    assert walking.next_page() is None


def test_a_page_that_is_too_large_is_halved_and_recovers() -> None:
    """The limit halves until the page fits, and grows back to the page size page by page."""
    walking = RunListWalker(watermark_size=0, max_pages=99, page_size=100)
    limits = []
    for n in range(12):
        page_request = request(walking)
        limits.append(page_request.limit)
        if n < 3:
            walking.too_large()
        else:
            walking.receive(
                [
                    f"r{m}"
                    for m in range(page_request.offset, page_request.offset + page_request.limit)
                ],
                (),
            )
    assert limits == [100, 50, 25, 12, 16, 21, 27, 34, 43, 54, 68, 86]


def test_a_row_that_is_too_large_alone_is_skipped_and_reported() -> None:
    """One row that cannot be read loses no other row, at the head or in the middle."""
    server, ledger = ServerList(random.Random(1)), Ledger()
    server.grow(40)
    server.huge = {server.rows[0], server.rows[17]}
    walking = walker(ledger, 10)
    assert walk(server, ledger, walking) == "ended"
    assert walking.skipped_offsets == [0, 17]
    assert ledger.known == set(server.rows) - server.huge


def test_the_page_stays_the_same_until_its_response() -> None:
    """The page stays the same until its response; a response without a request is an error."""
    walking = RunListWalker(watermark_size=0, max_pages=9)
    assert walking.next_page() == walking.next_page() == (0, 100)
    assert walking.pages == 1
    walking.receive([], ())
    with pytest.raises(RuntimeError, match="no page was requested"):
        walking.receive([], ())


def test_numbers_too_small_to_walk_with_are_refused() -> None:
    """A page size or bound of zero is an error at once, not a walk that never moves."""
    with pytest.raises(ValueError, match="at least 1"):
        RunListWalker(watermark_size=0, max_pages=0)


def test_a_server_that_refuses_all_but_the_head_has_shown_its_list() -> None:
    """A server that refuses every page but the head has shown its whole list."""
    walking = RunListWalker(watermark_size=0, max_pages=1_000_000)
    while (page := walking.next_page()) is not None:
        if page.offset == 0:
            walking.receive([f"run-{number}" for number in range(50)], ())
        else:
            walking.end_of_list()
    assert (walking.outcome, walking.listed, walking.problem) == ("ended", 50, None)
    assert walking.pages < 12


def test_a_page_in_the_middle_that_fails_once_is_not_the_end() -> None:
    """A page in the middle that is refused or empty once is read again, and the walk continues."""
    server, ledger = ServerList(random.Random(1)), Ledger()
    server.grow(1_000)
    for failing in range(2, 11):
        walking, seen = walker(ledger, 100), set()
        while (page := walking.next_page()) is not None:
            if walking.pages == failing:
                walking.end_of_list()
            else:
                ids = server.page(page)
                seen.update(ids)
                walking.receive(ids, ())
        assert (walking.outcome, walking.listed, seen) == ("ended", 1_000, set(server.rows)), (
            failing
        )


def test_a_walk_over_unreadable_rows_is_given_up() -> None:
    """A walk is given up if every row is too large, or if the same rows come without ids."""
    large = RunListWalker(watermark_size=0, max_pages=1_000_000)
    while large.next_page() is not None:
        large.too_large()
    nameless = RunListWalker(watermark_size=0, max_pages=1_000_000)
    while nameless.next_page() is not None:
        nameless.receive(range(60), ())
    for one in (large, nameless):
        assert (one.outcome, one.pages < 200) == ("cut_off", True)
        assert "led to no further run" in (one.problem or "")
    assert "larger than api.max_response_bytes" in (large.problem or "")


def walk_growing(
    show: Callable[[list[str], PageRequest], Sequence[Row]],
    growth: float,
    length: int,
    page_size: int = 100,
) -> tuple[RunListWalker, set[Row], list[str]]:
    """Walk a list for the first time that gains `growth` runs before each response.

    Returns:
        The walker, the listed rows, and the rows of the list.
    """
    walking = RunListWalker(watermark_size=0, max_pages=1_000_000, page_size=page_size)
    listed = set[Row]()
    rows = [f"run-{number}" for number in range(length)]
    due = 0.0
    while (page := walking.next_page()) is not None and walking.pages < 5_000:
        due += growth
        while due >= 1:
            rows.insert(0, f"run-{len(rows)}")
            due -= 1
        shown = show(rows, page)
        walking.receive(shown, ())
        if walking.last_is_listed:
            listed.update(shown)
    return walking, listed, rows


IGNORES_OFFSET: dict[str, Callable[[list[str], PageRequest], Sequence[Row]]] = {
    "offset": lambda rows, page: rows[: page.limit],
    "offset and limit": lambda rows, page: rows,
    "offset, with a made-up last row": lambda rows, page: [
        *rows[: page.limit - 1],
        f"made-up-{random.random()}",
    ],
    "offset, with a last row that has no id": lambda rows, page: [
        *rows[: page.limit - 1],
        random.getrandbits(60),
    ],
}


@pytest.mark.parametrize("growth", [0.4, 1, 30, 50, 75, 95])
@pytest.mark.parametrize("show", IGNORES_OFFSET.values(), ids=IGNORES_OFFSET.keys())
def test_a_growing_list_that_ignores_offset_is_a_list_of_the_newest(
    show: Callable[[list[str], PageRequest], Sequence[Row]], growth: float
) -> None:
    """Runs added at the head are no progress: the walk of a list without `offset` ends soon.

    It leaves no hole, and says how far it can read.
    """
    walking, listed, rows = walk_growing(show, growth, 300)
    assert (walking.outcome, walking.pages < 20) == ("ended", True)
    assert "the list returns the same rows at offset" in (walking.problem or "")
    assert walking.listed in (99, 100, len(show(rows, PageRequest(0, 100))))
    # From the oldest to the newest listed run.
    positions = sorted(rows.index(row) for row in listed if row in rows)
    assert positions == list(range(positions[0], positions[-1] + 1))
    assert len(positions) >= 99


@pytest.mark.parametrize("growth", [0, 0.4, 1, 7, 13, 19, 20, 24, 25, 60])
def test_a_growing_odd_list_is_walked_in_bounded_steps(growth: float) -> None:
    """A growing list with any treatment of `offset` ends the walk after a bounded number of pages.

    The bound follows from the list's length, and the walk claims only what it was shown.
    """
    made_up = (f"made-up-{number}" for number in itertools.count())
    odd: dict[str, Callable[[list[str], PageRequest], Sequence[Row]]] = {
        "page number from 0": lambda rows, page: rows[page.offset * page.limit :][: page.limit],
        "page number from 1": lambda rows, page: rows[max(page.offset - 1, 0) * page.limit :][
            : page.limit
        ],
        "offset clamped": lambda rows, page: rows[min(page.offset, 150) :][: page.limit],
        "goes round": lambda rows, page: [
            rows[n % len(rows)] for n in range(page.offset, page.offset + page.limit)
        ],
        "empty behind the head": lambda rows, page: [] if page.offset else rows[: page.limit],
        "every id made up": lambda rows, page: [next(made_up) for _ in range(page.limit)],
        "a made-up row alone": lambda rows, page: [next(made_up)],
        "every second id made up": lambda rows, page: [
            next(made_up) if n % 2 else row
            for n, row in enumerate(rows[page.offset :][: page.limit])
        ],
        "no row has an id": lambda rows, page: [random.getrandbits(60) for _ in range(page.limit)],
        "honest": lambda rows, page: rows[page.offset :][: page.limit],
    }
    for name, show in odd.items():
        if name == "goes round" and growth > 5:
            continue  # The list grows so much meanwhile that the rows it repeats are new.
        walking, listed, rows = walk_growing(show, growth, 700, page_size=25)
        # Each response of a list that follows `offset` advances by a page, without its overlap and
        # the added runs.
        answers = 700 / max(1, 20 - growth)
        assert walking.pages < 4 * answers + 70, name
        if walking.outcome == "ended":
            positions = sorted(rows.index(row) for row in listed if row in rows)
            assert positions == list(range(positions[0], positions[-1] + 1)), name
        else:
            assert (walking.outcome, walking.problem is not None) == ("cut_off", True), name


@pytest.mark.parametrize("empty", [1, 2])
@pytest.mark.parametrize("knows_runs", [True, False])
def test_an_empty_head_is_requested_again(knows_runs: bool, empty: int) -> None:
    """If runs are known, an empty head is requested again, and the walk that follows is whole.

    An empty head ends the walk only if it stays empty.
    """
    rows = [f"run-{number}" for number in range(60)]
    walking = RunListWalker(watermark_size=ENOUGH if knows_runs else 0, max_pages=99)
    while (page := walking.next_page()) is not None:
        shown = [] if walking.pages <= empty else rows[page.offset :][: page.limit]
        walking.receive(shown, set(shown) if knows_runs else ())
    assert (walking.outcome, walking.listed) == (("met", 60) if knows_runs else ("ended", 0))
    assert walking.pages == (empty + 1 if knows_runs else 1)


@pytest.mark.parametrize("watermark_size", [0, ENOUGH])
def test_a_list_emptied_during_the_walk_is_missed(watermark_size: int) -> None:
    """A walk back at the head of an emptied list does not claim the rows that it has not seen."""
    walking = RunListWalker(watermark_size=watermark_size, max_pages=99)
    while walking.next_page() is not None:
        walking.receive(
            [f"run-{number}" for number in range(100)] if walking.pages == 1 else [], ()
        )
    assert (walking.outcome, walking.emptied) == ("missed", True)
    assert walking.pages < 15


def test_a_long_list_is_remembered_in_bounded_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """A list beyond the exact memory is walked to its end, and one that repeats is noticed."""
    monkeypatch.setattr("etl.extract.list_page.SeenRows._EXACTLY", 300)
    for goes_round in (False, True):
        walking, seen = RunListWalker(watermark_size=0, max_pages=1_000), set()
        while (page := walking.next_page()) is not None:
            offsets = range(page.offset, page.offset + page.limit)
            ids = [f"r{n % 2_000}" for n in offsets if goes_round or n < 2_000]
            seen.update(ids)
            walking.receive(ids, ())
        assert (walking.outcome, walking.listed, len(seen)) == ("ended", 2_000, 2_000)
        assert ("repeats" in (walking.problem or "")) is goes_round
        assert walking.pages < 40


@pytest.mark.parametrize("most", [5, 100])
def test_a_list_with_new_ids_in_each_response_is_given_up(most: int) -> None:
    """A walk whose responses show unrelated runs each time ends and says so."""
    walker = RunListWalker(watermark_size=0, max_pages=5_000)
    while (page := walker.next_page()) is not None:
        walker.receive([f"{walker.pages}-{row}" for row in range(min(most, page.limit))], ())
    assert (walker.outcome, walker.pages < 50) == ("cut_off", True)
    assert "other ids for the same runs in each response" in (walker.problem or "")
