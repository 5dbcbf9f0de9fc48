"""Records of the fault suite: how often each fault was injected, and whether its tests held.

The mark of a fault test says what it injects. Through the fixture `fault` the test records how
often it did so, and what went wrong in the negative control. The control is the same fault with the
product's guard switched off. If nothing goes wrong in a control, the test proves nothing, and
fails.

    @pytest.mark.fault(
        4, "worker stopped past its lease, then resumed", "C M", guard="fencing token of a claim"
    )
    def test_a_stopped_worker(fault: Fault, ...) -> None:
        "One sentence that says what it proves."
        assert scenario() == []
        fault.injected(5)
        fault.control(scenario(without="tests.faults.process_guards:no_fence"))
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

INVARIANTS = {
    "C": "the tables are complete and equal to the API's data",
    "M": "no row moves back to an earlier observation",
    "W": "every listed run is in the ledger, and none leaves `open` without a final read",
    "B": "time and memory are bounded",
    "Q": "each bad record becomes a dead letter or is kept in `extra` or `raw`; the rest is loaded",
    "S": "no secret and no payload appears in a log, an error or the process list",
}


@dataclass
class Fault:
    """One fault and its results; tests with the same number add up."""

    number: int
    name: str
    invariants: str
    guard: str
    """The guard that the negative control switches off; empty without a control (see `why`)."""
    why: str = ""
    times: int = 0
    controls: list[str] = field(default_factory=list)
    outcomes: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def injected(self, times: int = 1, note: str = "") -> None:
        """Record how often the fault was injected; `note` is a measured figure for the table."""
        self.times += times
        if note:
            self.notes.append(note)

    def control(self, problems: Sequence[str]) -> None:
        """Record the problems that occur without the guard; fail if there are none."""
        assert problems, (
            f"fault {self.number}: without {self.guard} nothing goes wrong, so the test "
            "proves nothing"
        )
        self.controls.append(problems[0])

    def add(self, other: Fault) -> None:
        """Add what another worker recorded for the same fault."""
        self.times += other.times
        self.controls += other.controls
        self.outcomes += other.outcomes
        self.notes += other.notes

    @property
    def result(self) -> str:
        """The outcome of the fault's tests, for the table."""
        if "failed" in self.outcomes:
            return "FAILED"
        if "passed" in self.outcomes:
            return "held"
        return "skipped"

    @property
    def control_result(self) -> str:
        """The outcome of the negative control, for the table."""
        if self.why:
            return f"none: {self.why}"
        return "fails, as expected" if self.controls else "-"


def table(faults: Sequence[Fault]) -> list[str]:
    """Return the lines that `make faults` prints at its end."""
    rows = [("no.", "fault", "times", "inv.", "result", "guard", "without it")]
    rows += [
        (str(one.number), one.name + "".join(f" ({note})" for note in one.notes), f"{one.times:,}",
         one.invariants, one.result, one.guard or "-", one.control_result)
        for one in sorted(faults, key=lambda one: one.number)
    ]  # fmt: skip
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
    legend = [f"{letter}: {meaning}" for letter, meaning in INVARIANTS.items()]
    return [lines[0], "-" * len(lines[0]), *lines[1:], "", *legend]
