"""`status`: how every workflow is doing."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from etl.cli.context import AsJson, console, examples, invocation, print_json
from etl.cli.display import STYLES, fields, instant, span, state, styled
from etl.cli.times import seconds
from etl.exit_status import ExitStatus
from etl.terminal import counted, first_plain, plain

if TYPE_CHECKING:
    from rich.text import Text

    from etl.reports.alerts import AlertsStatus
    from etl.reports.lake import LakeProgress
    from etl.reports.status import Coverage, Status, WorkflowStatus


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(epilog=examples("status", "status --check --max-age 30m"))(status)


def status(
    context: typer.Context,
    check: Annotated[
        bool,
        typer.Option("--check", help="For monitors: exit status 7 if the verdict is `failing`."),
    ] = False,
    max_age: Annotated[
        str | None,
        typer.Option(
            metavar="DURATION",
            help="A workflow is failing after this time without a complete sweep, such as 15m."
            " Default: its interval plus 2h.",
        ),
    ] = None,
    as_json: AsJson = False,
) -> int:
    """Show how every workflow is doing, with a verdict.

    `failing`: for too long there was no complete sweep, or due runs were not read. `warning`: there
    is a gap, a dead letter, a failed read or sweep, a run list that is nearly too short, or another
    problem. Otherwise `ok`. The output names every problem.
    """
    from etl import app

    age = None if max_age is None else seconds("--max-age", max_age)
    settings = invocation(context).settings()
    with app.open_database(settings) as database:
        found = app.read_status(settings, database, age)
    if as_json:
        print_json(found)
    else:
        _print(found)
        _print_alerts(found.alerts)
        _print_lake(found.lake)
        _print_old_prices()
    is_failing = check and found.verdict == "failing"
    return ExitStatus.FAILING if is_failing else ExitStatus.DONE


def _print(found: Status) -> None:
    out = console()
    out.print(state(found.verdict), styled(instant(found.at), "dim"))
    for workflow in found.workflows:
        out.print()
        _print_workflow(workflow)
    if not found.workflows:
        out.print(
            "no workflow is configured and no run is known: see `orchestra-etl workflows`",
            markup=False,
        )
    if found.unusable_workflows:
        out.print()
        number = counted(found.unusable_workflows, "workflow")
        text = f"{number} skipped, because the id does not fit in a request's path"
        fields(out, [("dead letters", f"{text}: see `orchestra-etl dead-letters list`")])
    if found.rebuild is not None:
        out.print()
        fields(out, [("rebuild", styled(found.rebuild.advice, STYLES["warning"]))])
    if found.unconfigured:
        names = ", ".join(
            first_plain(one.name, one.id, length=40) for one in found.unconfigured[:10]
        )
        more = "" if len(found.unconfigured) <= 10 else ", …"
        out.print()
        fields(
            out,
            [
                (
                    "not configured",
                    f"{counted(len(found.unconfigured), 'workflow')}: {names}{more};"
                    " see `workflows`",
                )
            ],
        )


def _print_alerts(found: AlertsStatus) -> None:
    rows: list[tuple[str, str | Text]] = []
    for rule in found.rules:
        if not rule.firing:
            continue
        named = [
            f"{first_plain(one.workflow_name, one.workflow_id, length=40)}"
            f" since {instant(one.since)}"
            for one in rule.examples
        ]
        more = ", …" if rule.firing > len(named) else ""
        muted = "" if rule.muted_until is None else f" (muted until {instant(rule.muted_until)})"
        text = f"{plain(rule.name, 60)}{muted} fires: {', '.join(named)}{more}; see `alerts list`"
        rows.append(("alert", styled(text, STYLES["failing"])))
    for channel in found.channels:
        if channel.undelivered:
            text = (
                f"{counted(channel.undelivered, 'message')} to {plain(channel.name, 60)} could not"
                f" be delivered yet: {plain(channel.failure or '', 200)}"
            )
            rows.append(("notify", styled(text, STYLES["warning"])))
    if rows:
        console().print()
        fields(console(), rows)


def _print_lake(found: LakeProgress | None) -> None:
    if found is None:
        return
    exported = "never complete" if found.exported_at is None else instant(found.exported_at)
    waiting = f"; {counted(found.waiting, 'day')} waiting" if found.waiting else ""
    since = (
        "" if found.waiting_since is None else f", the first since {instant(found.waiting_since)}"
    )
    console().print()
    fields(console(), [("lake", f"last export {exported}{waiting}{since}")])


def _print_old_prices() -> None:
    from etl.analytics.price_publication import publication

    published = publication(datetime.now(UTC).date())
    if published.is_old:
        out = console()
        out.print()
        fields(out, [("prices", published.text)])


def _print_workflow(one: WorkflowStatus) -> None:
    out = console()
    title = plain(one.name or "", 60)
    out.print(
        styled(f"{title}  " if title else "", "bold"),
        styled(plain(one.id) + "  "),
        state(one.verdict),
        sep="",
    )
    newest, sweep = one.freshness.newest_run_start, one.freshness.swept_at
    rows: list[tuple[str, str | Text]] = [
        (
            "newest run",
            "none yet"
            if newest is None
            else f"{instant(newest)}, {span(one.freshness.newest_run_age)} ago",
        ),
        (
            "last sweep",
            "none is complete yet"
            if sweep is None
            else f"complete {span(one.freshness.swept_age)} ago,"
            f" {counted(one.headroom.new_runs or 0, 'new run')}",
        ),
        ("coverage", _coverage(one.coverage)),
        ("headroom", _headroom(one)),
        ("due now", _lag(one)),
        (
            "runs",
            f"{one.runs.open:,} open, {one.runs.final:,} final, {one.runs.stale:,} stale,"
            f" {one.runs.gone:,} gone"
            + (f" ({one.runs.lost:,} of them never read)" if one.runs.lost else "")
            + (f", {one.runs.removed:,} erased or pruned" if one.runs.removed else ""),
        ),
    ]
    if not one.discover:
        rows[1:4] = [
            (
                "run list",
                "not swept: " + ("discover = false" if one.configured else "not configured"),
            )
        ]
    if one.failing.runs:
        error = plain(one.failing.example_error or "", 300)
        last = f"; run {plain(one.failing.example_run or '')}: {error}"
        rows.append(("failing reads", counted(one.failing.runs, "run") + last))
    if one.dead_letters:
        rows.append(("dead letters", f"{one.dead_letters:,} open"))
    if one.drift:
        examples = ", ".join(
            f"{plain(drift.subject)}.{plain(drift.field, 40)} {drift.kind} {plain(drift.found, 40)}"
            for drift in one.drift_examples
        )
        rows.append(
            ("drift", f"{counted(one.drift, 'difference')} from the API's description: {examples}")
        )
    fields(out, rows, indent=2)
    for reason in one.reasons:
        text = styled(f"{reason.level}: {plain(reason.text, 500)}", STYLES[reason.level])
        fields(out, [("!", text)], indent=2)


def _coverage(coverage: Coverage) -> str:
    if coverage.complete_until is None:
        return "not known: no sweep is complete yet"
    until = instant(coverage.complete_until)
    text = f"complete until {until}; no run is stored yet"
    if coverage.complete_since is not None:
        text = f"complete from {instant(coverage.complete_since)} until {until}"
    exceptions = []
    if coverage.conflicting_runs:
        exceptions.append(
            f"{counted(coverage.conflicting_runs, 'conflicting run')}, whose ids other workflows"
            " have"
        )
    if coverage.gaps:
        acknowledged = coverage.gaps - coverage.unacknowledged_gaps
        acknowledged_note = f" ({acknowledged:,} acknowledged)" if acknowledged else ""
        gaps = ", ".join(
            f"#{gap.id} {instant(gap.after)} to {instant(gap.before)}"
            for gap in coverage.newest_gaps
        )
        more = ", and older ones" if coverage.gaps > len(coverage.newest_gaps) else ""
        exceptions.append(f"{counted(coverage.gaps, 'gap')}{acknowledged_note}: {gaps}{more}")
    return f"{text}, except {' and '.join(exceptions)}" if exceptions else text


def _headroom(one: WorkflowStatus) -> str:
    room = one.headroom
    if room.listed_runs is None:
        return "not known: the whole list was not walked yet"
    text = f"the list shows {counted(room.listed_runs, 'run')}"
    if not room.window_full or room.new_runs is None:
        runs = one.runs
        known = runs.open + runs.final + runs.stale + runs.gone + runs.removed
        if known > room.listed_runs:
            # Runs were added since, or the list has become shorter: only the next walk of the
            # whole list shows which.
            return (
                f"the last walk of the whole list showed {counted(room.listed_runs, 'run')};"
                f" {known:,} are known now"
            )
        return f"{text}, all that are known"
    percent = 100 * room.new_runs / max(room.listed_runs, 1)
    return f"{text}, the last sweep found {room.new_runs:,} new ({percent:.0f} %)"


def _lag(one: WorkflowStatus) -> str:
    text = counted(one.lag.due, "run")
    if one.lag.oldest_due is not None:
        text += f", the oldest since {instant(one.lag.oldest_due)}"
    return text + (f"; {one.lag.unread:,} never read" if one.lag.unread else "")
