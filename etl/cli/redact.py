"""`redact`: tries the redaction rules on a run, and applies them to stored data."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer
from msgspec import Raw

from etl.cli.context import AsJson, RunId, WorkflowIds, console, examples, invocation, print_json
from etl.cli.display import fields, listing, say
from etl.cli.ids import bare_id
from etl.errors import (
    ApiError,
    ConfigurationError,
    NotFound,
    RequestRefused,
    ResponseTooLarge,
    WorkflowRefused,
)
from etl.exit_status import ExitStatus
from etl.terminal import counted, first_plain, plain

if TYPE_CHECKING:
    from etl.admin.redaction import RedactionReport
    from etl.cli.lake_cleaning import LakeReceipt
    from etl.database import Database
    from etl.settings import Settings
    from etl.transform.redact import Policy, Redaction
    from etl.transform.scanner import Split
    from etl.transform.tolerant_json import Members


class Removal(msgspec.Struct, frozen=True):
    """One value that would be removed; never the value itself."""

    step_id: str | None
    """None: the value is in the run's own row."""
    node_id: str | None
    path: str
    """The normalised path."""
    action: str
    type: str
    """The JSON type."""
    size_bytes: int


class RuleUse(msgspec.Struct, frozen=True):
    """What one rule does."""

    node: str | None
    path: str
    action: str
    matches: int
    """Values that the rule matches, even if an outer match removes them or nothing does."""
    removed: int
    """Values that this rule removes."""


class RemainingCopy(msgspec.Struct, frozen=True):
    """A place that keeps a text that a rule removes elsewhere; never the text itself."""

    rule: int
    """The number, from 1, of the rule that removes the text elsewhere."""
    step_id: str | None
    """None: the text is in the run's own row."""
    node_id: str | None
    path: str


class RedactionPreview(msgspec.Struct, frozen=True):
    """What the workflow's rules do to one run."""

    run_id: str
    workflow_id: str
    policy: str | None = None
    """Version of the rules; None if the workflow has no rules."""
    removals: tuple[Removal, ...] = ()
    remaining_copies: tuple[RemainingCopy, ...] = ()
    """Where removed texts remain in what would be stored of the run."""
    searched_all: bool = True
    """False if the search for copies was cut off, because there was too much to search."""
    rules: tuple[RuleUse, ...] = ()
    not_redactable: int = 0
    """Unreadable elements, which would become dead letters without their bytes."""
    run_row: bool = False
    """Whether the API returned the run's own row, and it could be read."""
    steps_under_other_rules: int = 0
    """Stored steps of the workflow that were written under other rules or none."""


def register(app: typer.Typer) -> None:
    """Add the commands."""
    group = typer.Typer(
        name="redact",
        help="Try the redaction rules, and apply them to stored data.",
        no_args_is_help=True,
    )
    group.command("preview", epilog=examples("redact preview 5b69669f"))(preview)
    group.command("apply")(apply)
    app.add_typer(group)


