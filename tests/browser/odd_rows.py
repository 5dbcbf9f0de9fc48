"""What the simulator's history lacks: organisations, currencies, very old, open and odd runs."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import psycopg
from psycopg.types.json import Jsonb

ODD = """odd/run #1'!&<b>?~ü"""
"""A run with 120 steps, every tenth skipped; its id has characters special to URLs and pages."""
LONG_AGO = "run of long ago"
OPEN = "run that goes on"
STALE = "run given up"
FIRST = "first run of its workflow"
EDGE = "run at the end of the first hour of seven days"
MESSAGES = (
    '<b>x</b> <div style="position:fixed;inset:0">over everything</div>',
    "502 <html><body><h1>Bad Gateway</h1></body></html>",
    "a &lt;b&gt; & c",
)
EVIL = "x\u202e\x1b[31m" + 400 * "N"
"""The first node of the old run: a bidirectional override, a control character, and 400 letters."""
NODE = "node <i>of</i> markup"
DISGUISED = "run with disguised names"
DISGUISES = {
    "workflow": "pay\u202eslip\u202c <i>run</i>",
    "organisation": "ac\u200bme\x1b[31m",
    "node": "sen\u2066d\u00ad",
    "model": "gpt\u202e4\u200f",
}
"""Names that a terminal or a browser displays as other names.

They hold bidirectional overrides, invisible and control characters, and markup.
"""

_RUN = """
    INSERT INTO orchestra.runs ({columns})
    SELECT {columns} FROM (
        SELECT copy.* FROM orchestra.runs AS r, jsonb_populate_record(r, %s || jsonb_build_object(
            'start_time', now() - %s * interval '1 second', 'end_time',
            now() - %s * interval '1 second')) AS copy
        WHERE r.id = (SELECT min(id) FROM orchestra.runs
                      WHERE tracking = 'final' AND state = 'succeeded')
    ) AS copy
"""
_STEPS = """
    INSERT INTO orchestra.steps ({columns})
    SELECT {columns} FROM (
        SELECT copy.*
        FROM orchestra.runs AS r, orchestra.steps AS s, generate_series(0, %(count)s - 1) AS n,
            jsonb_populate_record(s, jsonb_build_object(
                'id', r.id || ' step ' || n, 'run_id', r.id, 'workflow_id', r.workflow_id,
                'position', n,
                'node_id', 'node_' || n, 'organization_id', r.organization_id, 'reported_error',
                null,
                'start_time', r.start_time + n * interval '1 second', 'end_time',
                r.start_time + (n + 0.9) * interval '1 second'
            )) AS copy
        WHERE r.id = %(run)s
          AND s.id = (SELECT min(id) FROM orchestra.steps
                      WHERE state = 'succeeded' AND response_model IS NULL
                        AND request_model IS NULL)
    ) AS copy
"""
_COLUMNS = """
    SELECT string_agg(quote_ident(attname), ', ') FROM pg_attribute
    WHERE attrelid = %s::regclass AND attnum > 0 AND NOT attisdropped AND attgenerated = ''
"""


