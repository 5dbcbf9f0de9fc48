"""What every forked worker would do first, done once (see workers.py)."""

import etl.app
import etl.cli.commands
import etl.cli.jobs
import etl.pipeline.sync

for _ in etl.cli.commands._command().commands.values():
    pass
