"""Update Superset's own database and the dashboards. Superset's Python runs this.

It reads JSON from standard input: `sqlalchemy_uri` of the database that the dashboards read,
`payloads_uri` of the same database as a user who reads payloads, if the dashboards show them, and
`passwords` by user. A password is used only if its user does not exist yet.

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
from viewer import PAYLOAD_ROLE, PAYLOADS, ROLE

ASSETS = Path(__file__).resolve().parent / "assets"
PAYLOAD_ASSETS = ASSETS.with_name("payloads")
"""The connection, dataset and charts of prompts and answers, and their part of a dashboard."""
ADMINISTRATOR = "admin"
VIEWER = "viewer"
PAYLOAD_VIEWER = "payload-viewer"
# Superset parses each of the 80 files of the dashboards twice with this loader. The default one, in
# Python, takes a tenth of the time of an update.
yaml.SafeLoader = yaml.CSafeLoader

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
        _make_administrator(app, wanted["passwords"][ADMINISTRATOR])
        _tell("importing the dashboards")
        payloads_uri = wanted.get("payloads_uri")
        status = _import(wanted["sqlalchemy_uri"], payloads_uri)
        if status == 0:
            role = _grant(ROLE, ASSETS, PERMISSIONS)
            _make_user(VIEWER, [role], wanted["passwords"])
            if payloads_uri is None:
                _remove_payloads()
            else:
                roles = [role, _grant(PAYLOAD_ROLE, PAYLOAD_ASSETS)]
                _make_user(PAYLOAD_VIEWER, roles, wanted["passwords"])
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
    _tell("creating Superset's permissions and roles (once)")
    appbuilder.add_permissions(update_perms=True)
    security_manager.sync_role_definitions()
    role = security_manager.find_role("Admin")
    if not security_manager.add_user(
        ADMINISTRATOR, "Dashboards", "Admin", "admin@localhost", role, password
    ):
        raise RuntimeError("Superset refuses to create its administrator")


def _grant(name: str, assets: Path, permissions: tuple[tuple[str, str], ...] = ()):
    """Give a role these permissions and the datasets of a folder, and nothing else."""
    from superset import db, security_manager
    from superset.connectors.sqla.models import SqlaTable

    datasets = [
        yaml.safe_load(path.read_text())["uuid"] for path in assets.glob("datasets/**/*.yaml")
    ]
    perms = [
        dataset.perm
        for dataset in db.session.query(SqlaTable).filter(
            SqlaTable.uuid.in_([UUID(one) for one in datasets])
        )
    ]
    role = security_manager.add_role(name)
    role.permissions = [
        security_manager.add_permission_view_menu(permission, on)
        for permission, on in (*permissions, *(("datasource_access", perm) for perm in perms))
    ]
    db.session.commit()
    return role


def _make_user(name: str, roles: list, passwords: dict[str, str]) -> None:
    """Create a user who sees the dashboards and changes nothing, unless it exists.

    `viewer.py` also limits the user's queries.
    """
    from superset import security_manager

    if security_manager.find_user(name) is None and not security_manager.add_user(
        name, "Dashboards", name.capitalize(), f"{name}@localhost", roles, passwords[name]
    ):
        raise RuntimeError(f"Superset refuses to create the user {name}")


def _remove_payloads() -> None:
    """Remove the connection that reads payloads, and everything that uses it."""
    from superset import db, security_manager
    from superset.models.core import Database
    from superset.models.slice import Slice

    database = db.session.query(Database).filter_by(uuid=UUID(PAYLOADS)).one_or_none()
    if database is None:
        return
    for dataset in database.tables:
        for chart in db.session.query(Slice).filter_by(
            datasource_id=dataset.id, datasource_type="table"
        ):
            db.session.delete(chart)
    # Superset fails to remove the permissions itself if the database and the schema have one name.
    menus = security_manager.viewmenu_model
    for permission in (
        db.session.query(security_manager.permissionview_model)
        .join(menus)
        .filter(menus.name.startswith(f"[{database.database_name}].", autoescape=True))
    ):
        db.session.delete(permission)
    db.session.flush()
    db.session.expire_all()
    # Superset also deletes its datasets.
    db.session.delete(database)
    db.session.commit()


def _import(sqlalchemy_uri: str, payloads_uri: str | None) -> int:
    from superset import security_manager
    from superset.commands.exceptions import CommandInvalidError
    from superset.commands.importers.v1.assets import ImportAssetsCommand
    from superset.utils.core import override_user

    contents = _with_address(_read(ASSETS), sqlalchemy_uri)
    if payloads_uri is not None:
        for name, text in _with_address(_read(PAYLOAD_ASSETS), payloads_uri).items():
            contents[name] = _extended(contents[name], text) if name in contents else text
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


def _read(assets: Path) -> dict[str, str]:
    return {
        str(path.relative_to(assets)): path.read_text() for path in sorted(assets.rglob("*.yaml"))
    }


def _with_address(contents: dict[str, str], sqlalchemy_uri: str) -> dict[str, str]:
    """Return the files with the address in the connection's file."""
    return {
        name: yaml.safe_dump({**yaml.safe_load(text), "sqlalchemy_uri": sqlalchemy_uri})
        if name.startswith("databases/")
        else text
        for name, text in contents.items()
    }


def _extended(dashboard: str, part: str) -> str:
    """Return a dashboard's file with the rows of a part below its own."""
    whole, more = yaml.safe_load(dashboard), yaml.safe_load(part)
    whole["css"] += more["css"]
    whole["position"] |= more["position"]
    whole["position"]["GRID_ID"]["children"] += [
        name for name, one in more["position"].items() if one["type"] == "ROW"
    ]
    return yaml.safe_dump(whole)


if __name__ == "__main__":
    sys.exit(main())
