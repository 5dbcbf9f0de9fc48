"""The long-running service: schedules, health and metrics."""
