"""Reports for people: how every workflow is doing, and the stored runs."""
