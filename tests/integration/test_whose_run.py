"""Which workflow a run belongs to: the API decides, users only request, conflicts are reported."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import pytest

from etl import app, settings
from etl.service.metrics import Metrics
from tests.command_line import Command, Printed, command_line
from tests.support import configuration, environment, query

KEY = "simulated-key"
CONFLICTS = (
    "SELECT workflow_id, run_id, body, resolution FROM orchestra_etl.dead_letters"
    " WHERE reason = 'id_conflict' AND step_id IS NULL ORDER BY workflow_id, run_id"
)
OWNERS = "SELECT run_id, workflow_id FROM orchestra_etl.run_ledger ORDER BY run_id"
STORED = (
    "SELECT r.workflow_id, r.id AS run, s.workflow_id AS steps_of, s.id AS step"
    " FROM orchestra.runs AS r LEFT JOIN orchestra.steps AS s ON s.run_id = r.id"
    " ORDER BY r.id, s.id"
)


class Server:
    """An API whose run ids are unique only within their workflow, unless a test says otherwise."""

    def __init__(self) -> None:
        self.listed: dict[str, list[str]] = {}
        """The runs in each workflow's list."""
        self.known: dict[str, set[str]] = {}
        """The runs that a workflow returns although its list does not show them."""
        self.blind = False
        """Whether the API ignores the workflow in the path of a run."""
        self.empty = False
        """Whether the API returns an empty list instead of 404 for an unknown run."""
        self.workflows: list[str] | None = None
        """The list of `GET /workflows`; None makes the endpoint return 404."""
        self.requested: list[str] = []
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                server.requested.append(self.path)
                response = server.respond(self.path)
                body = json.dumps(response).encode()
                self.send_response(404 if response is None else 200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_address[1]}"

    def respond(self, path: str) -> Any:
        """Return the body for a path, or None for 404."""
        parts = urlsplit(path)
        match [unquote(part) for part in parts.path.strip("/").split("/")]:
            case ["workflows"]:
                return (
                    None
                    if self.workflows is None
                    else [{"workflow_id": one} for one in self.workflows]
                )
            case ["workflows", workflow, "runs"]:
                found = parse_qs(parts.query)
                offset, limit = (int(found[name][0]) for name in ("offset", "limit"))
                if workflow not in self.listed:
                    return None
                return [row(workflow, run) for run in self.listed[workflow]][
                    offset : offset + limit
                ]
            case ["workflows", workflow, "runs", run] if owner := self.owner(workflow, run):
                return [row(owner, run)]
            case ["workflows", workflow, "runs", run, "steps"] if owner := self.owner(
                workflow, run
            ):
                return [
                    {"id": f"{owner} {run}", "node_id": "n", "status": "completed",
                     "start_time": "2026-03-01T12:00:00Z",
                     "end_time": "2026-03-01T12:00:01Z"}
                ]  # fmt: skip
        return [] if self.empty and "/runs/" in parts.path else None

    def owner(self, workflow: str, run: str) -> str | None:
        """Return the workflow whose run the API returns, or None if there is none."""
        workflows = [workflow, *(sorted({*self.listed, *self.known}) if self.blind else ())]
        has = [
            one
            for one in workflows
            if run in self.listed.get(one, ()) or run in self.known.get(one, ())
        ]
        return has[0] if has else None


def row(workflow: str, run: str) -> dict[str, Any]:
    """Return a run's own row, which differs between workflows."""
    return {
        "id": run, "status": "completed", "start_time": "2026-03-01T12:00:00Z",
        "end_time": "2026-03-01T12:00:02Z", "inputs": {"of": workflow},
    }  # fmt: skip


@pytest.fixture
def server() -> Iterator[Server]:
    """Start a server with an empty list for `a` and `b`."""
    found = Server()
    found.listed = {"a": [], "b": []}
    threading.Thread(target=found.http.serve_forever, daemon=True).start()
    yield found
    found.http.shutdown()
    found.http.server_close()


