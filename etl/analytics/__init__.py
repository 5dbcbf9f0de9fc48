"""Rollups and prices: what is computed from the stored history for analysts."""
