"""`python -m etl` is `orchestra-etl`."""

from etl.cli import main

main()