class World:
    """The command on a database of its own, with the server."""

    def __init__(
        self,
        folder: Path,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
        url: str,
        server: Server,
    ) -> None:
        self.url = url
        variables = environment(
            url,
            server.url,
            ORCHESTRA_ETL_API__ATTEMPTS="1",
            ORCHESTRA_ETL_POLLING__RECONCILE="1ms",
            ORCHESTRA_REDACTION_KEY=64 * "k",
        )
        self._folder, self._patch, self._capsys = folder, monkeypatch, capsys
        self._variables = variables
        self.config = folder / "etl.toml"
        self.configure(configuration("a", "b"))

    def configure(self, toml: str) -> None:
        """Use this configuration from now on."""
        self.command: Command = command_line(
            self._folder, self._patch, self._capsys, toml, **self._variables
        )

    def sync(self) -> int:
        """Run one sync with every open run due, and return its exit status."""
        query(
            self.url, "UPDATE orchestra_etl.run_ledger SET due_at = now() WHERE due_at IS NOT NULL"
        )
        return self.command("sync").status

    def conflicts(self) -> list[tuple[str, str]]:
        """Return workflow and run of each open dead letter of a run."""
        return [
            (one["workflow_id"], one["run_id"])
            for one in query(self.url, CONFLICTS)
            if one["resolution"] is None
        ]

    def owners(self) -> dict[str, str]:
        """Return the workflow of each run in the ledger."""
        return {one["run_id"]: one["workflow_id"] for one in query(self.url, OWNERS)}

    def stored(self) -> list[tuple[str, str]]:
        """Return workflow and step of all that is stored."""
        return [(one["workflow_id"], one["step"]) for one in query(self.url, STORED)]

    def request(self, workflow: str, *runs: str) -> None:
        """Insert requests into the queue, as any user with that privilege can."""
        for run in runs:
            query(
                self.url,
                "INSERT INTO orchestra.run_requests (workflow_id, run_id) VALUES (%s, %s)",
                workflow,
                run,
            )


@pytest.fixture
def world(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    database_url: str,
    server: Server,
) -> World:
    """Provide the command with both workflows configured."""
    return World(tmp_path, monkeypatch, capsys, database_url, server)


def _coverage(world: World, workflow: str) -> int:
    (found,) = query(
        world.url,
        "SELECT conflicting_runs AS n FROM orchestra.coverage WHERE workflow_id = %s",
        workflow,
    )
    return int(found["n"])


# Ids that are unique only within their workflow.


def test_a_conflicting_run_is_a_dead_letter_and_reported(world: World, server: Server) -> None:
    """A run with the id of another workflow's run becomes a dead letter that is reported once.

    The sync exits with 6, and status, coverage, health and metrics count the run.
    """
    server.listed = {"a": ["1", "2"], "b": ["2", "3"]}
    world.configure(configuration("a"))
    assert world.sync() == 0
    world.configure(configuration("a", "b"))
    assert world.sync() == 6
    (letter,) = query(world.url, CONFLICTS)
    assert (
        letter["workflow_id"],
        letter["run_id"],
        json.loads(bytes(letter["body"]))["inputs"],
    ) == (
        "b",
        "2",
        {"of": "b"},
    )
    assert world.stored() == [("a", "a 1"), ("a", "a 2"), ("b", "b 3")]
    assert [world.sync(), world.sync()] == [0, 0], "the run is known by now, and there is no gap"
    assert query(world.url, "SELECT * FROM orchestra_etl.gaps") == []
    assert (_coverage(world, "a"), _coverage(world, "b")) == (0, 1)
    assert query(world.url, "SELECT conflicting_runs AS n FROM orchestra.pipeline_health") == [
        {"n": 1}
    ]
    status = {one["id"]: one for one in world.command("status", "--json").json["workflows"]}
    assert [status[one]["verdict"] for one in "ab"] == ["ok", "warning"]
    assert status["b"]["coverage"]["conflicting_runs"] == 1
    assert "except 1 conflicting run" in " ".join(world.command("status").out.split())
    metrics = Metrics()
    loaded = settings.load(world.config)
    with app.open_database(loaded) as database:
        metrics.set_status(app.read_status(loaded, database))
    assert b'orchestra_etl_conflicting_runs{workflow="b"} 1.0' in metrics.exposition(ready=True)
    retried = world.command("dead-letters", "retry", "--all")
    assert "0 runs will be re-read" in retried.out
    assert "1 run will not: other workflows have" in retried.out
    # Discarding the dead letter does not make the data complete.
    assert world.command("dead-letters", "discard", "--all").status == 0
    assert (world.sync(), _coverage(world, "b")) == (0, 1)


