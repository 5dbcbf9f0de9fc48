"""The two jobs: sweep a workflow's run list into the ledger; poll due runs into the analysts' tables."""
