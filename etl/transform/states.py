"""What the API calls a status, as one of the seven states that the tables know."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import get_args

from etl.errors import ConfigurationError
from etl.records import State

_SEPARATORS = re.compile(r"[\s_-]+")

# Only `completed` is documented; the other spellings are those that workflow engines commonly use.
_SPELLINGS: Mapping[State, str] = {
    "pending": "pending queued created scheduled waiting new ready submitted accepted not_started",
    "running": "running in_progress started starting active processing executing retrying paused resumed "
    "cancelling canceling stopping",
    "succeeded": "succeeded success successful completed complete done finished ok passed",
    "failed": "failed failure error errored timeout timed_out crashed exception rejected",
    "cancelled": "cancelled canceled aborted stopped terminated killed revoked",
    "skipped": "skipped skip ignored bypassed",
}


def _fold(status: str) -> str:
    """The spelling without what people vary: case, spaces, hyphens and underscores."""
    return _SEPARATORS.sub("", status).casefold()


_DEFAULTS: Mapping[str, State] = {
    _fold(spelling): state
    for state, spellings in _SPELLINGS.items()
    for spelling in spellings.split()
}


class StateMap:
    """The mapping from status to state; case, spaces, hyphens and underscores do not matter."""

    def __init__(self, extra: Mapping[str, str] | None = None) -> None:
        """Add the configured mapping (status to state) to the defaults; it wins over them.

        Raises ConfigurationError where a target is not one of the states.
        """
        self._states = dict(_DEFAULTS)
        self.configured: dict[str, State] = {}
        """The configured part, statuses folded."""
        for status, target in (extra or {}).items():
            known: dict[str, State] = {state: state for state in get_args(State)}
            if target not in known:
                raise ConfigurationError(
                    f"status {status!r} is mapped to {target!r}; the states are {', '.join(known)}"
                )
            self.configured[_fold(status)] = known[target]
        self._states.update(self.configured)

    def state_of(self, status: str | None) -> State:
        """The state of a status as the API gives it; `unknown` where it is None or not mapped."""
        if status is None:
            return "unknown"
        # Most statuses arrive in the folded spelling already; folding costs ten times the look-up.
        return self._states.get(status) or self._states.get(_fold(status), "unknown")


def derive_run_state(states: Iterable[State]) -> State:
    """The state of a run from those of its steps, for runs whose own status the API does not give.

    An open step decides first (the run still moves), then the worst ended one; no steps at all is
    `pending`.
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
