"""The effect of the tables' autovacuum settings: dead rows while the same steps keep changing.

Run it as `python -m tests.benchmarks.churn`. It loads a history, then changes every tenth of its
runs, round after round, once with the settings of the migrations and once with PostgreSQL's
defaults. Autovacuum checks every second instead of every minute, so that minutes show what days
would.
"""

from __future__ import annotations

import argparse
import shutil
from typing import NamedTuple

from etl import logs
from etl.embedded.postgres import EmbeddedPostgres
from etl.schema import upgrade
from tests.benchmarks.load_stage import changed, empty, load, read
from tests.benchmarks.recorded import Corpus
from tests.postgres_fixture import new_home
from tests.support import query

SERVER = {"autovacuum_naptime": "1s", "max_wal_size": "4GB"}

_TABLES = """
    SELECT n.nspname || '.' || c.relname AS name, c.reloptions IS NOT NULL AS set,
           pg_table_size(c.oid) / 1e6 AS mb,
           s.n_dead_tup AS dead, s.n_live_tup AS live
    FROM pg_class AS c
    JOIN pg_namespace AS n ON n.oid = c.relnamespace
    JOIN pg_stat_user_tables AS s ON s.relid = c.oid
    WHERE n.nspname IN ('orchestra', 'orchestra_etl') AND c.relkind = 'r'
      AND c.relname IN ('runs', 'steps', 'inputs', 'outputs', 'run_ledger', 'changed_groups')
"""


class Churned(NamedTuple):
    """The effect on one table."""

    before_mb: float
    after_mb: float
    most_dead: int
    """The highest number of dead rows, counted after each round."""
    seconds: float
    """The seconds of all rounds together."""


def churn(url: str, runs: int, rounds: int) -> dict[str, Churned]:
    """Load a history, change a tenth of it `rounds` times, and measure the tables."""
    empty(url)
    readings = read(Corpus(runs))
    load(url, readings)
    query(url, "VACUUM ANALYZE")
    before = {row["name"]: float(row["mb"]) for row in query(url, _TABLES)}
    dead = dict.fromkeys(before, 0)
    seconds = 0.0
    tenth = readings[::10]
    for _ in range(rounds):
        tenth = changed(tenth)
        seconds += load(url, tenth).seconds
        query(url, "DELETE FROM orchestra_etl.changed_groups")  # A refresh deletes them too.
        for row in query(url, _TABLES):
            dead[row["name"]] = max(dead[row["name"]], int(row["dead"]))
    return {
        row["name"]: Churned(before[row["name"]], float(row["mb"]), dead[row["name"]], seconds)
        for row in query(url, _TABLES)
    }


def main() -> None:
    """Print the effect on each table, by settings."""
    logs.configure("warning", "json")
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks.churn",
        description=__doc__,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--runs", type=int, default=20_000, help="runs of the history")
    parser.add_argument("--rounds", type=int, default=40, help="times that a tenth of them changes")
    given = parser.parse_args()
    home = new_home()
    try:
        with EmbeddedPostgres(home, settings=SERVER) as server:
            upgrade(server.url)
            shipped = churn(server.url, given.runs, given.rounds)
            for row in query(server.url, _TABLES):
                query(
                    server.url,
                    f"ALTER TABLE {row['name']} RESET (fillfactor, "
                    "autovacuum_vacuum_scale_factor, autovacuum_vacuum_threshold,"
                    " autovacuum_vacuum_insert_scale_factor, autovacuum_analyze_scale_factor)",
                )
            defaults = churn(server.url, given.runs, given.rounds)
    finally:
        shutil.rmtree(home, ignore_errors=True)
    print(f"{'table':30}{'':8}{'MB before':>11}{'MB after':>11}{'growth':>9}{'most dead rows':>16}")
    for name, mine in sorted(shipped.items()):
        for settings, one in (("ours", mine), ("default", defaults[name])):
            growth = one.after_mb / one.before_mb - 1 if one.before_mb else 0
            print(
                f"{name:30}{settings:8}{one.before_mb:>11.1f}{one.after_mb:>11.1f}"
                f"{growth:>9.0%}{one.most_dead:>16,}"
            )
    for settings, figures in (("ours", shipped), ("default", defaults)):
        print(f"{settings}: {next(iter(figures.values())).seconds:.1f} s of loads")


if __name__ == "__main__":
    main()
