"""The queries that compute the rollups from the runs and steps; they write nothing.

A group is an hour (UTC) of a workflow: the runs and the steps that started in it. A run without a
start counts in the hour in which it was first seen. A step without a start counts in the group of
its run: the step then stays in this group when the run is pruned, and a backfill does not count
last year's skipped steps today.

The SQL function `outcome` says how a step or run ended. A successful run with a soft-failed step is
also a soft failure. Absent steps are left out.

There are two histograms of durations: one of successes, and one of failures, which includes soft
failures. The durations of skipped, cancelled and unfinished steps and runs are not counted, because
they do not show how long the work takes.
"""

from __future__ import annotations

from collections.abc import Mapping

from etl.tables import rollups
from etl.usage import KINDS

STEP_COUNTS = tuple(name for name, _ in rollups.STEP_COUNTS)
_COST = "reported_cost"
USAGE_SUMS = (*(name for name, _ in rollups.USAGE_SUMS), _COST)
RUN_COUNTS = tuple(name for name, _ in rollups.RUN_COUNTS)
NODE = rollups.NODE
_NUMBERS = frozenset({"context_tier", "usage_kinds"})
HISTOGRAMS = rollups.HISTOGRAMS
RESPONSES = rollups.RESPONSES
FAILURE = tuple(rollups.step_failures.c.keys())

EVERY_STEP = """(
    SELECT s.*, COALESCE(s.start_time, r.start_time, r.first_seen_at) AS time,
           CASE WHEN s.start_time IS NULL THEN r.workflow_id ELSE s.workflow_id END AS counted_in
    FROM orchestra.steps AS s
    JOIN orchestra.runs AS r ON r.id = s.run_id
)"""
"""All steps, with the time and the workflow that determine their group."""


HOUR_OF_GROUP = ("g.hour", "g.hour + interval '1 hour'")


def runs_of(groups: str, time: tuple[str, str] = HOUR_OF_GROUP) -> str:
    """Return the query, in parentheses, of the runs of some groups.

    Two queries with one index condition each, because no index serves a condition on COALESCE.

    Args:
        groups: a FROM item named `g` with the column `workflow_id`, without overlapping times.
        time: SQL for the start and the end of the time of `g`.
    """
    begin, end = time
    return f"""(
    SELECT found.*
    FROM {groups}
    CROSS JOIN LATERAL (
        SELECT * FROM orchestra.runs
        WHERE workflow_id = g.workflow_id AND start_time >= {begin} AND start_time < {end}
        UNION ALL
        SELECT * FROM orchestra.runs
        WHERE workflow_id = g.workflow_id AND start_time IS NULL
          AND first_seen_at >= {begin} AND first_seen_at < {end}
    ) AS found
)"""


def steps_of(groups: str, time: tuple[str, str] = HOUR_OF_GROUP) -> str:
    """Return the query, in parentheses, of the steps of some groups; columns as `EVERY_STEP`.

    OFFSET 0 makes the planner go from each hour, and from each run, to its steps by an index. The
    planner does not know the hours, and would otherwise read all steps: 32 s instead of 1 s for a
    batch in a history of ten million steps.

    Args:
        groups: as for `runs_of`.
        time: as for `runs_of`.
    """
    begin, end = time
    return f"""(
    SELECT s.*, s.start_time AS time, s.workflow_id AS counted_in
    FROM {groups}
    CROSS JOIN LATERAL (
        SELECT * FROM orchestra.steps
        WHERE workflow_id = g.workflow_id AND start_time >= {begin} AND start_time < {end}
        OFFSET 0
    ) AS s
    UNION ALL
    SELECT s.*, COALESCE(r.start_time, r.first_seen_at), r.workflow_id
    FROM {runs_of(groups, time)} AS r
    CROSS JOIN LATERAL (
        SELECT * FROM orchestra.steps WHERE run_id = r.id AND start_time IS NULL OFFSET 0
    ) AS s
)"""


_ENDED = ("succeeded", "soft_failed", "failed", "cancelled", "skipped")
_OUTCOMES = {
    **{one: f"count(*) FILTER (WHERE outcome = '{one}')" for one in _ENDED},
    "unfinished": f"count(*) FILTER (WHERE outcome NOT IN {_ENDED})",
}
_USAGE = f"CAST(ROW({', '.join(f's.{kind.name}' for kind in KINDS)}) AS orchestra.usage)"
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


