"""How far the stored steps have been read again by the newest rules (`orchestra-etl rebuild`)."""

from __future__ import annotations

import msgspec
from sqlalchemy import Connection, text

_NEWEST = "SELECT * FROM orchestra_etl.rebuilds ORDER BY transform_version DESC LIMIT 1"
_READ = text(_NEWEST)
_HOLD = text(f"{_NEWEST} FOR UPDATE")

_ADVANCE = text("""
    UPDATE orchestra_etl.rebuilds
    SET after_step_id = :after, steps = steps + :steps, changed = changed + :changed, started_at = COALESCE(started_at, now())
    WHERE transform_version = :version
""")

_FINISH = text("""
    UPDATE orchestra_etl.rebuilds SET after_step_id = NULL, started_at = COALESCE(started_at, now()), finished_at = now()
    WHERE transform_version = :version
""")

# `status` asks often, and there may be millions: up to so many are counted, of more the planner's
# statistics tell about how many.
_COUNTED = 10_000

_LEFT = text(f"""
    SELECT (SELECT count(*) FROM (
                SELECT FROM orchestra.steps WHERE id > COALESCE(r.after_step_id, '') LIMIT {_COUNTED + 1}) AS s) AS counted,
           (SELECT CAST(reltuples AS bigint) FROM pg_class WHERE oid = CAST('orchestra.steps' AS regclass)) - r.steps AS estimated
    FROM ({_NEWEST}) AS r
    WHERE r.finished_at IS NULL
""")


class Rebuild(msgspec.Struct, frozen=True):
    """The newest rules, and how far the stored steps have been read by them."""

    version: int
    """`TRANSFORM_VERSION` of the program that brought them."""
    after: str | None
    """The steps up to this one, in the order of their ids, are done; None: none is."""
    finished: bool


class PendingRebuild(msgspec.Struct, frozen=True):
    """Stored steps that are still to be read again."""

    steps: int
    exact: bool
    """False: it is about so many."""

    @property
    def advice(self) -> str:
        """What to tell people."""
        about = "" if self.exact else "about "
        noun = "stored step is" if self.steps == 1 else "stored steps are"
        return f"{about}{self.steps:,} {noun} still to be read by newer rules: run `orchestra-etl rebuild`"


def read(connection: Connection) -> Rebuild | None:
    """The newest rules; None where no revision has brought any."""
    return _rebuild(connection, hold=False)


def hold(connection: Connection) -> Rebuild | None:
    """As `read`, and keep others from going on until the transaction ends."""
    return _rebuild(connection, hold=True)


def _rebuild(connection: Connection, *, hold: bool) -> Rebuild | None:
    row = connection.execute(_HOLD if hold else _READ).one_or_none()
    return (
        None
        if row is None
        else Rebuild(row.transform_version, row.after_step_id, row.finished_at is not None)
    )


def advance(connection: Connection, version: int, *, after: str, steps: int, changed: int) -> None:
    """Note that the steps up to `after` are done: so many more, of which `changed` have changed."""
    connection.execute(
        _ADVANCE, {"version": version, "after": after, "steps": steps, "changed": changed}
    )


def finish(connection: Connection, version: int) -> None:
    """Note that all steps are done."""
    connection.execute(_FINISH, {"version": version})


def due(connection: Connection) -> PendingRebuild | None:
    """What is still to be read again; None where nothing is. Takes milliseconds, however many steps there are."""
    row = connection.execute(_LEFT).one_or_none()
    if row is None or row.counted == 0:
        return None
    exact = row.counted <= _COUNTED
    return PendingRebuild(row.counted if exact else max(row.counted, row.estimated), exact)
