"""The ledger: known runs, due reads, claims, sweeps, gaps and dead letters."""
