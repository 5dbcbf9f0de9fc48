"""`alerts`: lists, checks and mutes the alerts on runs, and tests a channel."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

from etl.cli.context import AsJson, console, examples, invocation, print_json
from etl.cli.display import instant, listing, say, span, state
from etl.errors import ConfigurationError, SchemaMismatch
from etl.exit_status import ExitStatus
from etl.terminal import counted, first_plain, plain

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rich.text import Text
    from sqlalchemy import Connection

    from etl.alerts.evaluation import AlertFinding, EvaluationReport
    from etl.alerts.rules import Rule
    from etl.alerts.transitions import Alert
    from etl.database import Database
    from etl.settings import Settings

    Row = tuple[Sequence[str | Text], Sequence[str]]


RuleName = Annotated[str, typer.Argument(metavar="NAME", help="Name of the rule.")]


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
    group.command("unmute")(unmute)
    group.command("test", epilog=examples("alerts test ops"))(send_test)
    app.add_typer(group)


def list_alerts(context: typer.Context, as_json: AsJson = False) -> None:
    """List the alerts as last evaluated.

    `serve` evaluates them every minute, `sync` and `backfill` at their end. A workflow that never
    breached a rule is not listed.
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
    from etl import alerting
    from etl.alerts import evaluation

    settings = invocation(context).settings()
    rules, pauses = _rules(settings), alerting.pauses(settings)
    with _database(settings) as database:
        report = database.transaction(lambda c: evaluation.preview(c, rules, pauses))
    if as_json:
        print_json(report)
    else:
        _print_report(report, {one.name: one for one in rules})
    return ExitStatus.ALERT_FIRES if report.firing else ExitStatus.DONE


def mute(
    context: typer.Context,
    name: RuleName,
    how_long: Annotated[
        str, typer.Option("--for", metavar="DURATION", help="How long, such as 2h.")
    ],
    as_json: AsJson = False,
) -> None:
    """Send no messages of a rule for a while.

    The rule is still evaluated and shown. If it fires when the mute ends, it sends a message then.
    """
    from etl.alerts import states
    from etl.cli.times import seconds

    settings = invocation(context).settings()
    _check_name(settings, name)
    length = seconds("--for", how_long)
    with _database(settings) as database:
        until = database.transaction(lambda c: states.mute(c, name, length))
    if as_json:
        print_json({"rule": name, "muted_until": until})
    else:
        say(f"{plain(name)} is muted until {instant(until)}")


def unmute(context: typer.Context, name: RuleName, as_json: AsJson = False) -> None:
    """Send the messages of a rule again."""
    from etl.alerts import states

    settings = invocation(context).settings()
    _check_name(settings, name)
    with _database(settings) as database:
        was_muted = database.transaction(lambda c: states.unmute(c, name))
    if as_json:
        print_json({"rule": name, "was_muted": was_muted})
    else:
        say(f"{plain(name)} {'is no longer' if was_muted else 'was not'} muted")


def send_test(
    context: typer.Context,
    channel: Annotated[
        str, typer.Argument(metavar="CHANNEL", help="A channel: a name of `[notify.NAME]`.")
    ],
    as_json: AsJson = False,
) -> int:
    """Send a test message to a channel.

    It needs no database. Exit status 13: the channel did not accept the message; the output says
    why.
    """
    import asyncio
    from datetime import UTC, datetime

    from etl import alerting
    from etl.alerts.channels import NotDelivered
    from etl.alerts.message import sample_message

    settings = invocation(context).settings()
    channels = alerting.open_channels(settings)
    if channel not in channels.names:
        known = ", ".join(channels.names)
        raise ConfigurationError(
            f"there is no channel {plain(channel, 200)} ({settings.source}): "
            + (f"choose from {known}" if known else f"add a section [notify.{plain(channel, 200)}]")
        )
    message = sample_message(channel, datetime.now(UTC))
    failure: str | None = None
    try:
        asyncio.run(channels.send(channel, message))
    except NotDelivered as error:
        failure = str(error)
    if as_json:
        print_json({"channel": channel, "key": message.key, "failure": failure})
    elif failure is None:
        say(f"{channel} accepted the message {message.key!r}")
    else:
        say(f"{channel} did not accept the message: {failure}", err=True)
    return ExitStatus.DONE if failure is None else ExitStatus.NOT_ACCEPTED


