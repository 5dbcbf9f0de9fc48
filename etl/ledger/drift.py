"""Counters of the drift between the API's responses and its description."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection, text

from etl.records import Drift

_COUNT = text("""
    INSERT INTO orchestra_etl.drift AS d
        (workflow_id, subject, field, kind, found, occurrences, last_run_id)
    SELECT n.workflow_id, n.subject, n.field, n.kind, n.found, n.occurrences, n.run_id
    FROM unnest(CAST(:workflow_ids AS text[]), CAST(:subjects AS text[]), CAST(:fields AS text[]),
                CAST(:kinds AS text[]), CAST(:founds AS text[]), CAST(:counts AS bigint[]),
                CAST(:run_ids AS text[]))
         AS n (workflow_id, subject, field, kind, found, occurrences, run_id)
    ORDER BY n.workflow_id COLLATE "C", n.subject, n.field, n.kind, n.found
    ON CONFLICT (workflow_id, subject, field, kind, found) DO UPDATE
    SET occurrences = d.occurrences + excluded.occurrences, last_seen_at = now(),
        last_run_id = excluded.last_run_id
""")


def count(connection: Connection, found: Sequence[tuple[str, str, Drift]]) -> None:
    """Add to the drift counters; each entry is (workflow id, run id, drift)."""
    totals: dict[tuple[str, str, str, str, str], tuple[int, str]] = {}
    for workflow_id, run_id, one in found:
        key = (workflow_id, one.subject, one.field, one.kind, one.found)
        totals[key] = (totals.get(key, (0, ""))[0] + one.count, run_id)
    if not totals:
        return
    connection.execute(
        _COUNT,
        {
            "workflow_ids": [key[0] for key in totals],
            "subjects": [key[1] for key in totals],
            "fields": [key[2] for key in totals],
            "kinds": [key[3] for key in totals],
            "founds": [key[4] for key in totals],
            "counts": [count for count, _ in totals.values()],
            "run_ids": [run_id for _, run_id in totals.values()],
        },
    )
