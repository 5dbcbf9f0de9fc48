"""One run read from the API: its steps, and its own row where that is needed."""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import datetime
from functools import partial

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
from etl.pipeline.decoding import decoded
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

# Seconds for which a workflow's runs are not asked for alone after a refusal: a server that does
# not offer it is asked rarely, one that had merely lost a run is asked again soon.
_ASK_AGAIN = 600.0


class Reading(msgspec.Struct, frozen=True):
    """What was read of a claimed run; what could not be read says why."""

    claim: Claim
    requested_at: datetime
    """Database time at which the steps were requested."""
    server_time: datetime | None = None
    steps: DecodedSteps | None = None
    """None where the answer holds nothing that can be loaded: then `problem` says why."""
    run: Run | None = None
    """The API's own row, where it is newer than what is stored."""
    run_observed_at: datetime | None = None
    listing_hash: bytes | None = None
    """Hash of the row, where it was read alone: the list will show the same one."""
    rejected: tuple[Rejected, ...] = ()
    drift: tuple[Drift, ...] = ()
    partial: bool = False
    """Whether `steps` is only a part of what the run has, out of dead letters."""
    problem: str | None = None
    not_found: bool = False
    is_permanent: bool = False
    """Repeating the request soon will not help."""
    size: int = 0
    """Bytes held in memory."""

    @property
    def run_state(self) -> str | None:
        """The state by the API's own row: the one just read, else the one stored; None where there is none to go by.

        A status that the state map does not know says nothing, so it counts as none.
        """
        state = self.run.state if self.run is not None else self.claim.run_state
        return None if state == "unknown" else state

    @property
    def run_end_time(self) -> datetime | None:
        """The run's end by the API's own row."""
        return self.run.end_time if self.run is not None else self.claim.run_end_time

    @property
    def has_steps(self) -> bool:
        """Whether there is a step that could be read."""
        return self.steps is not None and bool(self.steps.steps)

    @property
    def steps_terminal(self) -> bool:
        """Whether every step that could be read is terminal; also where there is none."""
        steps = self.steps.steps if self.steps is not None else ()
        return all(step.state in TERMINAL_STATES for step in steps)

    @property
    def digest(self) -> bytes:
        """Digest of what decides whether two reads found the same."""
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
        """`node_types`: node id to type, by workflow; it may be filled later."""
        self._client = client
        self._clock = clock
        self._states = states
        self._node_types = node_types
        self._redaction = redaction
        self._no_single_runs_until: dict[str, float] = {}

    async def read(self, claim: Claim) -> Reading:
        """Read one run.

        Raises:
            KeyRefused, WorkflowRefused, ApiUnavailable: the run says nothing about it; the claim still stands.
        """
        try:
            return await self._read(claim)
        except NotFound:
            return Reading(
                claim,
                self._clock.now(),
                problem="the API answers 404 for its steps",
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

    async def _read(self, claim: Claim) -> Reading:
        policy = self._redaction.policy(claim.workflow_id)
        listed, rejected = await decoded(
            len(claim.listing or b""), partial(self._decode_listing, claim, policy)
        )
        answer = await self._client.steps(claim.workflow_id, claim.run_id)
        steps = await self._decode(answer, claim, policy)
        reading = Reading(
            claim,
            self._clock.at(answer.requested_at),
            server_time=answer.server_time,
            steps=steps if steps.readable else None,
            run=listed.run if listed else None,
            run_observed_at=claim.listed_at if listed else None,
            rejected=(*rejected, *steps.rejected),
            drift=(*(listed.drift if listed else ()), *steps.drift),
            problem=None if steps.readable else "the answer for its steps is no JSON array",
            size=2 * len(answer.body) + len(claim.listing or b""),
        )
        if not steps.readable or not self._wants_own_row(reading, policy):
            return reading
        return await self._with_own_row(reading, policy)

    def _decode_listing(
        self, claim: Claim, policy: Policy | None
    ) -> tuple[DecodedRun | None, tuple[Rejected, ...]]:
        """The run's row from the list, where it is newer than the one stored, and what of it is set aside."""
        if claim.listing is None or not _newer(claim.listed_at, claim.run_observed_at):
            return None, ()
        try:
            listed = decode_run(
                claim.listing, states=self._states, policy=policy, now=claim.listed_at
            )
        except NotRedactable as trouble:  # it was listed before there were rules
            return None, () if policy is None else (
                policy.withhold_unredactable(trouble, claim.listing),
            )
        return listed, listed.rejected

    async def _decode(
        self, answer: ApiResponse, claim: Claim, policy: Policy | None
    ) -> DecodedSteps:
        def decode() -> DecodedSteps:
            return decode_steps(
                answer.body,
                workflow_id=claim.workflow_id,
                run_id=claim.run_id,
                states=self._states,
                node_types=self._node_types.get(claim.workflow_id, {}),
                policy=policy,
                now=self._clock.at(answer.requested_at),
            )

        return await decoded(len(answer.body), decode)

    def _wants_own_row(self, reading: Reading, policy: Policy | None) -> bool:
        """The run's own row is asked for where nothing newer than the last read is at hand, or the steps look finished
        under a run that does not; not where the API is known to have ended it (unless its steps
        have moved since, or there are redaction rules: the stored row may have been written under
        others), nor where it offers no such row."""
        claim = reading.claim
        if time.monotonic() < self._no_single_runs_until.get(claim.workflow_id, 0.0):
            return False
        if reading.run_state in TERMINAL_STATES:
            return reading.run is None and (
                policy is not None or reading.digest != claim.known.read_digest
            )
        return reading.run is None or (reading.has_steps and reading.steps_terminal)

    async def _with_own_row(self, reading: Reading, policy: Policy | None) -> Reading:
        claim = reading.claim
        try:
            answer = await self._client.run(claim.workflow_id, claim.run_id)
        except (NotFound, RequestRefused, WorkflowRefused):
            # The steps were answered, so the run exists and the key may read it: this server does
            # not offer the row.
            self._no_single_runs_until[claim.workflow_id] = time.monotonic() + _ASK_AGAIN
            return reading
        except (ApiUnavailable, ResponseTooLarge):
            # The steps alone must be enough. Without the row the run is not final yet, so it is
            # asked for again.
            return reading

        def decode() -> tuple[ListedRun, DecodedRun] | None:
            now = self._clock.at(answer.requested_at)
            listed = decode_single_run(answer.body, claim.run_id, policy=policy, now=now)
            if listed is None:
                return None
            return listed, decode_run(listed.listing, states=self._states, policy=policy, now=now)

        found = await decoded(len(answer.body), decode)
        if found is None:
            return reading
        listed, own = found
        return msgspec.structs.replace(
            reading,
            run=own.run,
            run_observed_at=self._clock.at(answer.requested_at),
            listing_hash=listed.listing_hash,
            rejected=(*reading.rejected, *own.rejected),
            drift=(*reading.drift, *own.drift),
            size=reading.size + len(answer.body),
        )


def _newer(one: datetime | None, other: datetime | None) -> bool:
    return one is not None and (other is None or one > other)
