"""`runs`: recent runs, one run with its waterfall, and two runs compared."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, get_args

import msgspec
import typer

from etl.cli import run_comparison, run_payloads, search
from etl.cli.context import (
    AsJson,
    RunId,
    WorkflowIds,
    console,
    examples,
    invocation,
    print_json,
)
from etl.cli.display import (
    STYLES,
    duration,
    fields,
    instant,
    listing,
    say,
    span,
    state,
    styled,
)
from etl.errors import ConfigurationError
from etl.records import State
from etl.terminal import counted, first_plain, plain

if TYPE_CHECKING:
    from rich.text import Text
    from sqlalchemy import Connection

    from etl.reports.runs import RecentRun, RunDetail, StepDetail

BAR = 24
"""The width of the waterfall's bars, in characters; it stands for the whole duration of a run."""


def register(app: typer.Typer) -> None:
    """Add the commands."""
    group = typer.Typer(
        name="runs", help="List, show, compare and search runs.", no_args_is_help=True
    )
    group.command(
        "list",
        epilog=examples("runs list --state failed", "runs list -w 'weather jokes' --limit 5"),
    )(list_runs)
    group.command("show", epilog=examples("runs show 5b69669f", "runs show 5b69669f --payloads"))(
        show
    )
    group.command("compare", epilog=examples("runs compare 5b69669f 7c9e6679"))(
        run_comparison.compare
    )
    search.register(group)
    app.add_typer(group)


def list_runs(
    context: typer.Context,
    workflow: WorkflowIds = None,
    wanted: Annotated[
        State | None,
        typer.Option(
            "--state",
            metavar="STATE",
            help=f"Only runs in this state: {', '.join(get_args(State))}.",
        ),
    ] = None,
    limit: Annotated[
        int, typer.Option(min=1, max=100_000, metavar="NUMBER", help="Maximum number of runs.")
    ] = 20,
    as_json: AsJson = False,
) -> None:
    """List the newest stored runs, newest first."""
    from etl.cli import resolve
    from etl.reports import runs

    with invocation(context).database() as database:
        workflow = resolve.stored_workflows(database, workflow)
        found = database.transaction(
            lambda c: runs.recent(c, workflows=workflow, state=wanted, limit=limit)
        )
    if as_json:
        print_json(found)
        return
    if not found:
        say("no runs found")
        return
    listing(
        console(),
        ("start", "run", "state", "duration"),
        [
            (
                (
                    instant(run.start_time),
                    plain(run.id),
                    state(run.state),
                    duration(run.duration_ms),
                ),
                _summary(run),
            )
            for run in found
        ],
        numbers=("duration",),
    )


