"""Workflow metadata, from the configuration and from `GET /workflows`."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence

from sqlalchemy import Connection, text

from etl.ledger import requests
from etl.records import Workflow

_CONFIGURED = text("""
    INSERT INTO orchestra.workflows AS w (id, name, labels)
    VALUES (:id, :name, CAST(:labels AS jsonb))
    ON CONFLICT (id) DO UPDATE
    SET name = COALESCE(excluded.name, w.name), labels = excluded.labels, updated_at = now()
    WHERE (COALESCE(excluded.name, w.name), excluded.labels) IS DISTINCT FROM (w.name, w.labels)
""")

_UNKNOWN = text("INSERT INTO orchestra.workflows (id) VALUES (:id) ON CONFLICT DO NOTHING")

# Runs that are only requested prove nothing: the request may misspell the workflow's id.
_IS_KNOWN = text(f"""
    SELECT EXISTS (SELECT FROM orchestra.workflows
                   WHERE id = :id
                     AND (name IS NOT NULL OR description IS NOT NULL OR labels <> '{{}}'))
        OR EXISTS (SELECT FROM orchestra.workflow_versions WHERE workflow_id = :id)
        OR EXISTS (SELECT FROM orchestra_etl.sweeps
                   WHERE workflow_id = :id AND swept_at IS NOT NULL)
        OR EXISTS (SELECT FROM orchestra_etl.run_ledger AS l
                   WHERE l.workflow_id = :id AND NOT {requests.ONLY_REQUESTED})
""")

_FORGET = text("""
    DELETE FROM orchestra.workflows AS w
    WHERE w.id = :id AND w.name IS NULL AND w.description IS NULL AND w.labels = '{}'
      AND NOT EXISTS (SELECT FROM orchestra.workflow_versions WHERE workflow_id = w.id)
      AND NOT EXISTS (SELECT FROM orchestra_etl.sweeps WHERE workflow_id = w.id)
      AND NOT EXISTS (SELECT FROM orchestra_etl.run_ledger WHERE workflow_id = w.id)
      AND NOT EXISTS (SELECT FROM orchestra.runs WHERE workflow_id = w.id)
""")

_DESCRIBED = text("""
    INSERT INTO orchestra.workflows AS w (id, name, description)
    VALUES (:id, :name, :description)
    ON CONFLICT (id) DO UPDATE
    SET name = COALESCE(w.name, excluded.name), description = excluded.description,
        updated_at = now()
    WHERE (COALESCE(w.name, excluded.name), excluded.description)
          IS DISTINCT FROM (w.name, w.description)
""")

# A workflow can change while its version and graph stay the same: a version keeps the update time
# with which it was first seen. An update time in the future is stored as null. The newest version
# stays the newest if the clock was set back.
_VERSION = text("""
    INSERT INTO orchestra.workflow_versions
        (workflow_id, first_seen_at, version, graph, api_updated_at)
    SELECT :id,
           GREATEST(now(), (SELECT max(v.first_seen_at) + interval '1 microsecond'
                            FROM orchestra.workflow_versions AS v WHERE v.workflow_id = :id)),
           CAST(:version AS text), CAST(:graph AS jsonb),
           CASE WHEN CAST(:updated_at AS timestamptz) <= now()
                THEN CAST(:updated_at AS timestamptz) END
    WHERE NOT EXISTS (
        SELECT FROM (
            SELECT v.version, v.graph FROM orchestra.workflow_versions AS v
            WHERE v.workflow_id = :id ORDER BY v.first_seen_at DESC LIMIT 1
        ) AS last
        WHERE (last.version, last.graph)
              IS NOT DISTINCT FROM (CAST(:version AS text), CAST(:graph AS jsonb)))
    ON CONFLICT DO NOTHING
""")

_GRAPHS = text("""
    SELECT DISTINCT ON (workflow_id) workflow_id, graph
    FROM orchestra.workflow_versions
    WHERE graph IS NOT NULL
    ORDER BY workflow_id, first_seen_at DESC
""")

# The rows are read in small parts: a graph may be large, and each change of a workflow adds one.
_ALL_GRAPHS = text("""
    SELECT workflow_id, graph FROM orchestra.workflow_versions
    WHERE graph IS NOT NULL
    ORDER BY workflow_id, first_seen_at
""").execution_options(yield_per=10)

# A later time than now shows that the clock was set back.
_DESCRIPTION_DUE = text("""
    SELECT NOT EXISTS (
        SELECT FROM orchestra_etl.workflow_refresh
        WHERE refreshed_at > now() - make_interval(secs => :every) AND refreshed_at <= now())
""")

_DESCRIBED_NOW = text("""
    INSERT INTO orchestra_etl.workflow_refresh (id, refreshed_at) VALUES (1, now())
    ON CONFLICT (id) DO UPDATE SET refreshed_at = excluded.refreshed_at
""")


def configure(
    connection: Connection, workflow_id: str, *, name: str | None, labels: Mapping[str, str]
) -> None:
    """Write a workflow's name and labels as configured."""
    connection.execute(
        _CONFIGURED,
        {"id": workflow_id, "name": name, "labels": json.dumps(dict(labels), sort_keys=True)},
    )


def configure_unknown(connection: Connection, workflow_id: str) -> None:
    """Add a workflow of which only the id is known; keep the row of a known workflow."""
    connection.execute(_UNKNOWN, {"id": workflow_id})


def is_known(connection: Connection, workflow_id: str) -> bool:
    """Return whether the API or the configuration has shown this workflow."""
    return bool(connection.execute(_IS_KNOWN, {"id": workflow_id}).scalar_one())


def forget(connection: Connection, workflow_id: str) -> bool:
    """Delete a workflow that has no metadata and no stored data; return whether it was deleted."""
    return bool(connection.execute(_FORGET, {"id": workflow_id}).rowcount)


def update_metadata(connection: Connection, workflows: Sequence[Workflow]) -> None:
    """Write the API's workflow metadata; append a version or graph that differs from the last."""
    connection.execute(_DESCRIBED_NOW)
    for workflow in sorted(workflows, key=lambda one: one.id):
        connection.execute(
            _DESCRIBED,
            {"id": workflow.id, "name": workflow.name, "description": workflow.description},
        )
        if workflow.version is not None or workflow.graph is not None:
            values = {"id": workflow.id, "version": workflow.version, "graph": workflow.graph}
            connection.execute(_VERSION, {**values, "updated_at": workflow.updated_at})


def graphs(connection: Connection) -> list[tuple[str, object]]:
    """Return the newest graph of each workflow, parsed."""
    return [(row.workflow_id, row.graph) for row in connection.execute(_GRAPHS)]


def all_graphs(connection: Connection) -> Iterator[tuple[str, object]]:
    """Yield every stored graph of each workflow, parsed, oldest first."""
    for row in connection.execute(_ALL_GRAPHS):
        yield row.workflow_id, row.graph


def metadata_due(connection: Connection, *, every: float) -> bool:
    """Return whether no replica has requested the metadata in the last `every` seconds."""
    return bool(connection.execute(_DESCRIPTION_DUE, {"every": every}).scalar_one())
