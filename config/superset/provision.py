"""Update Superset's own database and the dashboards. Superset's Python runs this.

It reads JSON from standard input: `sqlalchemy_uri` of the database that the dashboards read, and
the passwords of the administrator (`password`) and of the viewer (`viewer_password`). A password is
used only if its user does not exist yet.

The dashboards are imported with the command behind Superset's `/api/v1/assets/import/`. Unlike
`superset import-dashboards`, it updates existing charts and datasets. Called here it needs no
password, which the administrator may have changed.
"""

from __future__ import annotations

import json
import os
import sqlite3
import sys
from pathlib import Path
from uuid import UUID

import flask_migrate
import yaml
from sqlalchemy import event
from sqlalchemy.engine import Engine
from superset.app import create_app
from viewer import ROLE

ASSETS = Path(__file__).resolve().parent / "assets"
ADMINISTRATOR = "admin"
VIEWER = "viewer"
PERMISSIONS = (
    ("can_read", "Dashboard"),
    ("can_read", "Chart"),
    ("can_read", "CurrentUserRestApi"),
    ("can_read", "SecurityRestApi"),
    ("can_dashboard", "Superset"),
    ("can_log", "Superset"),
    ("can_csv", "Superset"),
    ("can_language_pack", "Superset"),
    ("can_time_range", "Api"),
    ("can_view_chart_as_table", "Dashboard"),
    ("can_get", "MenuApi"),
    ("can_recent_activity", "Log"),
    ("can_read", "DashboardFilterStateRestApi"),
    ("can_write", "DashboardFilterStateRestApi"),
    ("can_read", "DashboardPermalinkRestApi"),
    ("can_write", "DashboardPermalinkRestApi"),
    ("can_dashboard_permalink", "Superset"),
    ("can_share_dashboard", "Superset"),
    ("menu_access", "Home"),
    ("menu_access", "Dashboards"),
)
"""The permissions of a viewer.

A viewer may open dashboards, filter them, share the filtered view, and download a chart's rows.
"""


def main() -> int:
    """Update everything; return 1, after one line per mistake, if the files cannot be imported."""
    wanted = json.load(sys.stdin)
    if not (Path(os.environ["ORCHESTRA_DASHBOARDS_HOME"]) / "superset.db").exists():
        event.listen(Engine, "connect", _do_not_wait_for_the_disk)
    app = create_app()
    with app.app_context():
        _tell("bringing Superset's tables up to date")
        flask_migrate.upgrade()
        _make_administrator(app, wanted["password"])
        _tell("importing the dashboards")
        status = _import(wanted["sqlalchemy_uri"])
        if status == 0:
            _make_viewer(wanted["viewer_password"])
        return status


def _do_not_wait_for_the_disk(connection, _) -> None:
    """Turn off synchronous writes to SQLite.

    Creating Superset's tables would wait for the disk 5,000 times, up to a minute. A crash loses
    nothing that the next start does not create again.
    """
    if isinstance(connection, sqlite3.Connection):
        connection.execute("PRAGMA synchronous = OFF")


def _tell(step: str) -> None:
    """Print the next step, which `serve.py` shows."""
    print(f"step: {step}", flush=True)  # noqa: T201


def _make_administrator(app, password: str) -> None:
    from superset import appbuilder, security_manager

    if security_manager.find_user(ADMINISTRATOR) is not None:
        return
    _tell("making Superset's permissions and roles (once)")
    appbuilder.add_permissions(update_perms=True)
    security_manager.sync_role_definitions()
    role = security_manager.find_role("Admin")
    if not security_manager.add_user(
        ADMINISTRATOR, "Dashboards", "Admin", "admin@localhost", role, password
    ):
        raise RuntimeError("Superset refuses to make its administrator")


def _make_viewer(password: str) -> None:
    """Create the user who sees the dashboards and changes nothing.

    `viewer.py` also limits the user's queries.
    """
    from superset import db, security_manager
    from superset.connectors.sqla.models import SqlaTable

    datasets = [
        yaml.safe_load(path.read_text())["uuid"] for path in (ASSETS / "datasets").rglob("*.yaml")
    ]
    perms = [
        dataset.perm
        for dataset in db.session.query(SqlaTable).filter(
            SqlaTable.uuid.in_([UUID(one) for one in datasets])
        )
    ]
    role = security_manager.add_role(ROLE)
    role.permissions = [
        security_manager.add_permission_view_menu(name, on)
        for name, on in (*PERMISSIONS, *(("datasource_access", perm) for perm in perms))
    ]
    db.session.commit()
    if security_manager.find_user(VIEWER) is None and not security_manager.add_user(
        VIEWER, "Dashboards", "Viewer", "viewer@localhost", role, password
    ):
        raise RuntimeError("Superset refuses to make its viewer")


def _import(sqlalchemy_uri: str) -> int:
    from superset import security_manager
    from superset.commands.exceptions import CommandInvalidError
    from superset.commands.importers.v1.assets import ImportAssetsCommand
    from superset.utils.core import override_user

    contents = {
        str(path.relative_to(ASSETS)): path.read_text() for path in sorted(ASSETS.rglob("*.yaml"))
    }
    for name in [name for name in contents if name.startswith("databases/")]:
        contents[name] = yaml.safe_dump(
            {**yaml.safe_load(contents[name]), "sqlalchemy_uri": sqlalchemy_uri}
        )
    command = ImportAssetsCommand(contents)
    try:
        # `run` validates, too, but does not name the mistakes.
        command.validate()
    except CommandInvalidError as error:
        for file, mistakes in error.normalized_messages().items():
            print(f"{file}: {json.dumps(mistakes)}", file=sys.stderr)  # noqa: T201
        return 1
    with override_user(security_manager.find_user(ADMINISTRATOR)):
        command.run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
