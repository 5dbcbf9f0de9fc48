"""Superset's settings. Superset reads the file that SUPERSET_CONFIG_PATH names."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from superset import config as usual
from superset.exceptions import SupersetDisallowedSQLFunctionException
from superset.sql.parse import SQLScript
from superset.utils.log import AbstractEventLogger
from viewer import ViewerSecurityManager

_HOME = Path(os.environ["ORCHESTRA_DASHBOARDS_HOME"])

SECRET_KEY = (_HOME / "secret-key").read_text().strip()
SQLALCHEMY_DATABASE_URI = f"sqlite:///{_HOME / 'superset.db'}"
APP_NAME = "orchestra-etl"
CUSTOM_SECURITY_MANAGER = ViewerSecurityManager

# New runs keep arriving, so results are cached for only 30 seconds, for all viewers. The cache is
# in the memory of the one server process: on a disk, it would outlast the erasure of a run.
DATA_CACHE_CONFIG = {
    "CACHE_TYPE": "SimpleCache",
    "CACHE_THRESHOLD": 200,
    "CACHE_DEFAULT_TIMEOUT": 30,
}
DASHBOARD_AUTO_REFRESH_MODE = "fetch"


class NoEventLogger(AbstractEventLogger):
    """Stores no event.

    Superset stores a row for each request of each chart and deletes none, so that an overview that
    is left open would fill the disk.
    """

    def log(self, *_: Any, **__: Any) -> None:
        """Forget the event."""

    def log_with_context(self, *_: Any, **__: Any) -> None:
        """Forget the event, without collecting what belongs to it."""


EVENT_LOGGER = NoEventLogger()
RATELIMIT_STORAGE_URI = "memory://"

# Functions that run SQL from a text, hold locks that others wait for, change the session, or
# access files, large objects and other servers. Superset itself checks only SQL Lab for them, hence
# SQL_QUERY_MUTATOR. In PostgreSQL every role can call most of them, and a list of names can be
# evaded: the grants of the login decide what it can read and lock.
DISALLOWED_SQL_FUNCTIONS = {
    **usual.DISALLOWED_SQL_FUNCTIONS,
    "postgresql": usual.DISALLOWED_SQL_FUNCTIONS["postgresql"]
    | {
        f"{what}_to_xml{kind}"
        for what in ("cursor", "database", "query", "schema", "table")
        for kind in ("", "schema")
    }
    | {f"{what}_to_xml_and_xmlschema" for what in ("database", "query", "schema", "table")}
    | {
        "ts_stat",
        "ts_rewrite",
        "crosstab",
        "crosstabn",
        "crosstab2",
        "crosstab3",
        "crosstab4",
        "connectby",
        "xpath_table",
    }
    | {
        f"pg_{kind}advisory_{lock}{shared}"
        for kind in ("", "try_")
        for lock in ("lock", "xact_lock", "unlock")
        for shared in ("", "_shared")
    }
    | {
        "pg_advisory_unlock_all",
        "set_config",
        "setseed",
        "pg_notify",
        "pg_export_snapshot",
        "pg_current_xact_id",
        "txid_current",
    }
    | {
        "pg_sleep_for",
        "pg_sleep_until",
        "pg_cancel_backend",
        "pg_reload_conf",
        "pg_logical_emit_message",
    }
    | {
        "pg_stat_file",
        "pg_ls_logdir",
        "pg_ls_waldir",
        "pg_ls_tmpdir",
        "pg_ls_archive_statusdir",
        "pg_file_write",
    }
    | {
        f"lo_{what}"
        for what in (
            "creat",
            "create",
            "export",
            "from_bytea",
            "get",
            "import",
            "lseek",
            "lseek64",
            "open",
            "put",
        )
    }
    | {
        "lo_close",
        "lo_tell",
        "lo_tell64",
        "lo_truncate",
        "lo_truncate64",
        "lo_unlink",
        "loread",
        "lowrite",
    }
    | {"dblink"}
    | {
        f"dblink_{what}"
        for what in (
            "connect",
            "connect_u",
            "exec",
            "open",
            "fetch",
            "close",
            "send_query",
            "get_result",
        )
    },
}


def SQL_QUERY_MUTATOR(sql: str, *, database: Any, **_: Any) -> str:
    """Return the SQL of a chart, a filter or SQL Lab unchanged.

    Raises:
        SupersetDisallowedSQLFunctionException: it calls a function of the list above.
    """
    script = SQLScript(sql, database.db_engine_spec.engine)
    forbidden = DISALLOWED_SQL_FUNCTIONS.get(database.db_engine_spec.engine, set())
    if script.check_functions_present(forbidden):
        raise SupersetDisallowedSQLFunctionException(
            {one for one in forbidden if script.check_functions_present({one})}
        )
    return sql


# The browser sends no request to another host. Superset's own policy would allow a tracking pixel
# (which SCARF_ANALYTICS does not stop), map tiles and fonts.
TALISMAN_ENABLED = True
TALISMAN_CONFIG = {
    "content_security_policy": {
        "base-uri": ["'self'"],
        "default-src": ["'self'"],
        "img-src": ["'self'", "blob:", "data:"],
        "worker-src": ["'self'", "blob:"],
        "connect-src": ["'self'"],
        "object-src": "'none'",
        "style-src": ["'self'", "'unsafe-inline'"],
        "font-src": ["'self'", "data:"],
        "script-src": ["'self'", "'strict-dynamic'"],
    },
    "content_security_policy_nonce_in": ["script-src"],
    # The server is for this machine only, over HTTP.
    "force_https": False,
    "session_cookie_secure": False,
}

# The rollups are by hour, so that finer grains have no data.
TIME_GRAIN_DENYLIST = ["PT1S", "PT5S", "PT30S", "PT1M", "PT5M", "PT10M", "PT15M", "PT30M"]
# Red, amber and green are reserved for outcomes.
EXTRA_CATEGORICAL_COLOR_SCHEMES = [
    {
        "id": "orchestra",
        "label": "Orchestra",
        "description": "",
        "isDefault": False,
        "colors": [
            "#4A90D9",
            "#7B4FB5",
            "#1FA3B5",
            "#34568B",
            "#C06BB0",
            "#8D6E63",
            "#7FB2E5",
            "#B39DDB",
            "#6FC3CE",
            "#5C6BC0",
            "#DDA6D3",
            "#90A4AE",
        ],
    }
]
# Charts are drawn at once: bars that grow take a fifth of the CPU time of a page.
# While a dashboard refreshes itself, the new options of a chart are merged into the old ones. A
# waterfall leaves out which series are shown, and would then fail until the page is loaded again.
_CHARTS = {
    "echartsOptionsOverrides": {"animation": False},
    "echartsOptionsOverridesByChartType": {"waterfall": {"legend": {"selected": {}}}},
}
THEME_DEFAULT = {**usual.THEME_DEFAULT, **_CHARTS}
THEME_DARK = {**usual.THEME_DARK, **_CHARTS}


def FLASK_APP_MUTATOR(_: Any) -> None:
    """Change behaviour that has no setting, once Superset can be imported."""
    from chosen import draw_once
    from sections import leave_out_closed_charts
    from time_bounds import write_constants
    from timeline import fill_at_grain

    fill_at_grain()
    leave_out_closed_charts()
    draw_once()
    write_constants()


SQLLAB_TIMEOUT = SUPERSET_WEBSERVER_TIMEOUT = 60
ENABLE_PROXY_FIX = False
