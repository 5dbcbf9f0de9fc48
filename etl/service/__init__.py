"""The service: schedules, health and metrics, until a signal ends it."""
