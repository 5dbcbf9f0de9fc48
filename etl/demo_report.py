"""What the demo shows of its data: a summary of the workflows, the alerts, and examples of SQL."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Group
from rich.table import Table
from rich.text import Text
from sqlalchemy import Connection, text

from etl.database import Database

if TYPE_CHECKING:
    from rich.console import Console

_CHECKOUT = Path(__file__).parents[1] / "config" / "superset"
"""The folder of the dashboards in a checkout; an installed package has none."""

_SUMMARY = text("""
    SELECT w.name, r.runs, r.succeeded, r.failed, r.cancelled, r.open, r.newest, s.steps, s.tokens
    FROM orchestra.workflows AS w
    JOIN (
        SELECT workflow_id, count(*) AS runs,
               count(*) FILTER (WHERE outcome = 'succeeded') AS succeeded,
               count(*) FILTER (WHERE outcome IN ('failed', 'soft_failed')) AS failed,
               count(*) FILTER (WHERE outcome = 'cancelled') AS cancelled,
               count(*) FILTER (WHERE outcome IN ('pending', 'running')) AS open,
               EXTRACT(epoch FROM now() - max(start_time)) AS newest
        FROM orchestra.run_summary GROUP BY workflow_id
    ) AS r ON r.workflow_id = w.id
    JOIN (
        SELECT workflow_id, count(*) AS steps, sum(total_tokens) AS tokens
        FROM orchestra.steps GROUP BY workflow_id
    ) AS s ON s.workflow_id = w.id
    ORDER BY w.name
""")

_ALERTS = text("""
    SELECT rule, state, round((100 * value)::numeric, 1) || ' %' AS value,
           round((100 * threshold)::numeric, 1) || ' %' AS above,
           to_char(fired_at, 'HH24:MI:SS') AS fired, to_char(resolved_at, 'HH24:MI:SS') AS resolved
    FROM orchestra.alerts ORDER BY fired_at DESC LIMIT 3
""")

EXAMPLES = (
    (
        "Success rate and typical duration by workflow",
        """SELECT workflow_name, count(*) AS runs,
       round(100 * avg((outcome = 'succeeded')::int)
             FILTER (WHERE outcome IN ('succeeded', 'soft_failed', 'failed')),
             1) AS success_percent,
       round((percentile_cont(0.5) WITHIN GROUP (ORDER BY duration_ms) / 1000)
             ::numeric, 2) AS median_seconds
FROM orchestra.run_summary
WHERE tracking = 'final' GROUP BY workflow_name ORDER BY workflow_name""",
    ),
    (
        "The slowest nodes",
        """SELECT w.name AS workflow, s.node_id, count(*) AS steps,
       round((percentile_cont(0.95) WITHIN GROUP (ORDER BY s.duration_ms))
             ::numeric) AS p95_ms
FROM orchestra.steps s JOIN orchestra.workflows w ON w.id = s.workflow_id
WHERE s.duration_ms IS NOT NULL
GROUP BY w.name, s.node_id ORDER BY p95_ms DESC LIMIT 5""",
    ),
    (
        "Tokens and cost of the models that took the most tokens",
        """SELECT provider, model, sum(calls) AS calls, sum(input_tokens) AS input,
       sum(output_tokens) AS output,
       round(sum(cost), 4) AS cost, currency AS unit
FROM orchestra.model_usage GROUP BY provider, model, currency
ORDER BY sum(total_tokens) DESC NULLS LAST LIMIT 10""",
    ),
)


async def present(own: Database, console: Console, seconds: float, requests: int) -> None:
    """Print the summary, the alerts, and the examples with their results.

    Args:
        own: the database of the demo.
        console: where to print.
        seconds: how long the load of the backlog took.
        requests: how many requests it made.

    Raises:
        DatabaseError: the database cannot be used.
    """
    rows = await query(own, _SUMMARY)
    runs, steps = sum(row.runs for row in rows), sum(row.steps for row in rows)
    console.print(
        f"\nloaded {runs:,} runs with {steps:,} steps in {seconds:.1f} s, {requests:,} requests\n"
    )
    console.print(_table(rows))
    console.print("failed includes soft failures: runs that succeeded despite an error")
    if alerts := await query(own, _ALERTS):
        console.print("\n[bold]Alerts on the runs of the last three hours[/bold] (times in UTC)\n")
        console.print(_alerts_table(alerts))
    for title, sql in EXAMPLES:
        console.print(f"\n[bold]{title}[/bold]\n{sql};\n")
        result = await query(own, text(sql))
        console.print(_result_table(result))
    if _CHECKOUT.exists():
        console.print("\nsee this data as dashboards in a browser: run `make dashboards`")


async def current(own: Database) -> Group:
    """Return the summary and the alerts as they are now.

    Raises:
        DatabaseError: the database cannot be used.
    """
    return Group(_table(await query(own, _SUMMARY)), "", _alerts_table(await query(own, _ALERTS)))


def _table(rows: Sequence[Any]) -> Table:
    table = _empty_table()
    table.add_column("workflow", no_wrap=True)
    for name in ("runs", "ok", "failed", "cancelled", "open", "newest", "steps", "tokens"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        figures = (row.runs, row.succeeded, row.failed, row.cancelled, row.open)
        newest = f"{row.newest:,.0f} s" if row.newest is not None else "-"
        table.add_row(
            row.name,
            *(f"{n:,}" for n in figures),
            newest,
            f"{row.steps:,}",
            "-" if row.tokens is None else f"{row.tokens:,}",
        )
    return table


def _alerts_table(rows: Sequence[Any]) -> Table:
    table = _empty_table()
    for name in ("alert", "state", "failure rate", "limit", "fired", "resolved"):
        table.add_column(name, no_wrap=True)
    for row in rows:
        shown = Text(row.state, "bold red" if row.state == "firing" else "green")
        table.add_row(row.rule, shown, *(one or "-" for one in row[2:]))
    return table


def _empty_table() -> Table:
    return Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")


def _result_table(rows: Sequence[Any]) -> Table:
    """Return the rows as a table in which numbers are aligned right."""
    table = _empty_table()
    for name, values in zip(rows[0]._fields, zip(*rows, strict=True), strict=True) if rows else ():
        is_number = all(
            value is None or isinstance(value, int | float | Decimal) for value in values
        )
        table.add_column(name, justify="right" if is_number else "left", overflow="fold")
    for row in rows:
        table.add_row(*(_cell(value) for value in row))
    return table


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:,}" if isinstance(value, int | float | Decimal) else str(value)


async def query(own: Database, statement: Any) -> Sequence[Any]:
    """Run a statement in a thread, and return its rows.

    Raises:
        DatabaseError: the database cannot be used.
    """

    def work(connection: Connection) -> Sequence[Any]:
        return connection.execute(statement).all()

    return await asyncio.to_thread(own.transaction, work)
