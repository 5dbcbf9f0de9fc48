"""Alerts on the runs: their rules, their evaluation, and the delivery of notifications."""
