"""Every exit status of `orchestra-etl`, each with one meaning."""

from __future__ import annotations

from enum import IntEnum
from typing import Self


class ExitStatus(IntEnum):
    """The exit statuses; `--help` and the runbook describe each with its `meaning`."""

    meaning: str

    def __new__(cls, value: int, meaning: str) -> Self:
        """Return a member with this number and this meaning."""
        made = int.__new__(cls, value)
        made._value_ = value
        made.meaning = meaning
        return made

    DONE = 0, "done"
    UNEXPECTED = 1, "unexpected error"
    USAGE = 2, "wrong argument or setting"
    KEY_REFUSED = 3, "the API refuses the key"
    DATABASE = 4, "the database or its schema cannot be used"
    API = 5, "the API cannot be reached, or refuses every workflow"
    INCOMPLETE = 6, "finished, but with a new dead letter, gap, read error or refusal"
    FAILING = 7, "`status --check`: a workflow is failing"
    ROLLUPS_DIFFER = 8, "`rollups verify`: the rollups differ from the steps"
    NOT_SEARCHED = 9, "`erase`: some stored runs could not be searched"
    LAKE = 10, "the lake cannot be read or written"
    LAKE_DIFFERS = 11, "`export verify`: the lake differs from the history"
    ALERT_FIRES = 12, "`alerts check`: an alert fires"
    NOT_ACCEPTED = 13, "`alerts test`: the channel did not accept the message"
    HUNG_UP = 129, "ended by SIGHUP (a closed terminal) before the work was done"
    INTERRUPTED = 130, "interrupted by Ctrl-C before the work was done"
    TERMINATED = 143, "ended by SIGTERM before the work was done"