def judged_steps(steps: str) -> str:
    """Return the query of what the rollups count of each step, with its time and its hour.

    Args:
        steps: a query in parentheses, with the columns of `EVERY_STEP`.
    """
    return f"""
        SELECT counted_in AS workflow_id, time, date_trunc('hour', time, 'UTC') AS hour,
               organization_id, node_id, node_type, model, outcome, duration_ms, is_call,
               orchestra.is_unmetered(outcome, is_call, has_usage, used) AS is_unmetered,
               orchestra.is_untotalled(outcome, is_call, has_usage, used, total_tokens)
                   AS is_untotalled,
               CASE WHEN is_call THEN service_tier END AS service_tier,
               CASE WHEN is_call THEN orchestra.context_tier((used).input_tokens) END
                   AS context_tier,
               CASE WHEN is_call THEN orchestra.kinds_of(used) END AS usage_kinds,
               {", ".join(f"(used).{kind.name}" for kind in KINDS)}, total_tokens, reported_cost,
               finish_reason
        FROM (
            SELECT s.counted_in, s.time, s.organization_id, s.node_id, s.node_type,
                   s.duration_ms, s.service_tier, s.reported_cost, s.finish_reason, u.*,
                   orchestra.is_call(s.state, s.node_type, u.model, s.finish_reason,
                                     u.has_usage) AS is_call
            FROM {steps} AS s
            CROSS JOIN LATERAL (
                SELECT COALESCE(s.response_model, s.request_model) AS model,
                       orchestra.outcome(s.state, s.error, s.reported_error) AS outcome,
                       orchestra.plausible_usage(raw.used) AS used,
                       orchestra.has_usage(raw.used, s.total_tokens, s.reported_cost)
                           AS has_usage,
                       orchestra.total_tokens(s.input_tokens, s.output_tokens, s.total_tokens)
                           AS total_tokens
                FROM (SELECT {_USAGE} AS used) AS raw
                OFFSET 0  -- without OFFSET, each value is computed again for each use
            ) AS u
            WHERE s.absent_since IS NULL
        ) AS called
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
        names=NODE,
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


def judged_runs(runs: str) -> str:
    """Return the query of what the rollups count of each run, with its time and its hour.

    Args:
        runs: a table, or a query in parentheses.
    """
    return f"""
        SELECT r.workflow_id, COALESCE(r.start_time, r.first_seen_at) AS time,
               date_trunc('hour', COALESCE(r.start_time, r.first_seen_at), 'UTC') AS hour,
               r.organization_id, r.duration_ms,
               CASE WHEN r.state = 'succeeded' AND EXISTS (
                        SELECT FROM orchestra.steps AS s
                        WHERE s.run_id = r.id
                          AND (s.error IS NOT NULL OR s.reported_error IS NOT NULL)
                          AND s.absent_since IS NULL
                          AND orchestra.outcome(s.state, s.error, s.reported_error)
                              = 'soft_failed'
                        OFFSET 0)  -- without OFFSET, the errors of the whole history are hashed
                    THEN 'soft_failed' ELSE orchestra.outcome(r.state, r.error, NULL)
               END AS outcome
        FROM {runs} AS r
        OFFSET 0  -- without OFFSET, the steps are re-read for each outcome
    """


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
        names=NODE,
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
        names=NODE,
        counts=STEP_COUNTS,
        sums=USAGE_SUMS,
        responses=responses,
    )


def added_runs(rollup: str) -> str:
    """Return the query that adds up these rows of `run_rollup` by hour and organisation."""
    return _added_up(
        rollup, when="hour", time="r.hour", names=("organization_id",), counts=RUN_COUNTS, sums=()
    )


def step_failures(steps: str, *, known: bool = False) -> str:
    """Return the query of `step_failures` over these steps.

    Args:
        steps: a query in parentheses, with the columns of `EVERY_STEP`.
        known: take the pattern of a step from the table, if its message is the same.
    """
    pattern = "orchestra.failure_pattern(m.message)"
    join = ""
    if known:
        pattern = f"CASE WHEN k.message = m.message THEN k.pattern ELSE {pattern} END"
        join = "LEFT JOIN orchestra.step_failures AS k ON k.step_id = s.id"
    return f"""
        SELECT id AS step_id, run_id, workflow_id, node_id, organization_id, time, outcome,
               left(encode(sha256(convert_to(pattern, 'UTF8')), 'hex'), 32) AS fingerprint, pattern,
               left(message, 500) AS message
        FROM (
            SELECT s.id, s.run_id, s.counted_in AS workflow_id, s.node_id, s.organization_id,
                   s.time, o.outcome, m.message, {pattern} AS pattern
            FROM {steps} AS s
            CROSS JOIN LATERAL (
                SELECT orchestra.outcome(s.state, s.error, s.reported_error) AS outcome OFFSET 0
            ) AS o
            CROSS JOIN LATERAL (
                SELECT COALESCE(orchestra.error_message(s.error, s.reported_error), '') AS message
                OFFSET 0
            ) AS m
            {join}
            WHERE s.absent_since IS NULL
              AND (s.state = 'failed' OR s.error IS NOT NULL OR s.reported_error IS NOT NULL)
              AND o.outcome IN ('failed', 'soft_failed')
        ) AS failed
    """
