"""`alerts`: the alerts on runs and their channels."""

from __future__ import annotations

from typing import Annotated

import typer

from etl.cli.context import AsJson, examples, invocation, print_json
from etl.cli.display import say
from etl.errors import ConfigurationError
from etl.exit_status import ExitStatus
from etl.terminal import plain


def register(app: typer.Typer) -> None:
    """Add the commands."""
    group = typer.Typer(name="alerts", help="Alerts on the runs.", no_args_is_help=True)
    group.command("test", epilog=examples("alerts test ops"))(send_test)
    app.add_typer(group)


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

    from etl import app
    from etl.alerts.channels import NotDelivered
    from etl.alerts.message import sample_message

    settings = invocation(context).settings()
    channels = app.open_channels(settings)
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
