"""The queries that add up the judged runs and steps to the rollups; they write nothing.

There are two histograms of durations: one of successes, and one of failures, which includes soft
failures. The durations of skipped, cancelled and unfinished steps and runs are not counted, because
they do not show how long the work takes.
"""

from __future__ import annotations

from collections.abc import Mapping

from etl.analytics.judged_rows import judged_runs, judged_steps
from etl.tables import rollups

STEP_COUNTS = tuple(name for name, _ in rollups.STEP_COUNTS)
_COST = "reported_cost"
USAGE_SUMS = (*(name for name, _ in rollups.USAGE_SUMS), _COST)
RUN_COUNTS = tuple(name for name, _ in rollups.RUN_COUNTS)
_NUMBERS = frozenset({"context_tier", "usage_kinds"})

_ENDED = ("succeeded", "soft_failed", "failed", "cancelled", "skipped")
_OUTCOMES = {
    **{one: f"count(*) FILTER (WHERE outcome = '{one}')" for one in _ENDED},
    "unfinished": f"count(*) FILTER (WHERE outcome NOT IN {_ENDED})",
}
_FAILURES = "outcome IN ('soft_failed', 'failed')"
_BUCKET = (
    f"CASE WHEN outcome = 'succeeded' OR {_FAILURES} "
    "THEN orchestra.duration_bucket(duration_ms) END"
)

# Sums of usage are limited to much less than the largest bigint, because views compute the charged
# part of a kind as a difference of several sums.
_LARGEST = {"bigint": 10**18, "integer": 2**31 - 1}


def fitting(number: str, kind: str = "bigint") -> str:
    """Return SQL that casts a sum to this type and limits it to the largest allowed value.

    An absurd number in one row must not prevent the other rows from being counted.
    """
    return f"CAST(LEAST({number}, {_LARGEST[kind]}) AS {kind})"


def _sum(name: str, calls: str) -> str:
    """Return SQL for the sum over the calls that report this value; `calls` counts all calls.

    The sum is null if no call reports it. For `PLAIN_SUMS`, which most calls report, it is 0 if
    there are no calls.
    """
    added = f"sum({name})" if name == _COST else fitting(f"sum({name})")
    zero = f" WHEN {calls} = 0 THEN 0" if name in rollups.PLAIN_SUMS else ""
    return f"CASE WHEN count({name}) > 0 THEN {added}{zero} END AS {name}"


def _histogram(failures: bool) -> str:
    which = f"bucket IS NOT NULL AND {'' if failures else 'NOT '}failures"
    prefix = "failed_" if failures else ""
    return f"""
        COALESCE(array_agg(CAST(bucket AS smallint) ORDER BY bucket) FILTER (WHERE {which}), '{{}}')
            AS {prefix}buckets,
        COALESCE(
            array_agg({fitting("durations", "integer")} ORDER BY bucket) FILTER (WHERE {which}),
            '{{}}'
        ) AS {prefix}counts"""


def _gathered(
    rows: str,
    when: str,
    names: tuple[str, ...],
    counts: Mapping[str, str],
    sums: tuple[str, ...],
    collected: tuple[str, ...],
    entries: str,
) -> str:
    """Return the query of a rollup: one row for each group and `names`, with its histograms.

    What the histograms need is collected in arrays. To group the many sums by bucket first would
    add them up twice.

    Args:
        rows: the query of what is added up.
        when: the column of the group's time.
        names: the columns that identify a row in its group.
        counts: SQL of other aggregates, by column.
        sums: columns that are null if no call reports the value.
        collected: aggregates that `entries` reads.
        entries: the query of the buckets of a row's histograms: `bucket`, `failures`, `durations`.
    """
    # Byte order, so that a group's rows have the same ordinals under every collation.
    order = ", ".join(name if name in _NUMBERS else f'{name} COLLATE "C"' for name in names)
    keys = ", ".join(("workflow_id", when, *names))
    added = [f"{one} AS {name}" for name, one in counts.items()]
    added += [_sum(one, counts["calls"]) for one in sums]
    return f"""
        SELECT workflow_id, {when},
               CAST(
                   row_number() OVER (PARTITION BY workflow_id, {when} ORDER BY {order}) AS integer
               ) AS ordinal,
               {", ".join((*names, *counts, *sums))}, h.*
        FROM (
            SELECT {keys}, {", ".join((*added, *collected))}
            FROM ({rows}) AS counted
            GROUP BY {keys}
        ) AS gathered
        CROSS JOIN LATERAL (
            SELECT {_histogram(False)}, {_histogram(True)}
            FROM (
                SELECT bucket, failures, sum(durations) AS durations
                FROM ({entries}) AS entries
                GROUP BY bucket, failures
            ) AS buckets
        ) AS h
    """


