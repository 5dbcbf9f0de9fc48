"""Alerts on runs: rules, their evaluation, and messages."""