def preview(
    context: typer.Context,
    run: RunId,
    workflow: Annotated[
        str | None,
        typer.Option(
            "--workflow",
            "-w",
            metavar="ID",
            help="The run's workflow, for a run that is not in the database. Both ids must be"
            " whole.",
            callback=bare_id,
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show what the configured rules would remove from a run.

    Reads the run from the API, and changes nothing.
    """
    import asyncio

    from etl import app, redacting
    from etl.cli import resolve
    from etl.ledger import redaction
    from etl.reports import runs

    settings = invocation(context).settings()
    rules = redacting.open_redaction(settings)
    with app.open_database(settings) as database:
        if workflow is None:
            otherwise = "name its workflow with --workflow"
            run = database.transaction(lambda c: resolve.run(c, run, otherwise=otherwise))
        known = workflow or database.transaction(lambda c: runs.workflow_of(c, run))
        if known is None:
            raise ConfigurationError(f"run {run[:80]!r} was removed a moment ago")
        policy = rules.policy(known)
        found = RedactionPreview(run, known)
        if policy is not None:
            version = policy.version
            others = database.transaction(lambda c: redaction.steps_under_others(c, known, version))
            found = _apply(policy, run, known, *asyncio.run(_read(settings, known, run)), others)
    if as_json:
        print_json(found)
    elif policy is None:
        say(f"workflow {plain(known)} has no redaction rules: everything is kept")
    else:
        _print(found)


def apply(context: typer.Context, workflow: WorkflowIds = None, as_json: AsJson = False) -> int:
    """Apply the configured rules to all stored data.

    What the rules remove cannot be restored. The command reads the database and never the API, so
    it also reaches steps and runs that the API no longer has, resolved dead letters, and names in
    the rollups. Start every service with the new rules first. The command works in small
    transactions, and can be stopped and repeated at any time. If the history is exported to a
    lake, the lake is brought up to date. The runs and payloads that only the lake has are redacted
    there, and its former files are deleted. Exit status 10: the lake could not be reached. Backups
    are not changed; PostgreSQL overwrites the old rows over time, VACUUM FULL at once.
    """
    import asyncio

    from etl import app, exporting, redacting
    from etl.cli import lake_cleaning, resolve

    settings = invocation(context).settings()
    if not settings.redaction.rules:
        raise ConfigurationError(
            "there are no redaction rules: add [[redaction.rules]] to the configuration"
        )
    rules = redacting.open_redaction(settings)
    in_lake: LakeReceipt | None = None
    runs_in_lake = 0
    with app.open_database(settings) as database:
        workflow = resolve.stored_workflows(database, workflow)
        for one in workflow or ():
            if rules.policy(one) is None:
                raise ConfigurationError(
                    f"no redaction rule applies to workflow {one[:80]!r}: nothing was changed"
                )
        done, interrupted = asyncio.run(_apply_stored(settings, database, rules, workflow))
        lake = exporting.exported_lake(settings, database) if done.complete else None
        if lake is not None:
            in_lake, runs_in_lake = lake_cleaning.redact(database, lake)
    if as_json:
        more = {} if in_lake is None else {"lake": in_lake, "lake_runs": runs_in_lake}
        print_json({**msgspec.structs.asdict(done), **more})
    else:
        say(
            f"{counted(done.runs, 'run')} and {counted(done.steps, 'step')} were under other rules"
            f" or none; {done.changed:,} of them changed"
        )
        changed = (
            ("rows of the run list", done.listings),
            ("dead letters", done.dead_letters),
            ("rollups", done.rollups),
            ("runs that only the lake has", runs_in_lake),
        )
        fields(console(), [(name, f"{number:,}") for name, number in changed], indent=2)
        lake_cleaning.say_cleaned(in_lake)
        if not done.complete:
            say("interrupted: repeat this to continue")
    if in_lake is not None and in_lake.removed is None:
        return ExitStatus.LAKE
    return 128 + interrupted if interrupted and not done.complete else 0


async def _apply_stored(
    settings: Settings, database: Database, rules: Redaction, workflows: list[str] | None
) -> tuple[RedactionReport, int | None]:
    from etl import maintenance
    from etl.signals import stop_on_signals

    with stop_on_signals() as stop:
        report = await maintenance.redact_stored(
            settings, database, rules, workflows=workflows, stopped=stop.is_set
        )
        return report, stop.number


async def _read(
    settings: Settings, workflow_id: str, run_id: str
) -> tuple[Split, tuple[Raw, Members] | None]:
    """Read the run's steps and its own row; None if the server returns no row that can be read."""
    from etl import app
    from etl.transform.runs import split_single_run
    from etl.transform.scanner import split

    async with app.open_client(settings) as client:
        steps = split((await client.steps(workflow_id, run_id)).body)
        if steps is None:
            raise ApiError(
                "the response for the run's steps is not a JSON array: it would become a dead"
                " letter without its bytes"
            )
        try:
            body = (await client.run(workflow_id, run_id)).body
        except (NotFound, RequestRefused, WorkflowRefused, ResponseTooLarge):
            return steps, None
    return steps, split_single_run(body, run_id)


def _apply(
    policy: Policy,
    run_id: str,
    workflow_id: str,
    steps: Split,
    row: tuple[Raw, Members] | None,
    others: int,
) -> RedactionPreview:
    from etl.transform.fields import text_of
    from etl.transform.redact import NotRedactable
    from etl.transform.remaining_copies import find_copies

    removals: list[Removal] = []
    matches: Counter[int] = Counter()
    removed: Counter[int] = Counter()
    not_redactable = 0
    elements = [(own, members, False) for own, members in steps.elements]
    if row is not None:
        elements.append((*row, True))
    for own, members, of_run in elements:
        try:
            if members is None:
                raise NotRedactable("not an object")
            found = policy.matches(own, members, of_run=of_run)
        except NotRedactable:
            not_redactable += 1
            continue
        matches.update(match.rule for match in found)
        removed.update(match.rule for match in found if match.applied)
        step_id, node_id = (
            (None, None)
            if of_run
            else (text_of(members.get("id")), text_of(members.get("node_id")))
        )
        removals += [
            Removal(
                step_id=step_id,
                node_id=node_id,
                path=match.path,
                action=policy.rules[match.rule].action,
                type=match.kind,
                size_bytes=match.size,
            )
            for match in found
            if match.applied
        ]
    objects = [(own, members, of_run) for own, members, of_run in elements if members is not None]
    copies = find_copies(policy, run_id, objects)
    remaining = [
        RemainingCopy(one.rule + 1, one.step_id, one.node_id, one.path) for one in copies.found
    ]
    uses = [
        RuleUse(
            node=rule.node,
            path=rule.path,
            action=rule.action,
            matches=matches[index],
            removed=removed[index],
        )
        for index, rule in enumerate(policy.rules)
    ]
    return RedactionPreview(
        run_id=run_id,
        workflow_id=workflow_id,
        policy=policy.version,
        removals=tuple(removals),
        remaining_copies=tuple(remaining),
        searched_all=copies.complete,
        rules=tuple(uses),
        not_redactable=not_redactable,
        run_row=row is not None,
        steps_under_other_rules=others,
    )


def _print(found: RedactionPreview) -> None:
    out = console()
    if found.removals:
        listing(
            out,
            ("action", "type", "bytes", "path"),
            [
                ((one.action, one.type, f"{one.size_bytes:,}", plain(one.path, 300)), _place(one))
                for one in found.removals
            ],
            numbers=("bytes",),
        )
    else:
        say("nothing of this run would be removed")
    if found.remaining_copies:
        say("\nremoved texts that REMAIN elsewhere in this run:")
        listing(
            out,
            ("rule", "path"),
            [
                ((str(one.rule), plain(one.path, 300)), _place(one))
                for one in found.remaining_copies
            ],
            numbers=("rule",),
        )
    others = f"{counted(found.steps_under_other_rules, 'stored step')} of the workflow"
    rewrite = (
        f"; `orchestra-etl redact apply --workflow {plain(found.workflow_id)}` applies these rules"
        " to them"
    )
    rows = [
        (f"rule {number}", f"{_matched(use)}: {use.action} {plain(use.path)}{_scope(use)}")
        for number, use in enumerate(found.rules, 1)
    ]
    if not found.searched_all:
        rows.append(("search", "cut off: removed texts may remain in more places"))
    if found.not_redactable:
        rows.append(
            (
                "unreadable",
                f"{counted(found.not_redactable, 'element')}; would become dead letters"
                " without their bytes",
            )
        )
    if not found.run_row:
        rows.append(
            (
                "run",
                "the API returns no row of the run that can be read: the rules were tried on its"
                " steps only",
            )
        )
    rows += [
        ("policy", found.policy or ""),
        (
            "stored",
            f"{others} under other rules or none{rewrite if found.steps_under_other_rules else ''}",
        ),
    ]
    say("")
    fields(out, rows)


def _place(one: Removal | RemainingCopy) -> str:
    if one.step_id is None and one.node_id is None:
        return "the run's own row"
    return (
        f"node {first_plain(one.node_id, '-', length=100)}, step {plain(one.step_id or '-', 100)}"
    )


def _matched(use: RuleUse) -> str:
    if use.matches == 0:
        return "NO MATCH"
    found = counted(use.matches, "match", "matches")
    return found if use.removed else f"{found}, NONE REMOVED"


def _scope(use: RuleUse) -> str:
    return "" if use.node is None else f" (node {plain(use.node, 100)})"
