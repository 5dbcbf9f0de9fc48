"""What every forked process would do first, done once (see processes.py)."""

import importlib
import pkgutil

import alembic.command  # noqa: F401

import etl

for _module in pkgutil.walk_packages(etl.__path__, "etl."):
    if not _module.name.endswith(".__main__"):
        importlib.import_module(_module.name)

for _ in importlib.import_module("etl.cli.commands")._command().commands.values():
    pass