_COLLECTED_BUCKETS = (
    f"array_agg({_BUCKET}) AS each_bucket",
    f"array_agg({_FAILURES}) AS each_failure",
)
_BUCKETS = """
    SELECT bucket, failures, 1 AS durations
    FROM (SELECT unnest(each_bucket) AS bucket, unnest(each_failure) AS failures) AS b
"""

_COLLECTED_HISTOGRAMS = (
    "array_agg(ROW(buckets, counts, failed_buckets, failed_counts)) AS histograms",
)
_HISTOGRAMS = """
    SELECT b.*
    FROM unnest(histograms) AS r (buckets smallint[], counts integer[],
                                  failed_buckets smallint[], failed_counts integer[])
    CROSS JOIN LATERAL (
        SELECT bucket, false AS failures, durations
        FROM unnest(r.buckets, r.counts) AS b (bucket, durations)
        UNION ALL SELECT bucket, true, durations
        FROM unnest(r.failed_buckets, r.failed_counts) AS b (bucket, durations)
    ) AS b
"""


def step_rollup(steps: str) -> str:
    """Return the query of `step_rollup` over these steps.

    Args:
        steps: a query in parentheses, with the columns of `EVERY_STEP`.
    """
    calls = "count(*) FILTER (WHERE is_call)"
    cut_off = "count(*) FILTER (WHERE orchestra.is_cut_off(finish_reason))"
    return _gathered(
        judged_steps(steps),
        when="hour",
        names=rollups.NODE,
        counts={
            **_OUTCOMES,
            "calls": calls,
            "unmetered_calls": "count(*) FILTER (WHERE is_unmetered)",
            "untotalled_calls": "count(*) FILTER (WHERE is_untotalled)",
            "reported_calls": "count(reported_cost)",
            "responses": f"CASE WHEN {calls} > 0 THEN count(finish_reason) END",
            "cut_off_responses": f"CASE WHEN {calls} > 0 THEN {cut_off} END",
        },
        sums=USAGE_SUMS,
        collected=_COLLECTED_BUCKETS,
        entries=_BUCKETS,
    )


def run_rollup(runs: str) -> str:
    """Return the query of `run_rollup` over these runs.

    Args:
        runs: a table, or a query in parentheses.
    """
    return _gathered(
        judged_runs(runs),
        when="hour",
        names=("organization_id",),
        counts={"runs": "count(*)", **_OUTCOMES},
        sums=(),
        collected=_COLLECTED_BUCKETS,
        entries=_BUCKETS,
    )


def _added_up(
    rows: str,
    when: str,
    time: str,
    names: tuple[str, ...],
    counts: tuple[str, ...],
    sums: tuple[str, ...],
    responses: tuple[str, ...] = (),
) -> str:
    """Return the query that adds up the rows of a rollup that have the same time and names.

    Args:
        rows: a table, or a query in parentheses.
        when: the column of the result's time.
        time: SQL for that time, from a row `r`.
        names: the columns that identify a row in its group.
        counts: columns that are never null.
        sums: columns that are null if no call reports the value.
        responses: columns that are null if the responses are not counted.
    """
    timed = "r.*" if time == f"r.{when}" else f"r.*, {time} AS {when}"
    return _gathered(
        f"SELECT {timed} FROM {rows} AS r",
        when=when,
        names=names,
        counts={
            **{one: fitting(f"sum({one})") for one in counts},
            # A sum without some of the calls would be too low.
            **{
                one: f"CASE WHEN bool_and({one} IS NOT NULL) FILTER (WHERE calls > 0) "
                f"THEN {fitting(f'sum({one})')} END"
                for one in responses
            },
        },
        sums=sums,
        collected=_COLLECTED_HISTOGRAMS,
        entries=_HISTOGRAMS,
    )


def step_rollup_daily(rollup: str) -> str:
    """Return the query of `step_rollup_daily` over these rows of `step_rollup`."""
    return _added_up(
        rollup,
        when="day",
        time="CAST(r.hour AT TIME ZONE 'UTC' AS date)",
        names=rollups.NODE,
        counts=STEP_COUNTS,
        sums=USAGE_SUMS,
    )


def added_steps(rollup: str, responses: tuple[str, ...]) -> str:
    """Return the query that adds up these rows of `step_rollup` by hour and node.

    Args:
        rollup: a query in parentheses.
        responses: the columns of responses that its rows have.
    """
    return _added_up(
        rollup,
        when="hour",
        time="r.hour",
        names=rollups.NODE,
        counts=STEP_COUNTS,
        sums=USAGE_SUMS,
        responses=responses,
    )


def added_runs(rollup: str) -> str:
    """Return the query that adds up these rows of `run_rollup` by hour and organisation."""
    return _added_up(
        rollup, when="hour", time="r.hour", names=("organization_id",), counts=RUN_COUNTS, sums=()
    )
