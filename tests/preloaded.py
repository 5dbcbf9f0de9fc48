"""Imports of the whole program, once, for the forked processes (see processes.py)."""

import importlib
import pkgutil

import etl

for _module in pkgutil.walk_packages(etl.__path__, "etl."):
    if not _module.name.endswith(".__main__"):
        importlib.import_module(_module.name)
