"""What is computed from the stored history for analysts."""
