"""Pure functions that derive the run's tracking, table rows and settlement from a reading."""

from __future__ import annotations

from etl.ledger.claims import Settlement
from etl.ledger.lifecycle import DAILY, Decision, Observation, PollingPolicy, decide, retry_in
from etl.load.batch import RunWrite
from etl.pipeline.reading import Reading
from etl.records import TERMINAL_STATES
from etl.transform.states import derive_run_state


def judged(reading: Reading, policy: PollingPolicy, *, gone: bool) -> Decision:
    """Return the run's next tracking and due time; `gone` means that the API no longer has it."""
    known = reading.claim.known
    if reading.steps is not None:
        found = Observation(
            requested_at=reading.requested_at,
            server_time=reading.server_time,
            run_terminal=None
            if reading.run_state is None
            else reading.run_state in TERMINAL_STATES,
            run_end_time=reading.run_end_time,
            steps_terminal=reading.steps_terminal,
            has_steps=reading.has_steps,
            digest=reading.digest,
        )
        return decide(known, found, policy)
    if gone:
        return Decision("gone", None)
    age = (reading.requested_at - known.opened_at).total_seconds()
    if age > policy.give_up_after:
        # A run that no list has shown, and for which the API returns 404, is not read again. Any
        # other problem may pass, so the run is read once a day.
        return Decision(
            "stale", DAILY if known.listed or not reading.not_found else None, known.checks
        )
    return Decision(
        "open", DAILY if reading.is_permanent else retry_in(known.attempts + 1), known.checks
    )


def is_written(reading: Reading) -> bool:
    """Return whether the run has a row in the tables, or gets one.

    A failed read creates no row for a run that was never read.
    """
    return reading.steps is not None or reading.claim.known.steps_observed_at is not None


def run_write(reading: Reading, verdict: Decision) -> RunWrite:
    """Return the rows to write for the run and its steps."""
    claim = reading.claim
    steps = reading.steps.steps if reading.steps is not None else ()
    over = reading.has_steps and reading.steps_terminal
    # Dead letters contain only a part of the steps. A run's row that was derived from more steps
    # keeps its values.
    recovered = reading.partial and claim.known.steps_observed_at is not None
    return RunWrite(
        id=claim.run_id,
        workflow_id=claim.workflow_id,
        tracking=verdict.tracking,
        observed=reading.run,
        stored=claim.run_observed_at is not None or reading.steps is None or recovered,
        derived_state=derive_run_state(step.state for step in steps),
        start_time=min((step.start_time for step in steps if step.start_time), default=None),
        end_time=max((step.end_time for step in steps if step.end_time), default=None)
        if over
        else None,
        user_id=next((step.user_id for step in steps if step.user_id), None),
        organization_id=next(
            (step.organization_id for step in steps if step.organization_id), None
        ),
        steps=steps,
        # A step that became a dead letter is not absent: only a response that was decoded
        # completely shows which steps are missing.
        complete=reading.steps is not None and not reading.steps.rejected and not reading.partial,
    )


def settlement(reading: Reading, verdict: Decision) -> Settlement:
    """Return the settlement of the reading's claim."""
    claim = reading.claim
    if reading.steps is None:
        return Settlement(
            run_id=claim.run_id,
            tracking=verdict.tracking,
            due_in=verdict.due_in,
            # A failed read found nothing new, so the re-checks before it still count.
            checks=verdict.checks,
            attempts=claim.known.attempts + 1,
            last_error=reading.problem,
            not_found_since=(claim.not_found_since or reading.requested_at)
            if reading.not_found
            else None,
        )
    return Settlement(
        run_id=claim.run_id,
        tracking=verdict.tracking,
        due_in=verdict.due_in,
        checks=verdict.checks,
        steps_observed_at=reading.requested_at,
        read_digest=reading.digest,
        run_observed_at=reading.run_observed_at,
        run_state=None if reading.run is None else reading.run.state,
        run_end_time=None if reading.run is None else reading.run.end_time,
        listing_hash=reading.listing_hash,
        listing_loaded=True,
    )
