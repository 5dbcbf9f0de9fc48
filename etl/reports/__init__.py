"""Reports for people: the status of every workflow, the stored runs, and the dead letters."""
