"""The mapping from the API's statuses to the seven states of the tables."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import get_args

from etl.errors import ConfigurationError
from etl.records import State

_SEPARATORS = re.compile(r"[\s_-]+")

# Only `completed` is documented. The other spellings are common among workflow engines.
_SPELLINGS: Mapping[State, str] = {
    "pending": "pending queued created scheduled waiting new ready submitted accepted not_started",
    "running": "running in_progress started starting active processing executing retrying paused "
    "resumed cancelling canceling stopping",
    "succeeded": "succeeded success successful completed complete done finished ok passed",
    "failed": "failed failure error errored timeout timed_out crashed exception rejected",
    "cancelled": "cancelled canceled aborted stopped terminated killed revoked",
    "skipped": "skipped skip ignored bypassed",
}


def _fold(status: str) -> str:
    """Return the spelling in lower case, without spaces, hyphens and underscores."""
    return _SEPARATORS.sub("", status).casefold()


_DEFAULTS: Mapping[str, State] = {
    _fold(spelling): state
    for state, spellings in _SPELLINGS.items()
    for spelling in spellings.split()
}


class StateMap:
    """The mapping from status to state; it ignores case, spaces, hyphens and underscores."""

    def __init__(self, extra: Mapping[str, str] | None = None) -> None:
        """Add a configured mapping (status to state), which takes precedence over the defaults.

        Raises:
            ConfigurationError: a value of the mapping is not a state.
        """
        self._states = dict(_DEFAULTS)
        self.configured: dict[str, State] = {}
        """The configured part, with folded statuses."""
        for status, target in (extra or {}).items():
            known: dict[str, State] = {state: state for state in get_args(State)}
            if target not in known:
                raise ConfigurationError(
                    f"status {status!r} is mapped to {target!r}; the states are {', '.join(known)}"
                )
            self.configured[_fold(status)] = known[target]
        self._states.update(self.configured)

    def state_of(self, status: str | None) -> State:
        """Return the state of a status of the API; `unknown` if it is None or not mapped."""
        if status is None:
            return "unknown"
        # Most statuses are already in the folded spelling; folding costs ten times the look-up.
        return self._states.get(status) or self._states.get(_fold(status), "unknown")


def derive_run_state(states: Iterable[State]) -> State:
    """Return the state of a run from those of its steps, if the API sends no status for the run.

    If a step is open, the run is `running`. Otherwise the worst state of a step counts. A run
    without steps is `pending`.
    """
    present = set(states)
    if not present:
        return "pending"
    if present & {"running", "pending"}:
        return "running"
    for state in ("failed", "cancelled", "unknown"):
        if state in present:
            return state
    return "succeeded"