def test_a_list_of_conflicting_runs_is_not_a_gap(world: World, server: Server) -> None:
    """Conflicting runs count as known: a walk ends at them, and they leave no gap."""
    server.listed["a"] = [str(number) for number in range(80)]
    world.configure(configuration("a"))
    world.sync()
    world.configure(configuration("b"))
    server.listed["b"] = ["own 1", "own 2", *server.listed["a"]]
    assert world.sync() == 6
    server.listed["b"] = ["own 3", *server.listed["a"]]
    assert world.sync() == 0
    assert query(world.url, "SELECT * FROM orchestra_etl.gaps") == []
    assert (_coverage(world, "b"), len(world.conflicts())) == (80, 80)
    assert [run for run, owner in world.owners().items() if owner == "b"] == [
        "own 1",
        "own 2",
        "own 3",
    ]
    world.command("backfill")
    assert len(query(world.url, CONFLICTS)) == 80


def test_a_conflicting_run_is_redacted(world: World, server: Server) -> None:
    """The dead letter of a conflicting run holds its row as redacted."""
    server.listed = {"a": ["1"], "b": ["1"]}
    rules = '[[redaction.rules]]\npath = "$.inputs"\naction = "drop"'
    world.configure(configuration("a", more=rules))
    world.sync()
    world.configure(configuration("a", "b", more=rules))
    assert world.sync() == 6
    (letter,) = query(world.url, CONFLICTS)
    assert json.loads(bytes(letter["body"])) == {
        k: v for k, v in row("b", "1").items() if k != "inputs"
    }


def test_a_conflict_is_resolved_once_the_owner_is_gone(world: World, server: Server) -> None:
    """A conflicting run is loaded once the other workflow's run is gone from the ledger.

    Only then is its dead letter resolved.
    """
    server.listed = {"b": ["1"]}
    server.known = {"a": {"1"}}
    world.configure(configuration("a", discover=False, runs=("1",)))
    assert world.sync() == 0, "read under a, although no list shows it"
    world.configure(configuration("b"))
    assert world.sync() == 6
    assert world.stored() == [("a", "a 1")]
    assert world.sync() == 0
    assert world.conflicts() == [("b", "1")]
    query(world.url, "DELETE FROM orchestra.runs; DELETE FROM orchestra_etl.run_ledger")
    assert world.sync() == 0
    assert world.stored() == [("b", "b 1")]
    assert [one["resolution"] for one in query(world.url, CONFLICTS)] == ["loaded"]
    assert _coverage(world, "b") == 0


def test_an_erased_run_keeps_its_id(world: World, server: Server) -> None:
    """A tombstone keeps the id; the other workflow's run becomes a dead letter without bytes."""
    server.listed = {"a": ["1"], "b": ["1"]}
    world.configure(configuration("a"))
    world.sync()
    assert world.command("erase", "--run", "1", "--yes").status == 0
    world.configure(configuration("a", "b"))
    assert world.sync() == 6
    (letter,) = query(world.url, CONFLICTS)
    assert (letter["workflow_id"], bytes(letter["body"])) == ("b", b"")
    assert world.stored() == []
    assert world.owners() == {"1": "a"}


# Requests of users.


@pytest.mark.parametrize("claim", ["queue", "track", "configuration"])
def test_a_request_does_not_move_a_run_that_the_api_has_shown(
    world: World, server: Server, claim: str
) -> None:
    """A run that the API has shown stays with its workflow if a user names it under another.

    The API listed the run, or returned it by id. The request is reported as a conflict.
    """
    server.listed = {"a": ["listed"], "b": []}
    server.known = {"a": {"read"}}
    world.request("a", "read")
    assert world.sync() == 0
    before = world.stored()
    assert before == [("a", "a listed"), ("a", "a read")]
    if claim == "queue":
        world.request("b", "listed", "read")
        assert world.sync() == 6
    elif claim == "track":
        printed = world.command("track", "b", "listed", "read")
        assert (printed.status, printed.out.count("belongs to workflow a and stays there")) == (
            6,
            2,
        )
        assert world.sync() == 0
    else:
        more = configuration("a").replace("runs = []", "")
        world.configure(configuration("b", runs=("listed", "read"), more=more))
        assert [world.sync(), world.sync()] == [6, 0]
    assert world.stored() == before
    assert set(world.owners().values()) == {"a"}
    assert world.conflicts() == [("b", "listed"), ("b", "read")]
    assert not any("/b/runs/" in path for path in server.requested), (
        "no request named the other workflow"
    )


