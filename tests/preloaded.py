"""What every forked process would do first, done once (see processes.py)."""

import gc
import importlib
import pkgutil

import alembic.command  # noqa: F401
from genai_prices.data_snapshot import get_snapshot

import etl

for _module in pkgutil.walk_packages(etl.__path__, "etl."):
    if not _module.name.endswith(".__main__"):
        importlib.import_module(_module.name)

for _ in importlib.import_module("etl.cli.commands")._command().commands.values():
    pass

get_snapshot()  # The published prices, which the first command on a database stores.

# A garbage collection of a forked process would visit all these objects, and so copy their memory.
gc.collect()
gc.freeze()
