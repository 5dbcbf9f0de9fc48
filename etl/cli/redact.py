"""`redact`: what the redaction rules would remove."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

from etl.cli.context import AsJson, console, invocation, print_json
from etl.cli.display import counted, fields, listing
from etl.cli.ids import no_json
from etl.errors import ApiError, ConfigurationError, NotFound, RequestRefused
from etl.terminal import plain

if TYPE_CHECKING:
    from etl.settings import Settings
    from etl.transform.redact import Policy
    from etl.transform.scanner import Split


class Removal(msgspec.Struct, frozen=True):
    """One value that would go. Never the value itself."""

    step_id: str | None
    """None: it stands in the run's own row."""
    node_id: str | None
    path: str
    """The normalised path."""
    action: str
    type: str
    """The JSON type."""
    size_bytes: int


class RuleUse(msgspec.Struct, frozen=True):
    """What came of one rule."""

    node: str | None
    path: str
    action: str
    matches: int
    """Values that it finds, also those that go with an outer match or are never removed."""


class Preview(msgspec.Struct, frozen=True):
    """What the workflow's rules do to one run."""

    run_id: str
    workflow_id: str
    policy: str | None = None
    """Version of the rules; None where the workflow has none."""
    removals: tuple[Removal, ...] = ()
    rules: tuple[RuleUse, ...] = ()
    not_redactable: int = 0
    """Elements that cannot be read, and would be set aside without their bytes."""
    run_row: bool = False
    """Whether the API gave the run's own row."""
    steps_under_other_rules: int = 0
    """Stored steps of the workflow that were written under other rules, or under none."""


def register(app: typer.Typer) -> None:
    """Add the commands."""
    group = typer.Typer(name="redact", help="What the redaction rules would remove.", no_args_is_help=True)
    group.command("preview")(preview)
    app.add_typer(group)


def preview(
    context: typer.Context,
    run: Annotated[str, typer.Argument(help="The run's id.", callback=no_json)],
    workflow: Annotated[
        str | None,
        typer.Option("--workflow", "-w", help="Its workflow, where the run is not known here.", callback=no_json),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Read a run from the API and show what the configured rules would remove from it; changes nothing."""
    from etl import app
    from etl.ledger import redaction, runs

    settings = invocation(context).settings()
    rules = app.open_redaction(settings)
    with app.open_database(settings) as database:
        known = workflow or database.transaction(lambda c: runs.workflow_of(c, run))
        if known is None:
            raise ConfigurationError(f"run {run[:80]!r} is not known here: name its workflow with --workflow")
        policy = rules.policy(known)
        found = Preview(run, known)
        if policy is not None:
            version = policy.version
            others = database.transaction(lambda c: redaction.steps_under_others(c, known, version))
            found = _apply(policy, run, known, *asyncio.run(_read(settings, known, run)), others)
    if as_json:
        print_json(found)
    elif policy is None:
        typer.echo(f"workflow {plain(known)} has no redaction rules: everything is kept")
    else:
        _print(found)


async def _read(settings: Settings, workflow_id: str, run_id: str) -> tuple[Split, Split | None]:
    """The run's steps, and its own row where the server offers it."""
    from etl import app
    from etl.transform.scanner import split

    async with app.open_client(settings) as client:
        steps = split((await client.steps(workflow_id, run_id)).body)
        if steps is None:
            raise ApiError("the answer for the run's steps is no JSON array: it would be set aside without its bytes")
        try:
            body = (await client.run(workflow_id, run_id)).body
        except (NotFound, RequestRefused):
            return steps, None
    return steps, split(body if body.lstrip().startswith(b"[") else b"[" + body + b"]")


def _apply(policy: Policy, run_id: str, workflow_id: str, steps: Split, rows: Split | None, others: int) -> Preview:
    from etl.transform.fields import text_of
    from etl.transform.redact import NotRedactable

    removals: list[Removal] = []
    matches: Counter[int] = Counter()
    not_redactable = 0
    elements = [(*element, False) for element in steps.elements]
    elements += [(*element, True) for element in (rows.elements if rows is not None else ())]
    for own, members, of_run in elements:
        try:
            if members is None:
                raise NotRedactable("no object")
            found = policy.matches(own, members, of_run=of_run)
        except NotRedactable:
            not_redactable += 1
            continue
        matches.update(match.rule for match in found)
        step_id, node_id = (None, None) if of_run else (text_of(members.get("id")), text_of(members.get("node_id")))
        removals += [
            Removal(step_id, node_id, match.path, policy.rules[match.rule].action, match.kind, match.size)
            for match in found
            if match.applied
        ]
    uses = [RuleUse(rule.node, rule.path, rule.action, matches[place]) for place, rule in enumerate(policy.rules)]
    return Preview(
        run_id, workflow_id, policy.version, tuple(removals), tuple(uses), not_redactable, rows is not None, others
    )


def _print(found: Preview) -> None:
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
        typer.echo("nothing of this run would go")
    others = f"{counted(found.steps_under_other_rules, 'stored step')} of the workflow"
    reread = f"; `orchestra-etl backfill --workflow {plain(found.workflow_id)} --reread` rewrites them"
    rows = [
        (f"rule {number}", f"{_matched(use)}: {use.action} {plain(use.path)}{_scope(use)}")
        for number, use in enumerate(found.rules, 1)
    ]
    if found.not_redactable:
        rows.append(("unreadable", f"{counted(found.not_redactable, 'element')}; set aside without their bytes"))
    if not found.run_row:
        rows.append(("run", "the API does not give the run's own row: the rules were tried on its steps alone"))
    rows += [
        ("policy", found.policy or ""),
        ("stored", f"{others} under other rules or none{reread if found.steps_under_other_rules else ''}"),
    ]
    typer.echo()
    fields(out, rows)


def _place(one: Removal) -> str:
    if one.step_id is None and one.node_id is None:
        return "the run's own row"
    return f"node {plain(one.node_id or '-', 100)}, step {plain(one.step_id or '-', 100)}"


def _matched(use: RuleUse) -> str:
    return "NO MATCH" if use.matches == 0 else "1 match" if use.matches == 1 else f"{use.matches:,} matches"


def _scope(use: RuleUse) -> str:
    return "" if use.node is None else f" (node {plain(use.node, 100)})"
