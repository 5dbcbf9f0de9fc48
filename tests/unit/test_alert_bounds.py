"""A verdict holds for every possible end of the runs that are not fully known."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from hypothesis import given, settings
from hypothesis import strategies as st

from etl.alert_metrics import Metric
from etl.alerts.bounds import Bounds, Doubt, bounds
from etl.alerts.measures import Figures, Window
from etl.alerts.rules import Part, Rule
from etl.alerts.verdicts import Answer, compared
from tests.examples import examples

SECONDS = {bucket: 1.1**bucket for bucket in range(8)}
WINDOW = Window("a", datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 1, 1, 1, tzinfo=UTC))
OUTCOMES = ("succeeded", "soft_failed", "failed", "cancelled")

Run = tuple[str, int]
"""An outcome, and the bucket of its duration."""

endings = st.tuples(st.sampled_from(OUTCOMES), st.sampled_from(sorted(SECONDS)))
metrics = st.sampled_from(
    ["failure_rate", "soft_failure_rate", "failures", "runs", "duration_p50", "duration_p95"]
)


class Counted:
    """The figures of one window."""

    seconds = SECONDS

    def __init__(self, runs: Sequence[Run], unfinished: int) -> None:
        outcomes = [outcome for outcome, _ in runs]
        self._figures = Figures(
            total=len(runs) + unfinished,
            succeeded=outcomes.count("succeeded"),
            soft_failed=outcomes.count("soft_failed"),
            failed=outcomes.count("failed"),
            unfinished=unfinished,
        )
        for outcome, bucket in runs:
            if outcome == "succeeded":
                self._figures.durations[bucket] = self._figures.durations.get(bucket, 0) + 1

    def figures(self, window: Window, part: Part, *, of_steps: bool) -> Figures:
        """Return the figures."""
        return self._figures


def found(metric: Metric, runs: Sequence[Run], unfinished: int, doubt: Doubt, least: int) -> Bounds:
    """Return the bounds of a metric of these runs."""
    counted = Counted(runs, unfinished)
    doubts = {False: doubt, True: doubt}
    return bounds(metric, Part(), counted, window=WINDOW, doubts=doubts, min_runs=least)  # type: ignore[arg-type]


@settings(max_examples=examples(1000))
@given(
    metric=metrics,
    known=st.lists(endings, max_size=12),
    still_open=st.lists(endings, max_size=3),
    unread=st.lists(endings | st.none(), max_size=3),
    late=st.lists(endings, max_size=3),
    least=st.integers(0, 8),
    comparison=st.sampled_from(["above", "below"]),
    limit=st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.9, 1.0, 1.2, 2.0, 3.0, 5.0]),
)
def test_no_verdict_is_a_guess(
    metric: Metric,
    known: list[Run],
    still_open: list[Run],
    unread: list[Run | None],
    late: list[Run],
    least: int,
    comparison: str,
    limit: float,
) -> None:
    """A verdict on an incomplete window stays the same once everything about it is known.

    Runs that nobody has read may be of another part (None). A count is of what has happened so far,
    and durations are of what succeeded so far: they hold without the runs that are still open.
    """
    before = found(
        metric,
        known,
        len(still_open) + len(late),
        Doubt(runs=len(unread), late=len(late), reason="not read" if unread or late else None),
        least,
    )
    read = [one for one in unread if one is not None]
    share = metric.endswith("rate")
    after = found(
        metric,
        [*known, *read, *late, *(still_open if share else [])],
        0 if share else len(still_open),
        Doubt(),
        least,
    )
    rule = Rule("r", metric, comparison, limit)  # type: ignore[arg-type]
    verdict = compared(rule, Answer(before)).is_breached
    is_over = compared(rule, Answer(after)).is_breached
    assert is_over is not None
    if verdict is None:
        assert before.reason is not None
        return
    if before.value is None or after.value is None:
        # Too few had ended; or those that were missing had not ended by success or failure.
        return
    assert verdict == is_over


@given(metric=metrics, known=st.lists(endings, max_size=12), limit=st.floats(0, 5))
def test_complete_data_leaves_no_doubt(metric: Metric, known: list[Run], limit: float) -> None:
    """With nothing missing, a verdict is the comparison of the value."""
    one = found(metric, known, 0, Doubt(), 0)
    assert one.is_exact
    verdict = compared(Rule("r", metric, "above", limit), Answer(one))
    assert verdict.is_breached is (one.value is not None and one.value > limit)


@given(
    metric=metrics,
    known=st.lists(endings, max_size=12),
    limit=st.sampled_from([0.0, 0.5, 2.0]),
)
def test_a_gap_can_hide_any_number(metric: Metric, known: list[Run], limit: float) -> None:
    """In a gap, only a count that is already too high is known."""
    one = found(metric, known, 0, Doubt(endless=True, reason="a gap"), 0)
    above = compared(Rule("r", metric, "above", limit), Answer(one)).is_breached
    below = compared(Rule("r", metric, "below", limit), Answer(one)).is_breached
    is_count = metric in ("failures", "runs")
    assert above is (True if is_count and (one.value or 0) > limit else None) or (
        above is False and metric.endswith("rate") and limit >= 1
    )
    assert below is not True or metric.endswith("rate")
