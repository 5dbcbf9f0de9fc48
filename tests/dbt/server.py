"""Run dbt's commands in forks of one process that has imported dbt.

It runs in dbt's environment. Each line of standard input is a JSON list: the working folder, the
variables, the file for what the command prints, and the arguments. The exit status is printed when
the command has ended. A start of dbt takes seconds of work, most of it for imports.
"""

from __future__ import annotations

import importlib
import json
import os
import sys

from dbt.cli.main import cli

# dbt itself imports it when it has read a profile.
importlib.import_module("dbt.adapters.postgres")

for line in sys.stdin:
    folder, variables, output, arguments = json.loads(line)
    if (child := os.fork()) == 0:
        os.chdir(folder)
        os.environ.clear()
        os.environ.update(variables)
        printed = os.open(output, os.O_WRONLY)
        for stream in (1, 2):
            os.dup2(printed, stream)
        sys.argv = ["dbt", *arguments]
        sys.exit(cli())
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
