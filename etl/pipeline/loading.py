"""The load: one transaction for each batch of readings, behind the claims' fence."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import compress

import msgspec
import structlog
from sqlalchemy import Connection

from etl.database import Database
from etl.database_errors import is_database_error, sqlstate
from etl.dead_letter_buffer import MAX_BYTES, DeadLetterBuffer
from etl.errors import DatabaseUnavailable, EtlError
from etl.ledger import claims, dead_letters, drift
from etl.ledger.dead_letters import DeadLetter
from etl.ledger.lifecycle import GONE_AFTER, PollingPolicy
from etl.load.batch import WriteReport
from etl.load.upsert import write
from etl.pipeline.outcome import is_written, judged, run_write, settlement
from etl.pipeline.reading import Reading
from etl.pipeline.tracking_events import log_changes
from etl.records import DecodedSteps, Rejected
from etl.transform.decode import decode_steps
from etl.transform.redact import Redaction
from etl.transform.states import StateMap

log = structlog.get_logger(__name__)

# If a batch this large stores nothing, the cause is systemic.
SYSTEMIC = 10
# SQLSTATEs of a statement that exceeds its time or memory. A retry of the whole batch would fail
# each time, and its other runs would never be loaded.
LIMIT_SQLSTATES = ("57014", "53200")
# If each of the first SLOW runs of a batch exceeds a limit alone, the database itself is slow.
SLOW = 3

NO_REDACTION = Redaction()


class LoadReport(msgspec.Struct):
    """The sum of the results of loads."""

    runs: int = 0
    """Runs whose response was loaded, changed or not."""
    runs_inserted: int = 0
    runs_updated: int = 0
    steps: int = 0
    steps_inserted: int = 0
    steps_updated: int = 0
    steps_absent: int = 0
    failed: int = 0
    """Runs that could not be read and will be retried."""
    newly_failing: int = 0
    """The runs of `failed` whose previous read did not fail."""
    superseded: int = 0
    """Readings that the fence refused, because a newer one was requested or has been loaded."""
    dead_letters: int = 0
    """New dead letters."""

    def add(self, other: LoadReport) -> None:
        """Add another report's figures to this one's."""
        for name in self.__struct_fields__:
            setattr(self, name, getattr(self, name) + getattr(other, name))


class LimitExceeded(Exception):
    """A statement exceeded its time or memory; the text is its SQLSTATE."""


class Loader:
    """Writes batches of readings; its methods are synchronous, to be called in a thread."""

    def __init__(
        self,
        database: Database,
        policy: PollingPolicy,
        states: StateMap,
        redaction: Redaction = NO_REDACTION,
    ) -> None:
        """Create a loader.

        Args:
            database: loads go into this database.
            policy: the polling settings.
            states: the state map, for steps that are decoded from dead letters.
            redaction: the redaction rules, for the same steps.
        """
        self._database = database
        self._policy = policy
        self._states = states
        self._redaction = redaction

    def load(self, readings: Sequence[Reading]) -> LoadReport:
        """Load a batch; record dead letters for what the database refuses.

        If the database refuses the batch, and a retry would not help, the batch is split in halves,
        down to the refused row, which becomes a dead letter. If the batch exceeds a limit of time
        or memory, its runs are loaded one by one, so that one slow run delays the others by one
        time limit only.

        Raises:
            DatabaseError: the database is unavailable, or too slow for any run. The claims stay
                valid, or are consumed if the load was committed.
            EtlError: none of at least `SYSTEMIC` runs can be stored. The claims stay valid.
        """
        report, refused = self._in_parts(readings)
        if len(refused) == len(readings) >= SYSTEMIC:
            # The runs are not the cause, and dead letters for all of them would hide it.
            _, problem = refused[0]
            raise EtlError(
                f"none of {len(readings)} runs can be stored ({problem}): the cause is systemic, "
                "so no dead letter was recorded; ORCHESTRA_ETL_LOGS__LEVEL=debug shows where"
            )
        for reading, problem in refused:
            report.add(self._give_up(reading, f"the run cannot be stored: {problem}"))
        return report

    def _in_parts(
        self, readings: Sequence[Reading]
    ) -> tuple[LoadReport, list[tuple[Reading, str]]]:
        """Load the readings that can be loaded; return the report, and the others with causes."""
        try:
            return self._database.transaction(
                lambda c: self._bounded(c, readings, isolate=False)
            ), []
        except EtlError:
            raise
        except Exception as error:
            log.warning("batch_refused", cause=_cause(error), runs=len(readings))
            is_limit = isinstance(error, LimitExceeded)
        if len(readings) > 1:
            if is_limit:
                return self._one_by_one(readings)
            middle = len(readings) // 2
            report, refused = self._in_parts(readings[:middle])
            more_report, more_refused = self._in_parts(readings[middle:])
            report.add(more_report)
            return report, refused + more_refused
        try:
            return self._database.transaction(
                lambda c: self._bounded(c, readings, isolate=True)
            ), []
        except EtlError:
            raise
        except Exception as error:
            # Even if the error is a defect of this program, the run that triggers it must not
            # prevent the load of the others.
            trace = None if is_database_error(error) or isinstance(error, LimitExceeded) else error
            log.error(
                "run_refused", run=readings[0].claim.run_id, cause=_cause(error), exc_info=trace
            )
            return LoadReport(), [(readings[0], _cause(error))]

    def _one_by_one(
        self, readings: Sequence[Reading]
    ) -> tuple[LoadReport, list[tuple[Reading, str]]]:
        report, refused = LoadReport(), list[tuple[Reading, str]]()
        for number, reading in enumerate(readings, 1):
            part, problems = self._in_parts([reading])
            report.add(part)
            refused += problems
            if number == len(refused) == SLOW:
                raise DatabaseUnavailable(
                    f"the database takes too long for any run ({refused[0][1]}): check its load, "
                    "or raise database.statement_timeout"
                )
        return report, refused

    def _bounded(
        self, connection: Connection, readings: Sequence[Reading], *, isolate: bool
    ) -> LoadReport:
        """Load a batch; raise LimitExceeded if it exceeds a limit, so that no retry helps.

        While the process ends, its own cancellation of a statement looks the same: then the
        original error is raised.
        """
        try:
            return self._load(connection, readings, isolate=isolate)
        except Exception as error:
            code = sqlstate(error)
            if code in LIMIT_SQLSTATES and not self._database.is_ending:
                raise LimitExceeded(code) from None
            raise

    def _give_up(self, reading: Reading, problem: str) -> LoadReport:
        steps = reading.steps.steps if reading.steps is not None else ()
        kept, size = list[bytes](), 0
        for step in steps:
            size += memoryview(step.source).nbytes + 1
            if size > MAX_BYTES:
                break
            kept.append(bytes(step.source))
        left_out = (
            f" Of its {len(steps):,} steps the first {len(kept):,} are kept."
            if len(kept) < len(steps)
            else ""
        )
        letter = Rejected("rejected", problem + left_out, b"[" + b",".join(kept) + b"]")
        rejected = (*reading.rejected, letter)
        bare = Reading(reading.claim, reading.requested_at, rejected=rejected, problem=problem)
        return self._database.transaction(lambda c: self._load(c, [bare], isolate=False))

    def _load(
        self, connection: Connection, readings: Sequence[Reading], *, isolate: bool
    ) -> LoadReport:
        holds = claims.lock(connection, [reading.claim for reading in readings])
        mine = list(compress(readings, holds))
        report = LoadReport(superseded=len(readings) - len(mine))
        if report.superseded:
            # If the response to a COMMIT was lost, this unit of work is repeated, and the lost
            # claims include those that it has consumed itself. Its new dead letters must be
            # counted.
            lost = [
                reading.claim for reading, held in zip(readings, holds, strict=True) if not held
            ]
            report.dead_letters = dead_letters.count_new(
                connection, [(one.run_id, one.claimed_at) for one in lost]
            )
        if not mine:
            return report
        missing = [reading.claim.run_id for reading in mine if reading.not_found]
        gone = claims.vanished(connection, missing, gone_after=GONE_AFTER) if missing else set()
        verdicts = {
            reading.claim.run_id: judged(reading, self._policy, gone=reading.claim.run_id in gone)
            for reading in mine
        }
        recovered = self._recover(
            connection, [reading for reading in mine if reading.claim.run_id in gone]
        )
        written = write(
            connection,
            [
                run_write(reading, verdicts[reading.claim.run_id])
                for reading in (recovered.get(reading.claim.run_id, reading) for reading in mine)
                if is_written(reading)
            ],
            isolate=isolate,
        )
        self._record_dead_letters(connection, [*mine, *recovered.values()], written, report)
        drift.count(
            connection,
            [
                (reading.claim.workflow_id, reading.claim.run_id, one)
                for reading in mine
                # A response that equals the previous one is not counted twice.
                if reading.drift and reading.digest != reading.claim.known.read_digest
                for one in reading.drift
            ],
        )
        claims.settle(
            connection, [settlement(reading, verdicts[reading.claim.run_id]) for reading in mine]
        )
        _count(report, mine, written)
        log_changes(mine, verdicts)
        return report

    def _recover(self, connection: Connection, gone: Sequence[Reading]) -> dict[str, Reading]:
        """Return the readings of gone runs, with steps decoded from their open dead letters.

        Runs without such steps are left out. The API no longer has the steps of these runs.
        """
        bodies = (
            dead_letters.open_bodies(connection, [reading.claim.run_id for reading in gone])
            if gone
            else {}
        )
        recovered = {}
        for reading in gone:
            claim = reading.claim
            decoded = [
                decode_steps(
                    body,
                    workflow_id=claim.workflow_id,
                    run_id=claim.run_id,
                    states=self._states,
                    policy=self._redaction.policy(claim.workflow_id),
                )
                for body in bodies.get(claim.run_id, ())
            ]
            steps = {step.id: step for one in decoded for step in one.steps}
            if steps:
                recovered[claim.run_id] = msgspec.structs.replace(
                    reading,
                    steps=DecodedSteps(tuple(steps.values())),
                    partial=True,
                    rejected=tuple(letter for one in decoded for letter in one.rejected),
                )
        return recovered

    def _record_dead_letters(
        self,
        connection: Connection,
        found: Sequence[Reading],
        written: WriteReport,
        report: LoadReport,
    ) -> None:
        letters = [
            DeadLetter(reading.claim.workflow_id, reading.claim.run_id, rejected)
            for reading in found
            for rejected in reading.rejected
        ]
        refused: dict[tuple[str, str], DeadLetterBuffer] = {}
        for workflow_id, run_id, rejected in written.rejected:
            refused.setdefault((workflow_id, run_id), DeadLetterBuffer()).add(rejected)
        letters += [
            DeadLetter(*run, rejected)
            for run, gathered in refused.items()
            for rejected in gathered.letters()
        ]
        report.dead_letters += dead_letters.record(connection, letters)
        for partial in (False, True):
            read = [
                one.claim.run_id
                for one in found
                if one.steps is not None and one.partial is partial
            ]
            if read:
                dead_letters.resolve(connection, read, steps_only=partial)


def _cause(error: Exception) -> str:
    """Return the SQLSTATE or the type of an error, never its text, which may quote a row."""
    code = str(error) if isinstance(error, LimitExceeded) else sqlstate(error)
    return f"SQLSTATE {code}" if code is not None else type(error).__name__


def _count(report: LoadReport, mine: Sequence[Reading], written: WriteReport) -> None:
    for reading in mine:
        if reading.steps is None:
            report.failed += 1
            report.newly_failing += reading.claim.known.attempts == 0
        else:
            report.runs += 1
            report.steps += len(reading.steps.steps)
    report.runs_inserted = written.runs_inserted
    report.runs_updated = written.runs_updated
    report.steps_inserted = written.steps_inserted
    report.steps_updated = written.steps_updated
    report.steps_absent = written.steps_absent
