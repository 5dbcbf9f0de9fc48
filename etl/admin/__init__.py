"""What an administrator does to the stored history: removal, retention, roles."""
