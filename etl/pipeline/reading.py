"""The read of one run from the API: its steps, and its own row if that is needed."""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import datetime

import msgspec

from etl.errors import (
    ApiUnavailable,
    InvalidIdentifier,
    NotFound,
    RequestRefused,
    ResponseTooLarge,
    WorkflowRefused,
)
from etl.extract.client import OrchestraClient
from etl.ledger.claims import Claim
from etl.ledger.clock import DatabaseClock
from etl.pipeline.decoding import DecodingGroup
from etl.records import (
    TERMINAL_STATES,
    ApiResponse,
    DecodedRun,
    DecodedSteps,
    Drift,
    ListedRun,
    Rejected,
    RejectionReason,
    Run,
)
from etl.transform.decode import decode_steps
from etl.transform.redact import NotRedactable, Policy, Redaction
from etl.transform.runs import decode_run, decode_single_run
from etl.transform.states import StateMap

# Seconds for which no single run of a workflow is requested after a refusal. So a server that does
# not offer single runs gets few such requests, and a server that has only lost one run is soon sent
# requests again.
_SINGLE_RUN_PAUSE = 600.0


class Reading(msgspec.Struct, frozen=True):
    """The result of reading a claimed run, or why it could not be read."""

    claim: Claim
    requested_at: datetime
    """Database time at which the steps were requested."""
    server_time: datetime | None = None
    steps: DecodedSteps | None = None
    """None if the response contains nothing that can be loaded; `problem` then says why."""
    run: Run | None = None
    """The API's own row, if it is newer than the stored one."""
    run_observed_at: datetime | None = None
    listing_hash: bytes | None = None
    """Hash of the row, if it was requested by id; a list that shows the same row has this hash."""
    rejected: tuple[Rejected, ...] = ()
    drift: tuple[Drift, ...] = ()
    partial: bool = False
    """Whether `steps` comes from dead letters, and is only a part of the run's steps."""
    problem: str | None = None
    """Why the read failed; None if it did not."""
    not_found: bool = False
    """Whether the API returned 404 for the steps."""
    is_permanent: bool = False
    """Whether an early retry would not help."""
    size: int = 0
    """Estimate of the bytes held in memory."""

    @property
    def run_state(self) -> str | None:
        """The state in the API's own row: the row just read, otherwise the stored one.

        None if there is no row, or if the state map does not know the row's status.
        """
        state = self.run.state if self.run is not None else self.claim.run_state
        return None if state == "unknown" else state

    @property
    def run_end_time(self) -> datetime | None:
        """The run's end in the API's own row; None if there is no row, or no end."""
        return self.run.end_time if self.run is not None else self.claim.run_end_time

    @property
    def has_steps(self) -> bool:
        """Whether at least one step could be read."""
        return self.steps is not None and bool(self.steps.steps)

    @property
    def steps_terminal(self) -> bool:
        """Whether every step that could be read is terminal; True if there is none."""
        steps = self.steps.steps if self.steps is not None else ()
        return all(step.state in TERMINAL_STATES for step in steps)

    @property
    def digest(self) -> bytes:
        """Digest by which two reads are compared; empty if the read failed."""
        return self.steps.digest if self.steps is not None else b""


