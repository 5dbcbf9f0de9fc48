"""`alerts`: what fires, what would be sent now, and mutes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

from etl.cli.context import AsJson, console, examples, invocation, print_json
from etl.cli.display import counted, instant, listing, say, span, state
from etl.errors import ConfigurationError, SchemaMismatch
from etl.exit_status import ExitStatus
from etl.terminal import plain

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rich.text import Text
    from sqlalchemy import Connection

    from etl.alerts.evaluation import EvaluationReport, Finding
    from etl.alerts.rules import Rule
    from etl.database import Database
    from etl.settings import Settings

    Row = tuple[Sequence[str | Text], Sequence[str]]


class Listed(msgspec.Struct, frozen=True):
    """A stored state."""

    rule: str
    workflow_id: str
    workflow_name: str | None
    subject: str
    state: str
    since: datetime
    value: float | None
    threshold: float | None
    reason: str | None
    muted_until: datetime | None


def register(app: typer.Typer) -> None:
    """Add the commands."""
    group = typer.Typer(
        name="alerts", help="Show, check and mute the alerts on runs.", no_args_is_help=True
    )
    group.command("list")(list_alerts)
    group.command("check", epilog=examples("alerts check", "alerts check --json"))(check)
    group.command("mute", epilog=examples("alerts mute 'support triage fails' --for 2h"))(mute)
    app.add_typer(group)


def list_alerts(context: typer.Context, as_json: AsJson = False) -> None:
    """List the alerts that fire, fired, or cannot be judged, as last evaluated.

    `serve` evaluates every minute, and `sync` at its end. A workflow that was always ok is left
    out.
    """
    settings = invocation(context).settings()
    rules = {one.name: one for one in _rules(settings)}
    with _database(settings) as database:
        found, evaluated_at = database.transaction(_listed)
    if as_json:
        print_json({"evaluated_at": evaluated_at, "alerts": found})
        return
    if evaluated_at is None:
        say("not evaluated yet: run `orchestra-etl serve` or `orchestra-etl sync`")
        return
    if not found:
        say(f"{counted(len(rules), 'rule')}: nothing fires")
    else:
        _print([_shown(one, rules) for one in found])
    say(f"evaluated at {instant(evaluated_at)}")


def check(context: typer.Context, as_json: AsJson = False) -> int:
    """Evaluate the rules now, and print what would be sent.

    Changes nothing and sends nothing. Exit status 12 if an alert fires.
    """
    from etl import app
    from etl.alerts import evaluation

    settings = invocation(context).settings()
    rules, pauses = _rules(settings), app.sweep_pauses(settings)
    with _database(settings) as database:
        report = database.transaction(lambda c: evaluation.preview(c, rules, pauses))
    if as_json:
        print_json(report)
    else:
        _print_report(report, {one.name: one for one in rules})
    return ExitStatus.ALERT_FIRES if report.firing else ExitStatus.DONE


def mute(
    context: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of the rule.")],
    how_long: Annotated[
        str,
        typer.Option("--for", metavar="DURATION", help="Such as 2h; 0s ends the mute."),
    ],
    as_json: AsJson = False,
) -> None:
    """Send no messages of a rule for a while.

    It is still evaluated and shown. What fires when the mute ends is sent then.
    """
    from etl.alerts import states
    from etl.cli.times import duration

    settings = invocation(context).settings()
    if name not in {one.name for one in settings.alerts}:
        raise ConfigurationError(f"there is no rule {name[:200]!r} in {settings.source}")
    seconds = duration("--for", how_long)
    with _database(settings) as database:
        until = database.transaction(lambda c: states.mute(c, name, seconds)) if seconds else None
        if until is None:
            database.transaction(lambda c: states.unmute(c, name))
    if as_json:
        print_json({"rule": name, "muted_until": until})
    elif until is None:
        say(f"{plain(name)} is not muted")
    else:
        say(f"{plain(name)} is muted until {instant(until)}")


def _rules(settings: Settings) -> list[Rule]:
    """Return the rules.

    Raises:
        ConfigurationError: there is none.
    """
    from etl import app

    if not settings.alerts:
        raise ConfigurationError(f"no [[alerts]] in {settings.source}: add a rule")
    return app.alert_rules(settings)


@contextmanager
def _database(settings: Settings) -> Iterator[Database]:
    """Open the database.

    Raises:
        DatabaseError: it cannot be used, or has no tables of alerts.
    """
    from etl import app
    from etl.alerts import states

    with app.open_database(settings) as database:
        if not database.transaction(states.exist):
            raise SchemaMismatch("alerts need a newer schema: run `orchestra-etl db upgrade`")
        yield database


def _listed(connection: Connection) -> tuple[list[Listed], datetime | None]:
    from etl.alerts import states

    at = states.now(connection)
    names, mutes = states.names(connection), states.mutes(connection, at)
    found = [
        Listed(
            rule=one.rule,
            workflow_id=one.workflow_id,
            workflow_name=names.get(one.workflow_id),
            subject=one.subject,
            state=one.state,
            since=one.since,
            value=one.value,
            threshold=one.threshold,
            reason=one.reason,
            muted_until=mutes.get(one.rule),
        )
        for one in states.read(connection).values()
    ]
    return found, states.evaluated_at(connection)


def _shown(one: Listed, rules: Mapping[str, Rule]) -> Row:
    below = [_named(one.workflow_name, one.workflow_id, one.subject)]
    if one.reason is not None:
        below.append(f"not known: {one.reason}")
    if one.muted_until is not None:
        below.append(f"muted until {instant(one.muted_until)}")
    return _row(
        one.state, one.rule, rules.get(one.rule), one.value, one.threshold, one.since
    ), below


def _print_report(report: EvaluationReport, rules: Mapping[str, Rule]) -> None:
    if report.findings:
        _print([_found(one, rules) for one in report.findings])
    say(
        f"{counted(len(rules), 'rule')}, {counted(report.subjects, 'subject')}:"
        f" {report.firing or 'nothing'} {'fire' if report.firing > 1 else 'fires'}"
    )


def _found(one: Finding, rules: Mapping[str, Rule]) -> Row:
    alert = one.alert
    below = [_named(one.workflow_name, alert.workflow_id, alert.subject)]
    if alert.reason is not None:
        below.append(f"not known: {alert.reason}")
    below += [f"would tell {plain(message.channel)}: {message.kind}" for message in one.messages]
    cells = _row(
        alert.state, alert.rule, rules.get(alert.rule), alert.value, alert.threshold, alert.since
    )
    return cells, below


def _named(name: str | None, workflow_id: str, subject: str) -> str:
    part = subject.removeprefix(workflow_id)
    return f"{plain(name or workflow_id, 60)}{plain(part, 200)}"


def _row(
    word: str,
    name: str,
    rule: Rule | None,
    value: float | None,
    threshold: float | None,
    since: datetime,
) -> list[str | Text]:
    return [
        state(word),
        plain(name, 60),
        "-" if rule is None else rule.metric,
        _number(rule, value),
        _number(rule, threshold),
        instant(since),
    ]


def _number(rule: Rule | None, value: float | None) -> str:
    """Return a value of the rule's metric; durations with their unit."""
    if value is None:
        return "-"
    if rule is not None and rule.is_duration:
        return span(value) if value >= 60 else f"{value:.3g} s"
    return f"{value:,.6g}"


def _print(rows: list[Row]) -> None:
    listing(
        console(),
        ("state", "rule", "metric", "value", "threshold", "since"),
        rows,
        numbers=("value", "threshold"),
    )
