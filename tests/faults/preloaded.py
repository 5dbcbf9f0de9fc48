"""Imports all that a command needs, once, for the processes that are forked from here (see workers.py)."""

import etl.app
import etl.cli.commands
import etl.cli.jobs
import etl.pipeline.sync  # noqa: F401