def show(
    context: typer.Context,
    run: RunId,
    payloads: Annotated[
        bool,
        typer.Option(
            "--payloads",
            help="Also show inputs and outputs; for model calls, the prompt and the answer.",
        ),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Show one run: its steps, and what happens to it next.

    A bar shows when each step ran and for how long. The line `next` says when the run is read next,
    and why.

    With `--payloads`, a call of a model is shown as text: parameters, system text, prompt, answer
    and the tools that it called. Inputs and outputs of other steps, and of calls whose shape is not
    known, are shown as JSON. A terminal shows the beginning of a long text; `--json` prints all.
    """
    from etl import app
    from etl.cli import resolve
    from etl.reports import runs

    settings = invocation(context).settings()

    def work(connection: Connection) -> RunDetail | None:
        id = resolve.run(connection, run)
        limit = settings.polling.give_up_after
        return runs.get(connection, id, give_up_after=limit, payloads=payloads)

    with app.open_database(settings) as database:
        found = database.transaction(work)
    if found is None:
        raise ConfigurationError(f"run {run[:80]!r} was removed a moment ago")
    if as_json:
        # `print_json` keeps the digits of stored numbers, which the json module would not.
        print_json(found)
        return
    _print_header(found)
    if found.steps:
        _print_waterfall(found)
    if payloads:
        run_payloads.print_payloads(found)


def _summary(run: RecentRun) -> str:
    name = first_plain(run.workflow_name, run.workflow_id, length=40)
    parts = [name, counted(run.steps, "step")]
    if run.total_tokens is not None:
        parts.append(counted(run.total_tokens, "token"))
    if run.tracking in ("stale", "gone"):
        parts.append(run.tracking)
    text = ", ".join(parts)
    return f"{text}: {plain(run.first_error, 200)}" if run.first_error else text


def _print_header(run: RunDetail) -> None:
    name = (
        f"{plain(run.workflow_name, 200)} ({plain(run.workflow_id)})"
        if run.workflow_name
        else plain(run.workflow_id)
    )
    rows: list[tuple[str, str | Text]] = [("run", plain(run.id)), ("workflow", name)]
    if run.stored:
        source = "by the API" if run.status_source == "api" else "derived from its steps"
        status = f" (status {plain(run.status, 40)}, {source})" if run.status else f" ({source})"
        rows += [
            ("state", state(run.state or "unknown") + styled(status)),
            (
                "start",
                f"{instant(run.start_time)}   end {instant(run.end_time)}"
                f"   duration {duration(run.duration_ms)}",
            ),
            ("tokens", _tokens(run.steps)),
        ]
    rows += _tracking(run)
    if run.error is not None:
        rows.append(("error", styled(plain(_error(run.error), 1000), "red")))
    if run.last_error is not None:
        rows.append(
            (
                "last read",
                styled(f"failed, attempt {run.attempts:,}: {plain(run.last_error, 500)}", "red"),
            )
        )
    fields(console(), rows)


def _tracking(run: RunDetail) -> list[tuple[str, str | Text]]:
    read = f"last read {instant(run.steps_observed_at)}" if run.steps_observed_at else "never read"
    rows: list[tuple[str, str | Text]] = [("tracking", f"{run.tracking}, {read}")]
    rows.append(("next", f"{_when(run)}: {run.next.reason}"))
    if run.next.action == "none":
        return rows
    if run.next.gives_up_at is not None:
        limit = f"{instant(run.next.gives_up_at)}, if it is still open (polling.give_up_after)"
        rows.append(("gives up", limit))
    claim = "none" if run.leased_until is None else f"until {instant(run.leased_until)}"
    order = "live" if run.priority == 0 else "backfill, after all live runs"
    rows.append(("claim", f"{claim}, token {run.fencing_token:,}; priority: {order}"))
    rows.append(
        (
            "checks",
            f"{counted(run.checks, 'read')} in a row found it over and unchanged,"
            f" {counted(run.attempts, 'read')} in a row failed",
        )
    )
    return rows


def _when(run: RunDetail) -> str:
    at = run.next.at
    if at is None:
        return "not read again"
    seconds = (at - run.at).total_seconds()
    if run.next.action == "being_read":
        return f"being read; claimed for {span(seconds)} more"
    if seconds <= 0:
        return f"due for {span(-seconds)}; read by `serve` or the next `sync`"
    return f"read in {span(seconds)} ({instant(at)})"


def _tokens(steps: tuple[StepDetail, ...]) -> str:
    counted_steps = [step for step in steps if step.absent_since is None]
    total = _sum(step.total_tokens for step in counted_steps)
    in_ = _sum(step.input_tokens for step in counted_steps)
    out = _sum(step.output_tokens for step in counted_steps)
    calls = [step for step in counted_steps if step.request_model or step.response_model]
    unknown = sum(step.total_tokens is None for step in calls)
    if {total, in_, out} == {"-"}:
        return f"not known: {counted(unknown, 'call')} without a count" if unknown else "-"
    return f"{total} ({in_} in, {out} out)" + (
        f", and {counted(unknown, 'call')} without a count" if unknown else ""
    )


def _sum(counts: Iterable[int | None]) -> str:
    """Return the sum of the known counts; `-` if none is known, because unknown is not 0."""
    known = [count for count in counts if count is not None]
    return f"{sum(known):,}" if known else "-"


def _print_waterfall(run: RunDetail) -> None:
    from rich.table import Table

    starts = [step.start_time for step in run.steps if step.start_time is not None]
    begin = min([*starts, run.start_time] if run.start_time else starts, default=run.at)
    end = max(
        [*(_end(step, run) for step in run.steps), *([run.end_time] if run.end_time else [])],
        default=begin,
    )
    length = max((end - begin).total_seconds(), 0.001)
    shown = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    shown.add_column("offset", justify="right", no_wrap=True)
    shown.add_column("", no_wrap=True)
    shown.add_column("duration", justify="right", no_wrap=True)
    shown.add_column("step", overflow="fold")
    for step in run.steps:
        offset = None if step.start_time is None else (step.start_time - begin).total_seconds()
        took = (
            None if step.start_time is None else (_end(step, run) - step.start_time).total_seconds()
        )
        shown.add_row(
            styled("-" if offset is None else span(offset) if offset >= 60 else f"{offset:.3f} s"),
            styled(_bar(offset, took, length), STYLES.get(step.state)),
            styled(duration(step.duration_ms) if step.end_time else "-"),
            _step(step),
        )
    out = console()
    out.print()
    out.print(shown)


def _end(step: StepDetail, run: RunDetail) -> datetime:
    """Return when the step's bar ends: now, if the step of an open run has not ended."""
    if step.end_time is not None:
        return step.end_time
    if run.tracking == "open" and step.start_time is not None:
        return max(run.at, step.start_time)
    return step.start_time or run.start_time or run.at


def _bar(offset: float | None, took: float | None, length: float) -> str:
    if offset is None or took is None:
        return ""
    left = min(int(offset / length * BAR), BAR - 1)
    # The shortest step is still visible, and so is a step that ends before its start.
    width = max(1, min(round(took / length * BAR), BAR - left))
    return " " * left + "█" * width


def _step(step: StepDetail) -> Text:
    text = styled(first_plain(step.node_id, step.id, length=60)) + styled("  ") + state(step.state)
    model = first_plain(step.response_model, step.request_model, length=60)
    facts = [model] if model else []
    if step.total_tokens is not None:
        facts.append(counted(step.total_tokens, "token"))
    if step.absent_since is not None:
        facts.append(f"not in the API's response since {instant(step.absent_since)}")
    if facts:
        text += styled("\n" + ", ".join(facts), "dim")
    problem = _error(step.error) if step.error is not None else step.reported_error
    return text + styled("\n" + plain(problem, 200), "red") if problem else text


def _error(error: msgspec.Raw) -> str:
    """Return the text of an error that is a JSON string, else its JSON."""
    try:
        return msgspec.json.decode(error, type=str)
    except msgspec.ValidationError:
        return bytes(error).decode()
