"""Administration of the stored history: erasure, retention, redaction, rebuilds and roles."""