def test_a_request_owns_a_run_once_the_api_has_shown_it(world: World, server: Server) -> None:
    """A request owns a run only once the API has shown the run there.

    Before that, a later request or a list takes the run over.
    """
    server.known = {"b": {"1"}}
    world.request("a", "1", "2")
    assert world.sync() == 6, "a returns 404"
    assert world.owners() == {"1": "a", "2": "a"}
    server.listed["b"] = ["2"]
    world.request("b", "1")
    assert world.sync() == 0
    assert world.stored() == [("b", "b 1"), ("b", "b 2")]
    world.request("a", "1", "2")
    assert world.sync() == 6
    assert world.stored() == [("b", "b 1"), ("b", "b 2")]


def test_a_run_that_two_workflows_name_is_read_under_the_one_that_has_it(
    world: World, server: Server
) -> None:
    """A run named under two workflows is read under the one that returns it.

    After a 404 under one, the other is tried.
    """
    server.known = {"b": {"1"}}
    world.configure(configuration("a", "b", discover=False, runs=("1",)))
    assert world.sync() == 6, "a returns 404"
    assert world.sync() in (0, 6)
    assert world.stored() == [("b", "b 1")]
    world.sync()
    assert world.conflicts() == [("a", "1")]
    assert world.owners() == {"1": "b"}


def test_a_server_that_ignores_the_workflow(world: World, server: Server) -> None:
    """If the API ignores the workflow in a path, the list decides.

    That also corrects a run that was read under a wrong workflow.
    """
    server.listed["b"] = ["1"]
    server.blind = True
    world.configure(configuration("a"))
    world.request("a", "1")
    assert world.sync() == 0
    assert [one for one, _ in world.stored()] == ["a"]
    world.configure(configuration("a", "b"))
    assert world.sync() == 0
    assert world.stored() == [("b", "b 1")]
    assert world.conflicts() == []


def test_an_empty_response_proves_nothing(world: World, server: Server) -> None:
    """An empty response for a run proves nothing: a list can move the run, `untrack` removes it."""
    server.empty = True
    world.request("a", "1", "2")
    assert world.sync() == 0
    server.listed["b"] = ["1"]
    assert world.sync() == 0
    assert (world.owners(), world.conflicts()) == ({"1": "b", "2": "a"}, [])
    assert [one for one in world.stored() if one[1]] == [("b", "b 1")]
    assert "1 run," in world.command("untrack", "a").out
    assert world.stored() == [("b", "b 1")]


def test_unusable_requests_are_dead_letters(world: World, server: Server) -> None:
    """Unusable requests leave few dead letters, and valid requests are read.

    Ids have control characters, dots or blanks, and there are more requests than one transaction
    takes.
    """
    server.known = {"a": {"good"}}
    bad = [
        ".",
        "..",
        " x",
        "x ",
        "\x1b[31mred",
        "line\nbreak",
        "\u202eleft",
        *(f"tab\t{n}" for n in range(200)),
    ]
    world.request("a", *bad[:7])
    query(
        world.url,
        "INSERT INTO orchestra.run_requests (workflow_id, run_id) SELECT 'a', id"
        " FROM unnest(%s::text[]) AS id",
        bad,
    )
    query(
        world.url,
        "INSERT INTO orchestra.run_requests (workflow_id, run_id) SELECT E'\\x07', 'x' || n"
        " FROM generate_series(1, 12000) AS n",
    )
    world.request("a", "good")
    assert world.sync() == 6
    assert world.stored() == [("a", "a good")]
    assert query(world.url, "SELECT * FROM orchestra.run_requests") == []
    assert world.owners() == {"good": "a"}
    letters = query(
        world.url, "SELECT reason, octet_length(body) AS size FROM orchestra_etl.dead_letters"
    )
    assert 0 < len(letters) <= 40
    assert {one["reason"] for one in letters} == {"unusable_id"}


# Typing errors.


