"""The two jobs: sweeps write run lists into the ledger, polls write due runs into the history."""