def _rules(settings: Settings) -> list[Rule]:
    """Return the rules.

    Raises:
        ConfigurationError: no rule is configured.
    """
    from etl import alerting

    if not settings.alerts:
        raise ConfigurationError(f"no [[alerts]] in {settings.source}: add a rule")
    return alerting.rules(settings)


def _check_name(settings: Settings, name: str) -> None:
    """Check that there is a rule with this name.

    Raises:
        ConfigurationError: no rule has this name.
    """
    if name not in {one.name for one in settings.alerts}:
        raise ConfigurationError(f"there is no rule {plain(name, 200)!r} in {settings.source}")


@contextmanager
def _database(settings: Settings) -> Iterator[Database]:
    """Open the database.

    Raises:
        DatabaseError: it cannot be used, or has no tables for alerts.
    """
    from etl import app
    from etl.alerts import states

    with app.open_database(settings) as database:
        if not database.transaction(states.exist):
            raise SchemaMismatch("alerts need a newer schema: run `orchestra-etl db upgrade`")
        yield database


def _listed(connection: Connection) -> tuple[list[Listed], datetime | None]:
    from etl.alerts import knowledge, states

    at = knowledge.now(connection)
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
        for one in states.read(connection)
    ]
    return found, states.evaluated_at(connection)


def _shown(one: Listed, rules: Mapping[str, Rule]) -> Row:
    below = [_named(one.rule, one.workflow_name, one.workflow_id, one.subject)]
    if one.reason is not None:
        below.append(f"not known: {one.reason}")
    if one.muted_until is not None:
        below.append(f"muted until {instant(one.muted_until)}")
    return _row(one, rules.get(one.rule)), below


def _print_report(report: EvaluationReport, rules: Mapping[str, Rule]) -> None:
    if report.findings:
        _print([_found(one, rules) for one in report.findings])
    say(
        f"{counted(len(rules), 'rule')}, {counted(report.subjects, 'subject')}:"
        f" {report.firing or 'nothing'} {'fire' if report.firing > 1 else 'fires'}"
    )


def _found(one: AlertFinding, rules: Mapping[str, Rule]) -> Row:
    from etl.alerts.content import Content, Evidence
    from etl.alerts.message import compose

    alert = one.alert
    below = [_named(alert.rule, one.workflow_name, alert.workflow_id, alert.subject)]
    if alert.reason is not None:
        below.append(f"not known: {alert.reason}")
    for message, content in zip(one.messages, one.contents, strict=True):
        text = compose(
            key=message.key,
            kind=message.kind,
            rule=alert.rule,
            content=msgspec.convert(content, Content),
            evidence=Evidence(),
        ).text
        below += [f"would send to {plain(message.channel)}:", *text.splitlines()]
    cells = _row(alert, rules.get(alert.rule))
    return cells, below


def _named(rule: str, name: str | None, workflow_id: str, subject: str) -> str:
    part = subject.removeprefix(workflow_id)
    return f"{plain(rule, 60)}: {first_plain(name, workflow_id, length=60)}{plain(part, 200)}"


def _row(one: Listed | Alert, rule: Rule | None) -> list[str | Text]:
    return [
        state(one.state),
        "-" if rule is None else rule.metric,
        _number(rule, one.value),
        _number(rule, one.threshold),
        instant(one.since),
    ]


def _number(rule: Rule | None, value: float | None) -> str:
    """Return a value of the rule's metric: a duration with its unit, a share in percent."""
    if value is None:
        return "-"
    if rule is not None and rule.is_share:
        return f"{100 * value:.1f} %"
    if rule is not None and rule.is_duration:
        return span(value) if value >= 60 else f"{value:.3g} s"
    return f"{value:,.6g}"


def _print(rows: list[Row]) -> None:
    listing(
        console(),
        ("state", "metric", "value", "threshold", "since"),
        rows,
        numbers=("value", "threshold"),
    )
