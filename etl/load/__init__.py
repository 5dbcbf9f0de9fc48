"""Writes records into the analysts' tables, in sets and only where something changed."""