class Reader:
    """Reads claimed runs."""

    def __init__(
        self,
        client: OrchestraClient,
        clock: DatabaseClock,
        states: StateMap,
        node_types: Mapping[str, Mapping[str, str]],
        redaction: Redaction,
    ) -> None:
        """Create a reader; `node_types` (by node id, by workflow id) may be filled later."""
        self._client = client
        self._clock = clock
        self._states = states
        self._node_types = node_types
        self._redaction = redaction
        self._no_single_runs_until: dict[str, float] = {}

    async def read(self, claim: Claim, group: DecodingGroup) -> Reading:
        """Read one run; its responses are decoded together with those of the group.

        Raises:
            KeyRefused, WorkflowRefused, ApiUnavailable: the cause is not this run. The claim stays
                valid.
        """
        try:
            return await self._read(claim, group)
        except NotFound:
            return Reading(
                claim,
                self._clock.now(),
                problem="the API returns 404 for its steps",
                not_found=True,
            )
        except (InvalidIdentifier, ResponseTooLarge) as error:
            reason: RejectionReason = (
                "too_large" if isinstance(error, ResponseTooLarge) else "unusable_id"
            )
            letter = Rejected(reason, str(error), claim.run_id.encode())
            return Reading(
                claim, self._clock.now(), rejected=(letter,), problem=str(error), is_permanent=True
            )
        except RequestRefused as error:
            return Reading(claim, self._clock.now(), problem=str(error))

    async def _read(self, claim: Claim, group: DecodingGroup) -> Reading:
        policy = self._redaction.policy(claim.workflow_id)
        response = await self._client.steps(claim.workflow_id, claim.run_id)

        def decode() -> tuple[DecodedRun | None, tuple[Rejected, ...], DecodedSteps]:
            return (
                *self._decode_listing(claim, policy),
                self._decode_steps(response, claim, policy),
            )

        listed, rejected, steps = await group.decoded(
            len(response.body) + len(claim.listing or b""), decode
        )
        reading = Reading(
            claim,
            self._requested_at(response, claim),
            server_time=response.server_time,
            steps=steps if steps.readable else None,
            run=listed.run if listed else None,
            run_observed_at=claim.listed_at if listed else None,
            rejected=(*rejected, *steps.rejected),
            drift=(*(listed.drift if listed else ()), *steps.drift),
            problem=None if steps.readable else "the response for its steps is not a JSON array",
            size=2 * len(response.body) + len(claim.listing or b""),
        )
        if not steps.readable or not self._wants_own_row(reading, policy):
            return reading
        return await self._with_own_row(reading, policy, group)

    def _decode_listing(
        self, claim: Claim, policy: Policy | None
    ) -> tuple[DecodedRun | None, tuple[Rejected, ...]]:
        """Return the run's row from the list if it is newer than the stored one, and dead letters.

        The dead letters hold the parts of the row that could not be decoded.
        """
        if claim.listing is None or not _newer(claim.listed_at, claim.run_observed_at):
            return None, ()
        try:
            listed = decode_run(
                claim.listing, states=self._states, policy=policy, now=claim.listed_at
            )
        except NotRedactable as error:
            # The row was listed before there were redaction rules.
            return None, () if policy is None else (
                policy.withhold_unredactable(error, claim.listing),
            )
        return listed, listed.rejected

    def _decode_steps(
        self, response: ApiResponse, claim: Claim, policy: Policy | None
    ) -> DecodedSteps:
        return decode_steps(
            response.body,
            workflow_id=claim.workflow_id,
            run_id=claim.run_id,
            states=self._states,
            node_types=self._node_types.get(claim.workflow_id, {}),
            policy=policy,
            now=self._requested_at(response, claim),
        )

    def _requested_at(self, response: ApiResponse, claim: Claim) -> datetime:
        """Return the database time at which the response was requested."""
        return self._clock.at(response.requested_at, after=claim.claimed_at)

    def _wants_own_row(self, reading: Reading, policy: Policy | None) -> bool:
        """Return whether the run's own row must be requested.

        If the list has shown a newer row, the row is requested only if all steps are over while the
        newer row says that the run is not. If the stored row says that the run is over, the row is
        requested only if the steps have changed since, or if there are redaction rules, because the
        stored row may have been written under other rules. In all other cases it is requested,
        unless the server does not offer single runs.
        """
        claim = reading.claim
        if time.monotonic() < self._no_single_runs_until.get(claim.workflow_id, 0.0):
            return False
        if reading.run_state in TERMINAL_STATES:
            return reading.run is None and (
                policy is not None or reading.digest != claim.known.read_digest
            )
        return reading.run is None or (reading.has_steps and reading.steps_terminal)

    async def _with_own_row(
        self, reading: Reading, policy: Policy | None, group: DecodingGroup
    ) -> Reading:
        claim = reading.claim
        try:
            response = await self._client.run(claim.workflow_id, claim.run_id)
        except (NotFound, RequestRefused, WorkflowRefused):
            # The server returned the steps, so the run exists, and the key may read it: the server
            # does not offer single runs.
            self._no_single_runs_until[claim.workflow_id] = time.monotonic() + _SINGLE_RUN_PAUSE
            return reading
        except (ApiUnavailable, ResponseTooLarge):
            # The steps are loaded without the row. Until the row is read, the run is not final, so
            # the row will be requested again.
            return reading

        def decode() -> tuple[ListedRun, DecodedRun] | None:
            now = self._requested_at(response, claim)
            listed = decode_single_run(response.body, claim.run_id, policy=policy, now=now)
            if listed is None:
                return None
            return listed, decode_run(listed.listing, states=self._states, policy=policy, now=now)

        found = await group.decoded(len(response.body), decode)
        if found is None:
            return reading
        listed, own = found
        return msgspec.structs.replace(
            reading,
            run=own.run,
            run_observed_at=self._requested_at(response, claim),
            listing_hash=listed.listing_hash,
            rejected=(*reading.rejected, *own.rejected),
            drift=(*reading.drift, *own.drift),
            size=reading.size + len(response.body),
        )


def _newer(one: datetime | None, other: datetime | None) -> bool:
    return one is not None and (other is None or one > other)