def test_track_checks_an_unknown_workflow(world: World, server: Server) -> None:
    """`track` refuses a workflow that the API does not know.

    It accepts one that is configured, stored, listed by the API, or returns the run.
    """
    server.known = {"hidden": {"1"}}

    def tracked(workflow: str) -> Printed:
        return world.command("track", workflow, "1", "2")

    wrong = tracked("aa")
    assert (wrong.status, "workflow aa is not configured" in wrong.err) == (2, True)
    assert world.owners() == {}
    assert query(world.url, "SELECT * FROM orchestra.workflows WHERE id = 'aa'") == []
    server.empty = True
    assert tracked("aa").status == 2, "an empty response for any id proves nothing"
    server.empty = False
    server.requested.clear()
    assert tracked("a").status == 0
    assert server.requested == [], "a configured workflow needs no request"
    assert tracked("hidden").status == 0
    server.workflows = ["new"]
    assert tracked("new").status == 0
    assert world.owners() == {"1": "new", "2": "new"}, (
        "the API has shown no run so far, so the last request decides"
    )


def test_untrack_removes_runs_that_were_only_requested(world: World, server: Server) -> None:
    """`untrack` removes runs that were only requested, with their dead letters and requests.

    Runs that the API has shown stay.
    """
    server.listed["a"] = ["1"]
    world.sync()
    query(world.url, "INSERT INTO orchestra.workflows (id) VALUES ('aa')")
    world.request("aa", "1", "x", "y")
    world.request("a", "typo", "typo 2")
    assert world.sync() == 6
    world.request("aa", "z")
    assert world.conflicts() == [("aa", "1")]

    nothing = world.command("untrack", "a", "1")
    assert (nothing.status, "has shown the runs" in nothing.err) == (2, True)
    assert world.command("untrack", "b").status == 2
    one = world.command("untrack", "a", "typo")
    assert (one.status, "1 run, 0 requests" in one.out) == (0, True)
    assert world.owners() == {"1": "a", "typo 2": "a", "x": "aa", "y": "aa"}
    printed = world.command("untrack", "aa", "--json").json
    assert printed == {
        "workflow_id": "aa", "runs": 2, "requests": 1, "dead_letters": 1,
        "workflow_forgotten": True, "in_configuration": [],
    }  # fmt: skip
    assert world.owners() == {"1": "a", "typo 2": "a"}
    assert query(world.url, "SELECT * FROM orchestra.coverage WHERE workflow_id = 'aa'") == []
    assert world.stored() == [("a", "a 1")]
    assert query(world.url, "SELECT * FROM orchestra_etl.dead_letters") == []
    world.configure(configuration("a", runs=("typo 2",)))
    assert "names these runs" in world.command("untrack", "a", "typo 2").out


@pytest.mark.parametrize(
    ("since", "until"),
    [
        ("2026-03-02", "2026-03-01"), ("2026-03-01", "2026-03-01"),
        ("2026-03-01T00:00:01", "2026-03-01"),
        ("2026-03-01T00:00:00Z", "2026-03-01"), ("2026-03-01T02:00+05:00", "2026-02-28T20:00Z"),
    ],
)  # fmt: skip
def test_a_backfill_of_an_empty_range_is_refused(
    world: World, server: Server, since: str, until: str
) -> None:
    """A backfill whose range is empty is a usage error without any request."""
    printed = world.command("backfill", "--since", since, "--until", until)
    assert (printed.status, "--since must be earlier than --until" in printed.err) == (2, True)
    assert server.requested == []
    assert world.command("backfill", "--since", "2026-03-01", "--until", "2026-03-02").status == 0
    assert (
        world.command("backfill", "--since", "20260301", "--until", "2026-03-01T01:00+00:30").status
        == 0
    )


@pytest.mark.parametrize(
    "time",
    ["yesterday", "5", "1772323200", "2026-13-01", "0001-01-01T00:00+14:00", "9999-01-01"],
)
def test_a_backfill_from_an_invalid_time_is_refused(
    world: World, server: Server, time: str
) -> None:
    """A word, number or future day as `--since` is refused in one line without any request."""
    printed = world.command("backfill", "--since", time)
    assert (
        printed.status,
        printed.err.startswith("orchestra-etl: --since"),
        printed.err.count("\n"),
    ) == (2, True, 1)
    assert server.requested == []
