"""The command `orchestra-etl` as `python -m etl`."""

from etl.cli import main

main()
