"""Imports of everything that a command needs, once, for the forked workers (see workers.py)."""

import etl.app
import etl.cli.commands
import etl.cli.jobs
import etl.pipeline.sync  # noqa: F401
