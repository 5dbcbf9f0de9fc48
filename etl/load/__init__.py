"""Load: write records into the analysts' tables, in sets, and only rows that changed."""
