"""The fault suite's books: what was injected how often, whether the invariants held, and whether the negative control failed.

A fault test is marked with what it injects, and says through the fixture `fault` how often it did
so, and what went wrong in the negative control: the same fault with the guard switched off that the
product has against it. A control in which nothing goes wrong is a test that proves nothing, and
fails.

    @pytest.mark.fault(4, "worker stopped past its lease, then resumed", "C M", guard="fencing token of a claim")
    def test_a_stopped_worker(fault: Fault, ...) -> None:
        "One sentence that says what it proves."
        assert scenario() == []
        fault.injected(5)
        fault.control(scenario(without="tests.faults.test_processes:the_fence"))
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

INVARIANTS = {
    "C": "complete, and equal to what the API has",
    "M": "nothing moves from a later observation to an earlier one",
    "W": "every listed run is in the ledger, and none leaves `open` without a final read",
    "B": "bounded time and memory",
    "Q": "what is bad is set aside, the rest is loaded",
    "S": "no secret and no payload in any log, error or process list",
}


@dataclass
class Fault:
    """One fault and what came of it; the tests of one number add up."""

    number: int
    name: str
    invariants: str
    guard: str
    """What the negative control goes without; empty where there is no such test (then `why` says so)."""
    why: str = ""
    times: int = 0
    controls: list[str] = field(default_factory=list)
    outcomes: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def injected(self, times: int = 1, note: str = "") -> None:
        """The fault was injected so often; `note` is a measured figure for the table."""
        self.times += times
        if note:
            self.notes.append(note)

    def control(self, problems: Sequence[str]) -> None:
        """What went wrong without the guard; nothing is a failure of the test."""
        assert problems, (
            f"fault {self.number}: without {self.guard} nothing goes wrong, so the test "
            "proves nothing"
        )
        self.controls.append(problems[0])

    def add(self, other: Fault) -> None:
        """Take over what another worker did of the same fault."""
        self.times += other.times
        self.controls += other.controls
        self.outcomes += other.outcomes
        self.notes += other.notes

    @property
    def result(self) -> str:
        """In a word for the table."""
        if "failed" in self.outcomes:
            return "FAILED"
        if "passed" in self.outcomes:
            return "held"
        return "skipped"

    @property
    def control_result(self) -> str:
        """In a word for the table."""
        if self.why:
            return f"none: {self.why}"
        return "fails, as it should" if self.controls else "-"


def table(faults: Sequence[Fault]) -> list[str]:
    """The lines that `make faults` ends with."""
    rows = [("no.", "fault", "times", "inv.", "result", "guard", "without it")]
    rows += [
        (str(one.number), one.name + "".join(f" ({note})" for note in one.notes), f"{one.times:,}",
         one.invariants, one.result,
         one.guard or "-", one.control_result)
        for one in sorted(faults, key=lambda one: one.number)
    ]  # fmt: skip
    widths = [max(len(row[place]) for row in rows) for place in range(len(rows[0]))]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
    legend = [f"{letter}: {meaning}" for letter, meaning in INVARIANTS.items()]
    return [lines[0], "-" * len(lines[0]), *lines[1:], "", *legend]
