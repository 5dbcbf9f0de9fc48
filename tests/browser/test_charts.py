"""Every chart, as a viewer sees it, equals SQL over the tables, never over the views that it reads.

Both use the same SQL functions for what counts as a call and for its cost. Other tests compare
these functions with plain Python.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache
from typing import Any, NamedTuple

import pytest
from playwright.sync_api import Page

from etl.usage import KINDS
from tests.browser.dashboards import (
    DASHBOARDS,
    Shown,
    Superset,
    apply,
    become,
    choose,
    displayed,
    draw,
    is_disguised,
    milliseconds,
    open_dashboard,
    refresh,
)
from tests.browser.odd_rows import MESSAGES, NODE
from tests.support import query

# Placeholders: `now` is the time of the chart's query, `since` the start of its time range, `run`
# the run of the run dashboard.
FACTS = """
    WITH every_run AS (
        SELECT r.*, w.name AS workflow_name, COALESCE(r.start_time, r.first_seen_at) AS at,
               COALESCE(GREATEST(l.run_observed_at, l.steps_observed_at), r.first_seen_at)
                   AS observed_at,
               COALESCE(r.duration_ms, 1000 * extract(
                   epoch FROM GREATEST(l.run_observed_at, l.steps_observed_at)
                       - COALESCE(r.start_time, r.first_seen_at))) AS elapsed_ms,
               date_trunc('hour', COALESCE(r.start_time, r.first_seen_at)) AS hour,
               CASE WHEN r.state = 'succeeded' AND (r.error IS NOT NULL OR EXISTS (
                   SELECT FROM orchestra.steps AS s
                   WHERE s.run_id = r.id AND s.state = 'succeeded' AND s.absent_since IS NULL
                     AND num_nonnulls(s.error, s.reported_error) > 0
               )) THEN 'Soft-failed' ELSE initcap(r.state) END AS outcome_label
        FROM orchestra.runs AS r JOIN orchestra.workflows AS w ON w.id = r.workflow_id
        LEFT JOIN orchestra_etl.run_ledger AS l ON l.run_id = r.id
    ), timed AS (
        SELECT s.*, COALESCE(s.start_time, r.start_time, r.first_seen_at) AS at,
               COALESCE(s.response_model, s.request_model) AS model,
               CASE WHEN s.state = 'succeeded' AND num_nonnulls(s.error, s.reported_error) > 0
                    THEN 'Soft-failed'
                    ELSE initcap(s.state) END AS outcome_label,
               COALESCE(s.error ->> 'message', s.error #>> '{{}}', s.reported_error) AS message
        FROM orchestra.steps AS s JOIN orchestra.runs AS r ON r.id = s.run_id
        WHERE s.absent_since IS NULL
    ), used AS (
        SELECT t.*, CAST(ROW({usage}) AS orchestra.usage) AS used,
               lower(replace(t.outcome_label, '-', '_')) AS outcome
        FROM timed AS t
    ), called AS (
        SELECT u.*, orchestra.has_usage(u.used, u.total_tokens, u.reported_cost) AS has_usage,
               orchestra.is_call(u.state, u.node_type, u.model, u.finish_reason,
                                 orchestra.has_usage(u.used, u.total_tokens,
                                                     u.reported_cost)) AS is_call
        FROM used AS u
    ), priced AS (
        SELECT c.*, p AS prices, p.provider,
               CASE WHEN c.is_call THEN orchestra.call_cost(c.used, 1, p) END AS cost
        FROM called AS c
        LEFT JOIN orchestra.prices AS p
          ON p.model = c.model
            AND NOT orchestra.is_unmetered(c.outcome, c.is_call, c.has_usage, c.used)
         AND orchestra.price_applies(p, c.service_tier, orchestra.context_tier(c.input_tokens),
                                     c.at)
    ), every_step AS (
        SELECT t.*, w.name AS workflow_name, w.name || ' · ' || t.node_id AS node,
               CASE WHEN t.cost IS NOT NULL THEN (t.prices).currency END AS currency,
               date_trunc('hour', t.at) AS hour, CAST(t.at AS date) AS day
        FROM priced AS t
        JOIN orchestra.workflows AS w ON w.id = t.workflow_id
    ), runs AS (SELECT * FROM every_run WHERE at >= '{since}'),
    steps AS (SELECT * FROM every_step WHERE at >= '{since}'),
    calls AS (SELECT * FROM steps WHERE is_call),
    failures AS (SELECT * FROM steps WHERE outcome_label IN ('Failed', 'Soft-failed')),
    open AS (
        SELECT r.*, GREATEST(0, 1000 * extract(epoch FROM observed_at - at)) AS age_ms,
               (SELECT percentile_disc(0.95) WITHIN GROUP (ORDER BY u.duration_ms)
                FROM every_run AS u
                WHERE u.workflow_id = r.workflow_id AND u.outcome_label = 'Succeeded'
                  AND u.at >= CAST('{now}' AS timestamptz) - interval '30 days') AS usual
        FROM every_run AS r
        WHERE state IN ('pending', 'running', 'unknown') AND tracking = 'open'
    ), one AS (SELECT * FROM every_run WHERE id = '{run}'),
    of_one AS (SELECT * FROM every_step WHERE run_id = '{run}')
"""
RATE = """
    count(*) FILTER (WHERE outcome_label = 'Succeeded')
    / nullif(count(*) FILTER (
        WHERE outcome_label IN ('Succeeded', 'Soft-failed', 'Failed')
    ), 0)::float
"""
TIMED = "outcome_label = 'Succeeded' AND duration_ms >= 0"
"""The runs and steps that percentiles count."""
BUSY_SECONDS = 15
"""By how many seconds Superset's time of a query may be later than the database's."""
ALWAYS = (
    "Behind",
    "Pipeline now",
    "Alerts firing",
    "Alerts now: firing first, then the latest",
)
"""Charts that no filter narrows."""
CHOICES = {
    "overview": {"Workflow": "weather jokes", "Organisation": "second", "Grain": "Day"},
    "nodes": {"Workflow": "weather jokes", "Organisation": "second", "Grain": "Week"},
    "failures": {"Workflow": "weather jokes", "Organisation": "second"},
    "models": {"Workflow": "weather jokes", "Organisation": "second", "Grain": "Day"},
    "run": {"Workflow": "weather jokes", "Organisation": "second"},
}
OTHER_WORKFLOW = "support triage"
FAILURE_KINDS = "Kinds of failure: click one to see its failures below"


def _count(**outcomes: str) -> str:
    return ", ".join(
        f"count(*) FILTER (WHERE outcome_label IN ({labels})) AS {name}"
        for name, labels in outcomes.items()
    )


def _quantile(q: float) -> str:
    return f"percentile_disc({q}) WITHIN GROUP (ORDER BY duration_ms) FILTER (WHERE {TIMED})"


class Tile(NamedTuple):
    """A big number."""

    dashboard: str
    title: str
    format: str
    """The format of the number.

    It is a Python format, `duration`, `2 %` for a duration from a histogram, or `passes` for the
    time since an event.
    """
    sql: str


TILES = (
    Tile("overview", "Runs", ",d", "SELECT count(*) FROM runs"),
    Tile("overview", "Success rate", ".1%", f"SELECT {RATE} FROM runs"),
    Tile("overview", "p95 duration", "2 %", f"SELECT {_quantile(0.95)} FROM runs"),
    Tile("overview", "Cost (USD)", "$,.2f", "SELECT sum(cost) FROM calls WHERE currency = 'USD'"),
    Tile("overview", "Open runs", ",d", "SELECT count(*) FROM open"),
    Tile("overview", "Overdue", ",d", "SELECT count(*) FROM open WHERE age_ms > usual"),
    Tile(
        "overview",
        "Alerts firing",
        ",d",
        "SELECT count(*) FROM orchestra_etl.alert_episodes WHERE resolved_at IS NULL",
    ),
    Tile("overview", "Behind", "passes", "SELECT min(swept_at) FROM orchestra_etl.sweeps"),
    Tile("nodes", "Steps", ",d", "SELECT count(*) FROM steps"),
    Tile("nodes", "Step success rate", ".1%", f"SELECT {RATE} FROM steps"),
    Tile("nodes", "p50 duration", "2 %", f"SELECT {_quantile(0.5)} FROM steps"),
    Tile("nodes", "p95 duration", "2 %", f"SELECT {_quantile(0.95)} FROM steps"),
    Tile("failures", "Failures", ",d", "SELECT count(*) FROM failures"),
    Tile(
        "failures",
        "Soft failures",
        ",d",
        "SELECT count(*) FROM failures WHERE outcome_label = 'Soft-failed'",
    ),
    Tile("failures", "Runs affected", ",d", "SELECT count(DISTINCT run_id) FROM failures"),
    Tile(
        "failures",
        "Kinds",
        ",d",
        """SELECT count(*)
           FROM (SELECT DISTINCT workflow_id, node_id, outcome_label,
                 orchestra.failure_pattern(message)
           FROM failures) AS kinds""",
    ),
    Tile("models", "Model calls", ",d", "SELECT count(*) FROM calls"),
    Tile("models", "Tokens", ",d", "SELECT sum(total_tokens) FROM calls"),
    Tile("models", "Cost (USD)", "$,.2f", "SELECT sum(cost) FROM calls WHERE currency = 'USD'"),
    Tile(
        "models",
        "Cached",
        ".1%",
        """SELECT sum(cached_input_tokens) / CAST(sum(input_tokens) FILTER (WHERE known) AS float)
           FROM (
           SELECT c.*, count(cached_input_tokens) OVER (
                       PARTITION BY hour, workflow_id, organization_id, node_id, node_type, model,
                                    service_tier, orchestra.context_tier(input_tokens),
                                    usage_kinds) > 0 AS known
               FROM calls AS c) AS c""",
    ),
    Tile("models", "Unpriced calls", ",d", "SELECT count(*) FROM calls WHERE cost IS NULL"),
    Tile(
        "run",
        "Duration",
        "duration",
        "SELECT 1000 * extract(epoch FROM end_time - start_time) FROM one",
    ),
    Tile("run", "Steps", ",d", "SELECT count(*) FROM of_one"),
    Tile("run", "Tokens", ",d", "SELECT sum(total_tokens) FROM of_one"),
    Tile("run", "Cost (USD)", "$,.4f", "SELECT sum(cost) FROM of_one WHERE currency = 'USD'"),
)


class Chart(NamedTuple):
    """A trend or a table."""

    dashboard: str
    title: str
    keys: tuple[str, ...]
    """Columns that identify a row; (x, "series") for a chart with one series per value."""
    sql: str
    at_most: int | None = None
    """The number of slowest rows that the chart shows.

    Its histograms decide which ones, since two may be equally slow.
    """


def _explained(figure: str, causes: Mapping[str, str], column: str) -> str:
    """Return the parts of the difference between two weeks; the last cause has the rest."""
    *names, rest = [f"{ordinal} {cause}" for ordinal, cause in enumerate(causes.values(), 1)]
    known = " ".join(
        f"WHEN '{part}' THEN '{name}'" for part, name in zip(causes, names, strict=False)
    )
    return f"""
        SELECT CASE e.part {known} ELSE '{rest}' END AS cause, sum(e.amount) AS {column}
        FROM (SELECT date_trunc('hour', CAST('{{now}}' AS timestamptz)) AS until) AS at
        CROSS JOIN orchestra.workflows AS w
        CROSS JOIN LATERAL orchestra.explain_{figure}(
            w.id, at.until - interval '7 days', at.until, at.until - interval '14 days',
            at.until - interval '7 days') AS e
        WHERE e.part <> 'baseline'
        GROUP BY 1
    """


CHARTS = (
    Chart(
        "overview",
        "Pipeline now",
        (),
        """SELECT (SELECT max(start_time) FROM every_run) AS newest_run_start,
                  (SELECT min(swept_at) FROM orchestra_etl.sweeps) AS swept_at,
                  (SELECT count(*) FROM orchestra_etl.dead_letters
                   WHERE resolved_at IS NULL) AS dead_letters,
                  (SELECT count(*) FROM orchestra_etl.gaps
                   WHERE acknowledged_at IS NULL) AS unacknowledged_gaps,
                  (SELECT count(*) FROM orchestra_etl.changed_groups) AS waiting_groups""",
    ),
    Chart(
        "overview",
        "Alerts now: firing first, then the latest",
        ("rule_shown", "fired_at"),
        """SELECT rule AS rule_shown, fired_at, resolved_at,
                  CASE WHEN resolved_at IS NULL THEN 'firing' ELSE 'resolved' END AS state,
                  replace(metric, '_', ' ') AS metric_label,
                  CASE metric WHEN 'failure_rate' THEN '43.1 %' ELSE '95.0 s' END AS value_text,
                  COALESCE(node, '') AS subject_shown
           FROM orchestra_etl.alert_episodes""",
    ),
    Chart(
        "overview",
        "Failed steps: why they differ from the week before",
        ("cause",),
        _explained(
            "failures",
            {
                "runs": "Runs",
                "new": "New",
                "grown": "Grown",
                "shrunk": "Shrunk",
                "gone": "Gone",
                "pruned": "Pruned",
            },
            "failure_change",
        ),
    ),
    Chart(
        "models",
        "Cost: why it differs from the week before",
        ("cause",),
        _explained(
            "cost",
            {
                "runs": "Runs",
                "version": "Version",
                "nodes": "Nodes",
                "calls": "Calls per run",
                "models": "Models",
                "usage": "Usage per call",
                "prices": "Prices",
                "unpriced": "Without a price",
            },
            "cost_change",
        ).replace("<> 'baseline'", "<> 'baseline' AND e.currency = 'USD'"),
    ),
    Chart(
        "overview",
        "Runs by outcome",
        ("hour",),
        "SELECT hour, "
        + _count(
            runs_succeeded="'Succeeded'",
            runs_soft_failed="'Soft-failed'",
            runs_failed="'Failed'",
            runs_cancelled="'Cancelled'",
            runs_skipped="'Skipped'",
            runs_unfinished="'Running', 'Pending', 'Unknown'",
        )
        + " FROM runs GROUP BY hour",
    ),
    Chart(
        "overview",
        "Success rate by workflow",
        ("hour", "series"),
        (
            f"SELECT date_trunc('day', hour) AS hour, workflow_name AS series, {RATE} AS value"
            " FROM runs GROUP BY 1, 2"
        ),
    ),
    Chart(
        "overview",
        "Run duration, p50 and p95",
        ("hour",),
        (
            f"SELECT hour, {_quantile(0.5)} AS p50_ms, {_quantile(0.95)} AS p95_ms FROM runs"
            " GROUP BY hour"
        ),
    ),
    Chart(
        "overview",
        "Model cost by workflow",
        ("hour", "series"),
        (
            "SELECT hour, workflow_name AS series, sum(cost) AS value FROM calls"
            " WHERE currency = 'USD' GROUP BY 1, 2"
        ),
    ),
    Chart(
        "overview",
        "Workflows",
        ("workflow_shown",),
        f"""SELECT workflow_name AS workflow_shown, count(*) AS total_runs, {RATE} AS success_rate,
                   {_quantile(0.5)} AS p50_ms,
                   {_quantile(0.95)} AS p95_ms,
                   {_count(runs_soft_failed="'Soft-failed'", runs_failed="'Failed'")}
            FROM runs GROUP BY workflow_name""",
    ),
    Chart(
        "overview",
        "Open runs now, oldest first",
        ("run_id",),
        """SELECT id AS run_id, start_time, age_ms, usual AS usual_p95_ms,
                  CASE WHEN age_ms > usual THEN 'yes' ELSE 'no' END
                  AS overdue_label, observed_at,
                  COALESCE((SELECT s.node_id FROM every_step AS s
                            WHERE s.run_id = open.id AND s.state = 'running'
                            ORDER BY s.start_time, s.position, s.id LIMIT 1), 'none') AS node_text
           FROM open""",
    ),
    Chart(
        "overview",
        "Latest runs",
        ("run_id",),
        """SELECT r.id AS run_id, r.workflow_name AS workflow_text, r.outcome_label, r.start_time,
                  r.elapsed_ms, (SELECT count(*) FROM every_step AS s
                                 WHERE s.run_id = r.id) AS steps,
                  (SELECT CASE WHEN count(total_tokens) > 0 OR NOT COALESCE(bool_or(is_call), false)
                               THEN COALESCE(sum(total_tokens), 0) END
                   FROM every_step AS s WHERE s.run_id = r.id) AS total_tokens,
                  (SELECT CASE WHEN count(DISTINCT currency) = 1 AND min(currency) = 'USD'
                                    AND count(*)
                                    FILTER (WHERE is_call AND cost IS NULL) = 0 THEN sum(cost) END
                   FROM every_step AS s WHERE s.run_id = r.id) AS usd
           FROM runs AS r ORDER BY r.start_time DESC LIMIT 20""",
    ),
    Chart(
        "nodes",
        "Slowest nodes",
        ("node",),
        (
            f"SELECT node, {_quantile(0.5)} AS p50_ms, {_quantile(0.95)} AS p95_ms FROM steps"
            f" WHERE {TIMED} GROUP BY node"
        ),
        at_most=15,
    ),
    Chart(
        "nodes",
        "p95 duration by node",
        ("day", "series"),
        f"""SELECT date_trunc('day', hour) AS day, node AS series, {_quantile(0.95)} AS value
            FROM steps
            WHERE {TIMED} GROUP BY 1, 2""",
        at_most=6,
    ),
    Chart(
        "nodes",
        "Nodes",
        ("workflow_shown", "node_shown", "node_type_shown"),
        f"""SELECT workflow_name AS workflow_shown, node_id AS node_shown,
                   node_type AS node_type_shown,
                   {_quantile(0.95)} AS p95_ms, {_quantile(0.5)} AS p50_ms,
                   count(*) AS total_steps, {RATE} AS success_rate,
                   {_count(steps_failed="'Failed'", steps_soft_failed="'Soft-failed'")},
                   {_count(steps_skipped="'Skipped'")}
            FROM steps GROUP BY 1, 2, 3""",
    ),
    Chart(
        "nodes",
        "Failed and soft-failed steps by hour",
        ("hour",),
        f"""SELECT hour, {_count(steps_failed="'Failed'", steps_soft_failed="'Soft-failed'")}
            FROM steps GROUP BY hour""",
    ),
    Chart(
        "nodes",
        "Nodes in the last 24 hours, regardless of the days",
        ("workflow_shown", "node_shown"),
        f"""SELECT workflow_name AS workflow_shown, node_id AS node_shown,
                   {_quantile(0.95)} AS p95_ms, {_quantile(0.5)} AS p50_ms,
                   count(*) AS total_steps, {RATE} AS success_rate,
                   {_count(steps_failed="'Failed'", steps_soft_failed="'Soft-failed'")}
            FROM steps GROUP BY 1, 2""",
    ),
    Chart(
        "failures",
        "Failures by hour",
        ("time", "series"),
        (
            "SELECT hour AS time, outcome_label AS series, count(*) AS value FROM failures"
            " GROUP BY 1, 2"
        ),
    ),
    Chart(
        "failures",
        "Failures by node",
        ("node", "series"),
        "SELECT node, outcome_label AS series, count(*) AS value FROM failures GROUP BY 1, 2",
    ),
    Chart(
        "failures",
        FAILURE_KINDS,
        ("pattern_shown", "workflow_shown", "node_shown", "outcome_label"),
        """SELECT orchestra.failure_pattern(message) AS pattern_shown,
                  workflow_name AS workflow_shown,
                  node_id AS node_shown, outcome_label, count(*) AS failed_steps,
                  count(DISTINCT run_id) AS affected_runs, min(at) AS first_time,
                  max(at) AS last_time
           FROM failures GROUP BY 1, 2, 3, 4""",
    ),
    Chart(
        "failures",
        "Latest failures",
        ("run_id", "time"),
        """SELECT run_id, at AS time, workflow_name AS workflow_text, outcome_label
           FROM failures ORDER BY at DESC LIMIT 20""",
    ),
    Chart(
        "models",
        "Cost by model",
        ("hour", "series"),
        """SELECT hour, CASE WHEN rank <= 10 THEN model ELSE 'Others' END AS series,
                  sum(cost) FILTER (WHERE currency = 'USD') AS value
           FROM calls AS c JOIN (
               SELECT model,
                      row_number() OVER (ORDER BY COALESCE(sum(total_tokens), 0) DESC) AS rank
                      FROM calls GROUP BY model
           ) AS m USING (model) GROUP BY 1, 2""",
    ),
    Chart(
        "models",
        "Tokens by kind",
        ("hour",),
        """SELECT hour,
                  COALESCE(sum(input_tokens - COALESCE(cached_input_tokens, 0)
                               - COALESCE(cache_write_tokens, 0)), 0)
                      AS plain_input,
                  COALESCE(sum(cached_input_tokens), 0) AS plain_cached,
                  COALESCE(sum(cache_write_tokens), 0) AS plain_written,
                  COALESCE(sum(output_tokens - COALESCE(reasoning_tokens, 0)), 0) AS plain_output,
                  COALESCE(sum(reasoning_tokens), 0) AS plain_reasoning,
                  COALESCE(sum(other_tokens), 0) AS plain_other
           FROM calls GROUP BY hour""",
    ),
    Chart(
        "models",
        "Models",
        ("model_label", "provider_label"),
        """SELECT model AS model_label, COALESCE(provider, 'not known') AS provider_label,
                  count(*) AS total_calls,
                  sum(input_tokens) AS tokens_input, sum(cached_input_tokens) AS tokens_cached,
                  sum(cache_write_tokens) AS tokens_written, sum(output_tokens) AS tokens_output,
                  sum(reasoning_tokens) AS tokens_reasoning, sum(web_searches) AS searches,
                  sum(media) FILTER (WHERE has_media) AS tokens_media,
                  sum(cost) FILTER (WHERE currency = 'USD') AS cost_usd,
                  count(*) FILTER (WHERE cost IS NULL) AS calls_unpriced
           FROM (SELECT *, num_nonnulls(input_audio_tokens, input_image_tokens,
                                        input_video_tokens, output_audio_tokens,
                                        output_image_tokens, output_video_tokens) > 0 AS has_media,
                        COALESCE(input_audio_tokens, 0) + COALESCE(input_image_tokens, 0)
                        + COALESCE(input_video_tokens, 0)
                        + COALESCE(output_audio_tokens, 0) + COALESCE(output_image_tokens, 0)
                        + COALESCE(output_video_tokens, 0) AS media
                 FROM calls) AS calls GROUP BY 1, 2""",
    ),
    Chart(
        "models",
        "Cost by currency",
        ("priced_in",),
        """SELECT COALESCE(currency, 'unpriced') AS priced_in, count(*) AS total_calls,
                  sum(cost) AS cost_any
           FROM calls GROUP BY 1""",
    ),
    Chart(
        "models",
        "Workflows and models",
        ("workflow_shown", "model_label"),
        """SELECT workflow_name AS workflow_shown, model AS model_label,
                  COALESCE(sum(total_tokens), 0) AS tokens, count(*) AS total_calls,
                  sum(cost) FILTER (WHERE currency = 'USD') AS cost_usd,
                  count(*) FILTER (WHERE cost IS NULL) AS calls_unpriced
           FROM calls GROUP BY 1, 2""",
    ),
    Chart(
        "models",
        "Tokens by workflow",
        ("workflow_shown", "series"),
        """SELECT c.workflow_name AS workflow_shown, CASE WHEN rank <= 10 THEN model
                                                          ELSE 'Others' END AS series,
                  COALESCE(sum(total_tokens), 0) AS value
           FROM calls AS c JOIN (
               SELECT model,
                      row_number() OVER (ORDER BY COALESCE(sum(total_tokens), 0) DESC) AS rank
                      FROM calls GROUP BY model
           ) AS m USING (model) GROUP BY 1, 2""",
    ),
    Chart(
        "models",
        "Cost by provider",
        ("provider_label", "series"),
        """SELECT COALESCE(c.provider, 'not known') AS provider_label,
                  CASE WHEN rank <= 10 THEN model ELSE 'Others' END AS series,
                  sum(cost) FILTER (WHERE currency = 'USD') AS value
           FROM calls AS c JOIN (
               SELECT model,
                      row_number() OVER (ORDER BY COALESCE(sum(total_tokens), 0) DESC) AS rank
                      FROM calls GROUP BY model
           ) AS m USING (model) GROUP BY 1, 2""",
    ),
    Chart(
        "models",
        "Why calls have no price",
        ("model_label", "why"),
        """SELECT model AS model_label, 'the model has no price' AS why, count(*) AS calls_unpriced
           FROM calls WHERE cost IS NULL GROUP BY 1""",
    ),
    Chart(
        "models",
        "Responses cut off",
        ("model_label",),
        """SELECT model AS model_label, count(*) AS total_responses,
                  count(*) FILTER (WHERE orchestra.is_cut_off(finish_reason)) AS responses_cut_off,
                  avg(CASE WHEN orchestra.is_cut_off(finish_reason) THEN 1.0
                           ELSE 0 END) AS cut_off_share, 0 AS calls_uncounted
           FROM calls WHERE finish_reason IS NOT NULL GROUP BY 1""",
    ),
    Chart(
        "models",
        "Cost beside what providers report",
        ("model_label", "provider_label"),
        """SELECT model AS model_label, COALESCE(provider, 'not known') AS provider_label,
                  count(*) FILTER (WHERE currency = 'USD') AS compared_calls,
                  count(*) FILTER (WHERE currency IS DISTINCT FROM 'USD') AS not_compared,
                  sum(cost) FILTER (WHERE currency = 'USD') AS cost_usd,
                  sum(reported_cost) FILTER (WHERE currency = 'USD') AS reported_usd,
                  sum(cost) FILTER (WHERE currency = 'USD') / sum(reported_cost)
                  FILTER (WHERE currency = 'USD') AS cost_ratio
           FROM calls WHERE reported_cost IS NOT NULL GROUP BY 1, 2""",
    ),
    Chart(
        "run",
        "The run",
        ("run_shown",),
        """SELECT id AS run_shown, workflow_name AS workflow_shown, outcome_label, tracking,
                  start_time, end_time,
                  organization_id AS organisation_shown,
                  elapsed_ms, user_id AS user_shown,
                  (SELECT count(*) FROM of_one WHERE is_call AND cost IS NULL) AS unpriced_calls
           FROM one""",
    ),
    Chart(
        "run",
        "Waterfall",
        ("step",),
        """SELECT position + 1 || ' ' || node_id AS step, outcome_label, start_time,
                  end_time AS until FROM of_one
           WHERE start_time IS NOT NULL""",
    ),
    Chart(
        "run",
        "Its first error",
        (),
        """SELECT node_id AS error_node, message AS error FROM of_one WHERE outcome_label = 'Failed'
           ORDER BY start_time LIMIT 1""",
    ),
    Chart(
        "run",
        "Step by step",
        ("step",),
        """SELECT position + 1 || ' ' || node_id AS step, node_type AS node_type_shown,
                  outcome_label,
                  duration_ms AS elapsed_ms, COALESCE(model, '') AS model_shown,
                  COALESCE(to_char(cost, 'FM990.00000') || ' ' || currency, '') AS cost_shown,
                  COALESCE(message, '') AS error_shown
           FROM of_one""",
    ),
)


def _run_sql(url: str, shown: Shown, title: str, run: str, sql: str) -> list[dict[str, Any]]:
    since = shown.since[title] or "-infinity"
    usage = ", ".join(f"t.{kind.name}" for kind in KINDS)
    rows = query(
        url,
        FACTS.format(since=since, run=run, now=shown.asked_at[title].isoformat(), usage=usage)
        + sql.replace("{now}", shown.asked_at[title].isoformat()),
    )
    return [{column: _displayed(column, value) for column, value in row.items()} for row in rows]


def _displayed(column: str, value: Any) -> Any:
    """Return a value of a column of names as the dashboards write it."""
    if not isinstance(value, str):
        return value
    if column == "node" or (column == "series" and " · " in value):
        return displayed(value, most=56, kept=48, mark="… ", digits=4)
    if column in ("model_label", "series", "workflow_shown"):
        return displayed(value)
    # Only tables have these columns, no chart.
    return (
        displayed(value, markup=False)
        if column == "provider_label" or column.endswith("_shown")
        else value
    )


@pytest.fixture(scope="module")
def page(page: Page, superset: Superset) -> Iterator[Page]:
    """Provide the page while viewer is signed in."""
    become(page, superset, "viewer")
    yield page
    become(page, superset, "admin")


@pytest.fixture(scope="module")
def shown(page: Page, superset: Superset, failed_run: str) -> Callable[[str], Shown]:
    """Provide each dashboard as first opened, once, with a failed run."""

    @cache
    def shown(name: str) -> Shown:
        # A new page of the overview and of the run loads everything; the others follow a link.
        run = failed_run if name == "run" else None
        return open_dashboard(page, superset, name, run=run, reload=name in ("overview", "run"))

    return shown


@pytest.mark.parametrize("name", DASHBOARDS)
def test_every_chart_follows_every_filter(
    page: Page, superset: Superset, shown: Callable[[str], Shown], name: str
) -> None:
    """The viewer sees each dashboard, plain, filtered and refreshed, without an error."""
    opened = shown(name)
    # The address of the run dashboard has a run, and `shown` may have opened it earlier.
    if name == "run" or f"/orchestra-{name}/" not in page.url:
        opened = open_dashboard(page, superset, name)
    assert opened.errors == []
    choices = CHOICES[name]
    # The newest run is shown; a choice that leaves it the newest would change nothing.
    if name == "run" and opened.rows["The run"][0]["workflow_shown"] == choices["Workflow"]:
        choices = {**choices, "Workflow": OTHER_WORKFLOW}

    def filter_() -> None:
        if name == "overview":
            refresh(page)
        for label, option in choices.items():
            choose(page, label, option)
        apply(page)

    narrowed = draw(page, superset, name, filter_, unfiltered=ALWAYS)
    assert [error for error in narrowed.errors if "No results" not in error] == []


def _name(one: Tile | Chart) -> str:
    return f"{one.dashboard}: {one.title}"


@pytest.mark.parametrize("tile", TILES, ids=_name)
def test_a_big_number_is_that_of_the_tables(
    tile: Tile, shown: Callable[[str], Shown], history_url: str, failed_run: str
) -> None:
    """A big number equals SQL over the tables for exactly the dashboard's time range."""
    dashboard = shown(tile.dashboard)
    [row] = _run_sql(history_url, dashboard, tile.title, failed_run, tile.sql)
    [value] = row.values()
    written = dashboard.number(tile.title)
    if tile.format == "passes":
        passed = (dashboard.asked_at[tile.title] - value).total_seconds()
        assert milliseconds(written) / 1000 == pytest.approx(passed, abs=BUSY_SECONDS)
    elif tile.format == "2 %":
        # The tolerance is 2 % for the histogram, and the last written digit.
        assert milliseconds(written) == pytest.approx(
            value, rel=0, abs=0.02 * value + (100 if value > 1000 else 1)
        )
    elif tile.format == "duration":
        assert milliseconds(written) == pytest.approx(float(value), abs=100 if value > 1000 else 1)
    else:
        sign, form = ("$", tile.format[1:]) if tile.format.startswith("$") else ("", tile.format)
        assert written == f"{sign}{int(value) if form == ',d' else value:{form}}"


@pytest.mark.parametrize("chart", CHARTS, ids=_name)
def test_a_chart_is_that_of_the_tables(
    chart: Chart, shown: Callable[[str], Shown], history_url: str, failed_run: str
) -> None:
    """Every row or bucket of a chart equals SQL over the tables, and a table shows as many rows."""
    dashboard = shown(chart.dashboard)
    rows = dashboard.rows[chart.title]
    expected = _run_sql(history_url, dashboard, chart.title, failed_run, chart.sql)

    if written := dashboard.tables[chart.title]:
        assert len(written) == len(rows)
    if chart.keys[1:] == ("series",):
        rows = _unfolded(rows, chart.keys[0])
    found = _by_key(rows, chart.keys)
    wanted = _by_key(expected, chart.keys)
    # The chart shows hours without a failure too.
    empty = {
        key
        for key, row in found.items()
        if not any(value for name, value in row.items() if name not in chart.keys)
    }
    assert found.keys() - empty <= wanted.keys()
    if chart.at_most is not None:
        assert len({key[-1] for key in found}) == chart.at_most
        wanted = {key: row for key, row in wanted.items() if key in found}
    for key, row in wanted.items():
        if key not in found and not row.get("value", 1):
            continue  # There is nothing to draw.
        for column, value in row.items():
            assert found[key][column] == _near(column, value, chart.title), (key, column)


@pytest.mark.parametrize("name", DASHBOARDS)
def test_every_chart_is_drawn(shown: Callable[[str], Shown], name: str) -> None:
    """Every chart gets rows with one request, without an error, a warning or a foreign host.

    The overview requests them again after a minute.
    """
    dashboard = shown(name)
    assert dashboard.errors == []
    if name != "overview":
        assert dashboard.requests == dict.fromkeys(dashboard.rows, 1)
    assert [title for title, rows in dashboard.rows.items() if not rows] == []
    assert dashboard.other_hosts == set()


@pytest.mark.parametrize(
    ("name", "title"),
    [("failures", "Latest failures"), ("failures", FAILURE_KINDS), ("overview", "Latest runs")],
)
def test_markup_in_data_is_shown_as_text(
    shown: Callable[[str], Shown], name: str, title: str
) -> None:
    """Markup in messages and node names appears as text in the tables, never as an element."""
    cells = [cell for row in shown(name).table(title) for cell in row]
    # The pattern of a failure leaves out quoted text and numbers.
    assert [
        message
        for message in MESSAGES[2 if title == FAILURE_KINDS else 0 :]
        if message not in cells
    ] == []
    assert (NODE in cells) == (name == "failures")
    assert shown(name).elements <= {"A", "DIV", "SPAN"}


@pytest.mark.parametrize("name", DASHBOARDS)
def test_no_name_is_disguised(shown: Callable[[str], Shown], name: str) -> None:
    """A chart gets no control, invisible or bidirectional characters, only marked names."""
    rows = [row for title, rows in shown(name).rows.items() for row in rows]
    # A click filters by the id in a hidden column.
    texts = {
        text
        for row in rows
        for column, value in row.items()
        if column != "run_id"
        for text in (column, value)
    }
    texts = {text for text in texts if isinstance(text, str)}
    assert {text for text in texts if is_disguised(text.replace("\ufffd", ""))} == set()
    assert any("\ufffd" in text for text in texts) == (name != "run")


def test_every_dashboard_links_to_the_others(
    shown: Callable[[str], Shown], superset: Superset
) -> None:
    """Every dashboard links to the other four and to nothing else."""
    addresses = {
        name: f"{superset.address}/superset/dashboard/orchestra-{name}/" for name in DASHBOARDS
    }
    for name in DASHBOARDS:
        assert shown(name).links | {addresses[name]} == set(addresses.values())


def test_a_node_without_a_duration_comes_last(shown: Callable[[str], Shown]) -> None:
    """The table of nodes begins with the slowest, and ends with a node without an ended step."""
    durations = [row["p95_ms"] for row in shown("nodes").rows["Nodes"]]
    assert durations[-1] is None
    ended = [duration for duration in durations if duration is not None]
    assert durations[: len(ended)] == sorted(ended, reverse=True)


def test_no_chart_is_left_out(shown: Callable[[str], Shown]) -> None:
    """Each chart of each dashboard is in one of the lists above."""
    for name in DASHBOARDS:
        compared = {one.title for one in (*TILES, *CHARTS) if one.dashboard == name}
        assert shown(name).rows.keys() == compared


def _unfolded(rows: Iterable[Mapping[str, Any]], x: str) -> list[dict[str, Any]]:
    return [
        {x: row[x], "series": series, "value": value}
        for row in rows
        for series, value in row.items()
        if series != x and value is not None
    ]


def _by_key(
    rows: Iterable[Mapping[str, Any]], keys: tuple[str, ...]
) -> dict[tuple[Any, ...], dict[str, Any]]:
    """Return the rows by these columns, with times in milliseconds since 1970, as in a chart."""
    plain = [{name: _plain(value) for name, value in row.items()} for row in rows]
    found = {tuple(row[key] for key in keys): row for row in plain}
    assert len(found) == len(plain), "two rows with the same key"
    return found


def _plain(value: Any) -> Any:
    if hasattr(value, "timestamp"):
        return round(value.timestamp() * 1000)
    if isinstance(value, float) and value > 1e12:
        return round(value)
    return value


def _near(column: str, value: Any, title: str) -> Any:
    if value is None or isinstance(value, str):
        return value
    if column.startswith(("p50", "p95", "usual_p95")) or title.startswith("p95"):
        return pytest.approx(float(value), rel=0.02, abs=0.6)
    if column in ("age_ms", "elapsed_ms"):
        return pytest.approx(float(value), rel=1e-6, abs=1)
    return pytest.approx(float(value), rel=1e-6, abs=1e-9)