def add_odd_rows(url: str) -> None:
    """Add these rows to the history, and change some of its own."""
    now = datetime.now(UTC)
    edge = now.replace(minute=59, second=59, microsecond=0) - timedelta(days=7)
    since_edge = int((now - edge).total_seconds())
    with psycopg.connect(url) as connection:
        execute = connection.execute
        copy_run, copy_steps = (
            statement.format(columns=next(execute(_COLUMNS, [table]))[0])
            for statement, table in ((_RUN, "orchestra.runs"), (_STEPS, "orchestra.steps"))
        )
        execute("UPDATE orchestra.runs SET organization_id = 'second' WHERE hashtext(id) % 3 = 0")
        execute(
            "UPDATE orchestra.steps SET organization_id = 'second' WHERE hashtext(run_id) % 3 = 0"
        )
        execute(
            "INSERT INTO orchestra.workflows SELECT copy.* FROM orchestra.workflows AS w,"
            ' jsonb_populate_record(w, \'{"id": "new", "name": "new workflow"}\') AS copy'
            " WHERE w.id = (SELECT min(id) FROM orchestra.workflows)"
        )
        execute(
            "INSERT INTO orchestra.workflows SELECT copy.*"
            " FROM orchestra.workflows AS w, jsonb_populate_record(w, %s) AS copy"
            " WHERE w.id = (SELECT min(id) FROM orchestra.workflows)",
            [Jsonb({"id": "disguised", "name": DISGUISES["workflow"]})],
        )
        for run, began, ended, steps, fields in (
            (
                DISGUISED,
                3 * 86400,
                3 * 86400 - 5,
                2,
                {
                    "state": "failed",
                    "workflow_id": "disguised",
                    "organization_id": DISGUISES["organisation"],
                },
            ),
            (ODD, 3600, 3480, 120, {"state": "succeeded"}),
            (EDGE, since_edge, since_edge - 5, 2, {"state": "succeeded"}),
            (LONG_AGO, 60 * 86400, 60 * 86400 - 5, 4, {"state": "succeeded"}),
            (OPEN, 120, 0, 3, {"state": "running", "tracking": "open"}),
            (STALE, 86400, 0, 2, {"state": "running", "tracking": "stale"}),
            (
                FIRST,
                60,
                0,
                1,
                {
                    "state": "pending",
                    "tracking": "open",
                    "workflow_id": "new",
                    "organization_id": "second",
                },
            ),
        ):
            execute(copy_run, [Jsonb({"id": run, **fields}), began, ended])
            execute(copy_steps, {"run": run, "count": steps})
        for run in (OPEN, STALE, FIRST):
            execute("UPDATE orchestra.runs SET end_time = NULL WHERE id = %s", [run])
            execute(
                "UPDATE orchestra.steps SET state = 'running', end_time = NULL WHERE run_id = %s"
                " AND position = (SELECT max(position) FROM orchestra.steps WHERE run_id = %s)",
                [run, run],
            )
            # Last read half a minute ago: later than each of their steps started.
            execute(
                "INSERT INTO orchestra_etl.run_ledger (run_id, workflow_id, source, tracking,"
                " first_seen_at, steps_observed_at) SELECT id, workflow_id, 'list', tracking,"
                " first_seen_at, now() - interval '30 seconds' FROM orchestra.runs WHERE id = %s",
                [run],
            )
        execute(
            "UPDATE orchestra.steps SET state = 'skipped', start_time = NULL, end_time = NULL"
            " WHERE run_id = %s AND position %% 10 = 5",
            [ODD],
        )
        execute(
            "UPDATE orchestra.steps SET node_id = %s WHERE run_id = %s AND position = 0",
            [EVIL, LONG_AGO],
        )
        execute(
            "UPDATE orchestra.steps SET node_id = %s, response_model = %s, node_type = "
            "'model', state = 'failed', error = %s"
            " WHERE run_id = %s AND position = 0",
            [DISGUISES["node"], DISGUISES["model"], Jsonb("no\u202ereason"), DISGUISED],
        )
        # The newest runs, so that they appear on the first page of their tables.
        newest = execute(
            "SELECT id FROM orchestra.runs WHERE tracking = 'final'"
            " AND state = 'succeeded' AND id <> %s"
            " ORDER BY start_time DESC LIMIT %s",
            [ODD, len(MESSAGES)],
        ).fetchall()
        for (run,), message in zip(newest, MESSAGES, strict=True):
            execute("UPDATE orchestra.runs SET state = 'failed' WHERE id = %s", [run])
            execute(
                "UPDATE orchestra.steps SET state = 'failed', error = %s, node_id = %s WHERE id ="
                " (SELECT id FROM orchestra.steps WHERE run_id = %s"
                " AND start_time IS NOT NULL ORDER BY position DESC LIMIT 1)",
                [Jsonb(message), NODE, run],
            )
        execute(
            (
                "UPDATE orchestra.steps SET state = 'failed', error = '\"too long\"'"
                " WHERE run_id = %s AND position = 119"
            ),
            [ODD],
        )
        for rule, node, metric, value, hours, lasted in (
            ("runs fail", None, "failure_rate", 0.431, 1, None),
            ("a node is slow", DISGUISES["node"], "duration_p95", 95.0, 48, 2),
        ):
            execute(
                "INSERT INTO orchestra_etl.alert_episodes (rule, subject, sequence, workflow_id,"
                " node, metric, value, threshold, fired_at, resolved_at)"
                " SELECT %s, min(id), 1, min(id), %s, %s, %s, 0.2, now() - %s * interval '1 hour',"
                " now() - (%s - %s) * interval '1 hour' FROM orchestra.workflows",
                [rule, node, metric, value, hours, hours, lasted],
            )
