"""Progress of `orchestra-etl rebuild`, which reads stored steps again by the newest rules."""

from __future__ import annotations

import msgspec
from sqlalchemy import Connection, text

from etl.terminal import counted

_NEWEST = "SELECT * FROM orchestra_etl.rebuilds ORDER BY transform_version DESC LIMIT 1"
_READ = text(_NEWEST)
_HOLD = text(f"{_NEWEST} FOR UPDATE")

_ADVANCE = text("""
    UPDATE orchestra_etl.rebuilds
    SET after_step_id = :after, steps = steps + :steps, changed = changed + :changed,
        started_at = COALESCE(started_at, now())
    WHERE transform_version = :version
""")

_FINISH = text("""
    UPDATE orchestra_etl.rebuilds
    SET after_step_id = NULL, started_at = COALESCE(started_at, now()), finished_at = now()
    WHERE transform_version = :version
""")

# `status` counts often, and there may be millions of steps. Up to this number are counted; beyond
# it, the planner's statistics give an estimate.
_COUNTED = 10_000

_LEFT = text(f"""
    SELECT (SELECT count(*) FROM (
                    SELECT FROM orchestra.steps WHERE id > COALESCE(r.after_step_id, '')
                    LIMIT {_COUNTED + 1}) AS s) AS counted,
           (SELECT CAST(reltuples AS bigint) FROM pg_class
            WHERE oid = CAST('orchestra.steps' AS regclass)) - r.steps AS estimated
    FROM ({_NEWEST}) AS r
    WHERE r.finished_at IS NULL
""")


class Rebuild(msgspec.Struct, frozen=True):
    """The newest rules, and the progress of the rebuild that applies them."""

    version: int
    """`TRANSFORM_VERSION` of the program version that introduced them."""
    after: str | None
    """The last finished step, in the order of step ids; None: no step is finished."""
    finished: bool


class PendingRebuild(msgspec.Struct, frozen=True):
    """The stored steps that the newest rules have not read yet."""

    steps: int
    exact: bool
    """False: `steps` is an estimate."""

    @property
    def advice(self) -> str:
        """The advice for an operator: how many steps are pending, and which command reads them."""
        about = "" if self.exact else "about "
        return (
            f"{about}{counted(self.steps, 'stored step is', 'stored steps are')} still to be read"
            " by newer rules: run `orchestra-etl rebuild`"
        )


def read(connection: Connection) -> Rebuild | None:
    """Return the newest rules and their progress; None if no schema revision has recorded any."""
    return _rebuild(connection, hold=False)


def hold(connection: Connection) -> Rebuild | None:
    """Return the same as `read`, and lock the progress until the transaction ends."""
    return _rebuild(connection, hold=True)


def _rebuild(connection: Connection, *, hold: bool) -> Rebuild | None:
    row = connection.execute(_HOLD if hold else _READ).one_or_none()
    return (
        None
        if row is None
        else Rebuild(row.transform_version, row.after_step_id, row.finished_at is not None)
    )


def advance(connection: Connection, version: int, *, after: str, steps: int, changed: int) -> None:
    """Record that the steps up to `after` are finished: `steps` more, `changed` of them changed."""
    connection.execute(
        _ADVANCE, {"version": version, "after": after, "steps": steps, "changed": changed}
    )


def finish(connection: Connection, version: int) -> None:
    """Record that all steps are finished."""
    connection.execute(_FINISH, {"version": version})


def due(connection: Connection) -> PendingRebuild | None:
    """Return the number of steps that the newest rules have not read yet; None if there are none.

    Takes milliseconds for any number of steps.
    """
    row = connection.execute(_LEFT).one_or_none()
    if row is None or row.counted == 0:
        return None
    exact = row.counted <= _COUNTED
    return PendingRebuild(row.counted if exact else max(row.counted, row.estimated), exact)
