"""The simulated history: its runs, their life, and the shape of their payloads."""

from __future__ import annotations

import json
import subprocess
import sys
import tracemalloc
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any

import msgspec
import pytest

from etl.simulator.history import RUNS_PER_VERSION, Burst, History
from etl.simulator.providers import MODELS

EPOCH = datetime(2026, 3, 1, 12, tzinfo=UTC)
SAMPLE = Path(__file__).parent.parent / "samples" / "steps.json"

FINAL = {"completed", "failed", "cancelled", "skipped"}
ORDER = {"pending": 0, "running": 1, "completed": 2, "failed": 2, "cancelled": 2, "skipped": 2}


def frozen(seed: int = 1, **options: Any) -> History:
    """Make a history whose clock stands at EPOCH."""
    return History(seed, now=lambda: EPOCH, **options)


def finished(**options: Any) -> History:
    """Make a history in which nothing moves."""
    return frozen(live=0, arrivals_per_minute=0, **options)


def time_of(text: str) -> datetime:
    """Read a time as the API writes it."""
    return datetime.fromisoformat(text)


def all_steps(history: History, limit: int) -> list[dict[str, Any]]:
    """Return the steps of the newest runs of every workflow."""
    return [
        step
        for workflow_id in history.workflow_ids
        for run_id in history.run_ids(workflow_id, limit)
        for step in history.steps(run_id)
    ]


def test_equal_arguments_give_equal_histories() -> None:
    """A seed fixes every row and step, and another seed gives other ids."""
    one, same, other = frozen(7), frozen(7), frozen(8)
    assert one.workflows() == same.workflows()
    for workflow_id in one.workflow_ids:
        assert one.runs(workflow_id, 20) == same.runs(workflow_id, 20)
    assert all_steps(one, 20) == all_steps(same, 20)
    assert not set(one.workflow_ids) & set(other.workflow_ids)
    assert not {step["id"] for step in all_steps(one, 20)} & {
        step["id"] for step in all_steps(other, 20)
    }


def test_another_process_computes_the_same() -> None:
    """The history does not depend on the process, its hash seed, or earlier computations."""
    program = (
        "import sys, msgspec; from datetime import datetime; from etl.simulator.history "
        "import History\n"
        f"h = History(7, now=lambda: datetime.fromisoformat({EPOCH.isoformat()!r}))\n"
        "r = h.run_ids(h.workflow_ids[2])[150]\n"
        "sys.stdout.buffer.write(msgspec.json.encode([h.run(r), h.steps(r)]))"
    )
    output = subprocess.run(
        [sys.executable, "-c", program],
        check=True,
        capture_output=True,
        env={"PYTHONHASHSEED": "5"},
    )
    history = frozen(7)
    all_steps(history, 3)
    run_id = history.run_ids(history.workflow_ids[2])[150]
    assert output.stdout == msgspec.json.encode([history.run(run_id), history.steps(run_id)])


def test_the_list_is_newest_first_and_its_pages_are_its_slices() -> None:
    """The list is in order of start times without duplicates, and pages are slices of it."""
    history = frozen(runs_per_workflow=120)
    workflow_id = history.workflow_ids[1]
    rows = history.runs(workflow_id)
    starts = [time_of(row["start_time"]) for row in rows]
    assert starts == sorted(starts, reverse=True)
    assert len({row["id"] for row in rows}) == len(rows) == 120
    assert history.runs(workflow_id, 10, 10) == rows[10:20]
    assert history.run_ids(workflow_id, 50, 100) == [row["id"] for row in rows[100:]]
    assert history.run_ids(workflow_id, 10, 120) == history.run_ids(workflow_id, 10, 9999) == []
    assert all(
        history.run(row["id"]) == row and history.workflow_of(row["id"]) == workflow_id
        for row in rows
    )


def test_a_long_history_takes_no_memory_and_no_time() -> None:
    """The oldest of a million runs is computed as fast as the newest, without stored state."""
    history = finished(runs_per_workflow=1_000_000)
    history.steps(history.run_ids(history.workflow_ids[0], 1)[0])
    tracemalloc.start()
    try:
        for offset in range(0, 1_000_000, 50_000):
            [run_id] = history.run_ids(history.workflow_ids[0], 1, offset)
            history.steps(run_id)
        assert tracemalloc.get_traced_memory()[1] < 500_000
    finally:
        tracemalloc.stop()
    assert history.run_ids(history.workflow_ids[0], 5, 999_998)[1:] != []


@pytest.mark.parametrize("live", [0, 20])
@pytest.mark.parametrize("options", [{}, {"steps_per_run": 40}, {"pace": 5.0}])
def test_old_runs_are_finished_and_the_newest_are_not(live: int, options: dict[str, Any]) -> None:
    """At any pace and length of runs all but the `live` newest have ended; some of those run on."""
    close = timedelta(seconds=1)
    history = frozen(
        runs_per_workflow=60,
        live=live,
        spacing=close,
        failure_rate=0.08 if live else 1.0,
        **options,
    )
    for workflow_id in history.workflow_ids:
        statuses = [row["status"] for row in history.runs(workflow_id)]
        assert set(statuses[live:]) <= FINAL
        assert live == 0 or statuses[0] in {"pending", "running"}
        assert live == 0 or set(statuses[:live]) & FINAL


def test_runs_keep_arriving_at_the_configured_rate() -> None:
    """Ten minutes later the list has ten minutes' worth of new runs before the old list."""
    history = frozen(arrivals_per_minute=6)
    workflow_id = history.workflow_ids[0]
    before = history.run_ids(workflow_id)
    history.advance(timedelta(minutes=10))
    after = history.run_ids(workflow_id)
    assert after[60:] in (before, before[1:])
    assert abs(len(after) - len(before) - 60) <= 1
    quiet = finished()
    quiet.advance(timedelta(days=1))
    assert len(quiet.run_ids(quiet.workflow_ids[0])) == 300


def test_a_burst_fails_only_in_its_workflow_and_time() -> None:
    """In a burst all runs of one workflow that start within it fail, and no other run changes."""
    burst = Burst(1, timedelta(hours=-2), timedelta(minutes=1), failure_rate=1.0)
    usual, found = (frozen(arrivals_per_minute=6, burst=one) for one in (None, burst))
    for history in (usual, found):
        history.advance(timedelta(minutes=10))
    in_burst = 0
    for index, workflow_id in enumerate(found.workflow_ids):
        for before, row in zip(usual.runs(workflow_id), found.runs(workflow_id), strict=True):
            since = time_of(row["start_time"]) - EPOCH
            if index == burst.workflow and burst.begin <= since < burst.end:
                assert row["status"] in {"failed", "cancelled"}
                in_burst += 1
            else:
                assert row == before
    assert in_burst > 10


def test_a_run_that_has_not_started_is_unknown() -> None:
    """An id exists only from its run's start on, and an invented one never does."""
    history = frozen()
    history.advance(timedelta(minutes=5))
    newest = history.run_ids(history.workflow_ids[0], 1)[0]
    history.freeze(EPOCH)
    known = history.run_ids(history.workflow_ids[0], 1)[0]
    similar = (
        known.upper(),
        known + "0",
        known[:-1],
        known[:-1] + ("0" if known[-1] != "0" else "1"),
    )
    for unknown in (newest, "", "x", "5b69669f-975a-49af-a33a-61ff9ae5a20f", "-" * 36, *similar):
        with pytest.raises(KeyError):
            history.steps(unknown)
    history.advance(timedelta(minutes=5))
    assert history.steps(newest) is not None
    with pytest.raises(KeyError):
        history.runs("nobody")


def test_a_live_run_only_moves_forward() -> None:
    """Statuses never step back, no step vanishes, and a final run changes only by late outputs."""
    history = frozen(failure_rate=0.3)
    watched = [
        run_id
        for workflow_id in history.workflow_ids
        for run_id in history.add_runs(workflow_id, 8)
    ]
    seen: dict[str, dict[str, Any]] = {}
    rows: dict[str, dict[str, Any]] = {}
    late = late_after_the_end = 0
    kinds: set[str] = set()
    for _ in range(150):
        for run_id in watched:
            row, steps = history.run(run_id), history.steps(run_id)
            earlier_row = rows.get(run_id, row)
            assert ORDER[row["status"]] >= ORDER[earlier_row["status"]]
            if earlier_row["status"] in FINAL:
                assert {**row, "all_outputs": None} == {**earlier_row, "all_outputs": None}
            assert (row["end_time"] is not None) == (row["status"] in FINAL)
            assert row["all_outputs"] == {
                s["node_id"]: s["outputs"] for s in steps if s["outputs"] is not None
            }
            assert {step["id"] for step in steps} >= {
                i for i, step in seen.items() if step["run"] == run_id
            }
            for step in steps:
                earlier = seen.get(step["id"])
                kinds.add(step["status"])
                if earlier is not None:
                    assert ORDER[step["status"]] >= ORDER[earlier["status"]]
                    if earlier["status"] in FINAL:
                        late += step["outputs"] != earlier["outputs"]
                        late_after_the_end += (
                            step["outputs"] != earlier["outputs"] and earlier_row["status"] in FINAL
                        )
                        assert earlier["outputs"] in (None, step["outputs"])
                        assert {**step, "outputs": 0, "run": run_id} == {**earlier, "outputs": 0}
                if step["status"] in FINAL - {"skipped"}:
                    assert step["end_time"] > step["start_time"]
                else:
                    assert not step["end_time"]
                assert (step["start_time"] is None) == (step["status"] in {"pending", "skipped"})
                seen[step["id"]] = {**step, "run": run_id}
            rows[run_id] = row
        history.advance(timedelta(seconds=0.7))
    assert {row["status"] for row in rows.values()} <= FINAL
    assert kinds == {"pending", "running", "completed", "failed", "cancelled", "skipped"}
    assert late > late_after_the_end > 0


def test_a_running_step_has_a_null_or_empty_end_time() -> None:
    """The end time of a running step is null in some runs and an empty string in others."""
    history = frozen(workflows=12, live=20)
    running = set()
    for _ in range(10):
        running |= {
            repr(step["end_time"]) for step in all_steps(history, 12) if step["status"] == "running"
        }
        history.advance(timedelta(seconds=1))
    assert running == {"None", "''"}


def test_a_run_agrees_with_its_steps() -> None:
    """A run's row and its steps agree on times, truncated seconds, outputs and errors."""
    history = finished(failure_rate=0.3)
    for workflow_id in history.workflow_ids:
        for row in history.runs(workflow_id, 100):
            steps = history.steps(row["id"])
            assert row["end_time"] == steps[-1]["end_time"]
            assert row["elapsed_time"] == int(
                (time_of(row["end_time"]) - time_of(row["start_time"])).total_seconds()
            )
            assert row["error"] == steps[-1]["error"]
            assert row["status"] == steps[-1]["status"]
            assert row["all_outputs"] == {
                s["node_id"]: s["outputs"] for s in steps if s["outputs"] is not None
            }
            for step in steps:
                if step["status"] == "skipped":
                    continue
                assert step["inputs"]["run_id"] == row["id"]
                length = time_of(step["end_time"]) - time_of(step["start_time"])
                assert step["elapsed_time"] == int(length.total_seconds())
                assert len(step["start_time"]) == len("2025-03-13T02:41:15.144470Z")


def shape(value: Any) -> Any:
    """Return the members of a value, recursively."""
    if isinstance(value, dict):
        return {
            name: shape(member)
            for name, member in value.items()
            if name not in {"input_data", "data"}
        }
    if isinstance(value, list):
        return [shape(member) for member in value[:1]]
    return None


def test_payloads_have_the_shape_of_the_real_ones() -> None:
    """The steps of a model and a Slack integration have exactly the real response's members."""
    model, slack = json.loads(SAMPLE.read_bytes())
    steps = all_steps(finished(failure_rate=0), 50)
    models = [
        step
        for step in steps
        if step["node_id"] == "model" and step["inputs"]["model"].startswith("virtuoso")
        if step["outputs"]["choices"][0]["finish_reason"] == "stop"
    ]
    slacks = [
        step
        for step in steps
        if step["node_id"] == "slack_integration" and step["status"] == "completed"
    ]
    assert models
    assert slacks
    assert all(shape(step) == shape(model) for step in models)
    assert all(shape(step) == shape(slack) for step in slacks)
    assert all(
        step["outputs"]["result"]["data"].keys() == slack["outputs"]["result"]["data"].keys()
        for step in slacks
    )
    assert 1500 < sum(len(msgspec.json.encode(step)) for step in models) / len(models) < 2500


def test_every_node_type_outcome_and_finish_reason_occurs() -> None:
    """A few hundred runs contain every node type, outcome and finish reason, with right totals."""
    history = finished(failure_rate=0.2)
    steps = all_steps(history, 300)
    types = {
        node["id"]: node["type"] for row in history.workflows() for node in row["graph"]["nodes"]
    }
    assert {types[step["node_id"]] for step in steps} == {
        "model", "code", "integration", "knowledge_retrieval", "conditional", "end",
    }  # fmt: skip
    assert {step["status"] for step in steps} == FINAL
    completions = [
        step["outputs"] for step in steps if step["outputs"] and "choices" in step["outputs"]
    ]
    assert {answer["choices"][0]["finish_reason"] for answer in completions} == {
        "stop",
        "length",
        "tool_calls",
    }
    assert len({answer["model"] for answer in completions}) >= 5
    for usage in (answer["usage"] for answer in completions):
        assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
    assert not {types[s["node_id"]] for s in steps if s["status"] in {"failed", "cancelled"}} & {
        "conditional",
        "end",
    }
    errors = [step["error"] for step in steps if step["status"] == "failed"]
    assert {type(error) for error in errors} == {str, dict}
    assert len({str(error) for error in errors}) > len(errors) / 2
    results = [
        s["outputs"]["result"]
        for s in steps
        if s["outputs"] and "successful" in s["outputs"].get("result", {})
    ]
    soft = Counter((result["error"] is not None, result["successful"]) for result in results)
    assert soft[(False, True)] > soft[(True, False)] > 0
    assert soft[(True, True)] > 0
    assert soft[(False, False)] > 0
    assert len({step["id"] for step in steps}) == len(steps)
    assert all(
        any(letter > "f" for letter in step["id"]) and len(step["id"]) == 36 for step in steps
    )


def test_sizes_are_as_configured() -> None:
    """A history has exactly the requested number of steps, of about the requested size."""
    history = finished(steps_per_run=9, step_bytes=50_000, failure_rate=0)
    for run_id in history.run_ids(history.workflow_ids[0], 20):
        steps = history.steps(run_id)
        assert len(steps) == 9
        assert len({step["node_id"] for step in steps}) == 9
        assert steps[-1]["node_id"] == "end"
        sizes = [len(msgspec.json.encode(step)) for step in steps if step["node_id"] == "model"]
        assert all(30_000 < size < 75_000 for size in sizes)
    shortest = finished(steps_per_run=1)
    assert {
        len(shortest.steps(run_id)) for run_id in shortest.run_ids(shortest.workflow_ids[0])
    } == {1}


def test_workflows_have_names_versions_and_a_graph_of_their_steps() -> None:
    """Rows name the workflow; its version rises with its runs and changes the graph.

    The graph holds every step's node.
    """
    history = frozen(workflows=5, runs_per_workflow=RUNS_PER_VERSION - 1, arrivals_per_minute=1)
    rows = history.workflows()
    assert [row["name"] for row in rows] == [
        "weather jokes", "support triage", "invoice reader", "weather jokes 2", "support triage 2",
    ]  # fmt: skip
    for row in rows:
        nodes = [node["id"] for node in row["graph"]["nodes"]]
        assert {edge[end] for edge in row["graph"]["edges"] for end in ("source", "target")} == set(
            nodes
        )
        assert {
            step["node_id"] for step in history.steps(history.run_ids(row["workflow_id"])[9])
        } <= set(nodes)
        assert row["version"] == 1
        assert row["created_at"][10] == " "
        assert row["created_at"].endswith("+00:00")
    history.advance(timedelta(minutes=5))
    later = history.workflows()
    assert [row["version"] for row in later] == [2] * 5
    for old, new in zip(rows, later, strict=True):
        assert new["graph"] != old["graph"]
        assert new["updated_at"] > old["updated_at"]


def test_later_versions_are_slower_or_request_another_model() -> None:
    """Runs after the workflow's update differ: a node is slower, or requests another model."""
    history = finished(runs_per_workflow=2 * RUNS_PER_VERSION, failure_rate=0)
    taken: dict[tuple[str, int], list[float]] = {}
    requested: dict[tuple[str, int], set[str]] = {}
    for workflow in history.workflows():
        assert workflow["version"] == 2
        for run_id in history.run_ids(workflow["workflow_id"]):
            version = (
                2
                if time_of(history.run(run_id)["start_time"]) >= time_of(workflow["updated_at"])
                else 1
            )
            for step in history.steps(run_id):
                if "model" in step["inputs"] and step["node_id"] != "embed_ticket":
                    assert step["inputs"]["temperature"] == round(0.2 + version / 10, 1)
                    length = time_of(step["end_time"]) - time_of(step["start_time"])
                    taken.setdefault((step["node_id"], version), []).append(length.total_seconds())
                    requested.setdefault((step["node_id"], version), set()).add(
                        step["inputs"]["model"]
                    )
    longest = {key: max(seconds) for key, seconds in taken.items()}
    assert {key for key, seconds in longest.items() if seconds > 9} == {("answer", 2)}
    assert longest["answer", 2] == pytest.approx(1.4 * 9, rel=0.02)
    assert requested["extract_fields", 2] == {"o3-mini"}
    assert all(
        models == set(MODELS) for key, models in requested.items() if key != ("extract_fields", 2)
    )


def test_a_node_with_a_truncated_response_runs_again() -> None:
    """One node runs again if its first response was cut off, unless runs have a fixed length."""
    history = finished(failure_rate=0, runs_per_workflow=1000)
    workflow_id = history.workflow_ids[2]
    repeated = 0
    for run_id in history.run_ids(workflow_id):
        steps, expected = history.steps(run_id), history.expected(run_id)
        nodes = [step["node_id"] for step in steps]
        cut_off = [
            expected[step["id"]].cut_off for step in steps if step["node_id"] == "extract_fields"
        ]
        assert len(cut_off) == (2 if cut_off[0] else 1)
        assert len(nodes) == len(set(nodes)) + len(cut_off) - 1 == 6 + len(cut_off)
        repeated += len(cut_off) - 1
    assert 50 < repeated < 150
    fixed = finished(failure_rate=0, steps_per_run=6)
    assert {len(fixed.steps(run_id)) for run_id in fixed.run_ids(fixed.workflow_ids[2])} == {6}


def test_a_restarted_history_goes_on_from_its_epoch() -> None:
    """A history made an hour later with the same epoch equals one that waited an hour."""
    waited = frozen()
    waited.advance(timedelta(hours=1))
    restarted = History(1, epoch=EPOCH, now=lambda: EPOCH + timedelta(hours=1))
    assert restarted.runs(restarted.workflow_ids[0], 200) == waited.runs(
        waited.workflow_ids[0], 200
    )


def test_changes_by_hand_keep_the_rest_of_the_list_in_place() -> None:
    """After any mix of added, unlisted and arriving runs every page equals that of a plain list."""
    for seed in range(20):
        random = Random(seed)
        history = frozen(seed, runs_per_workflow=30, workflows=1, arrivals_per_minute=4)
        [workflow_id] = history.workflow_ids
        untouched = frozen(seed, runs_per_workflow=30, workflows=1, arrivals_per_minute=4)
        expected = history.run_ids(workflow_id)
        arrived = len(expected)
        gone: list[str] = []
        for _ in range(30):
            match random.randrange(4):
                case 0:
                    expected = [
                        *reversed(history.add_runs(workflow_id, random.randrange(1, 4))),
                        *expected,
                    ]
                case 1:
                    gone.append(expected.pop(random.randrange(len(expected))))
                    history.unlist(gone[-1])
                case 2:
                    history.unlist(random.choice(gone)) if gone else None
                case _:
                    history.advance(timedelta(seconds=random.randrange(60)))
                    untouched.freeze(history.now())
                    new = untouched.run_ids(workflow_id)
                    expected = [*new[: len(new) - arrived], *expected]
                    arrived = len(new)
            offset, limit = random.randrange(40), random.randrange(1, 40)
            assert history.run_ids(workflow_id) == expected
            assert history.run_ids(workflow_id, limit, offset) == expected[offset : offset + limit]
        assert all(history.run(run_id)["id"] == run_id for run_id in gone + expected)


def test_runs_added_while_the_clock_is_put_back_are_not_lost() -> None:
    """Runs added while the clock is put back are listed once when the later time comes again."""
    history = frozen(arrivals_per_minute=4)
    workflow_id = history.workflow_ids[0]
    history.advance(timedelta(minutes=5))
    later = history.add_runs(workflow_id, 2)
    history.freeze(EPOCH)
    earlier = history.add_runs(workflow_id, 2)
    history.advance(timedelta(minutes=6))
    listed = history.run_ids(workflow_id)
    assert set(later + earlier) <= set(listed)
    assert len(set(listed)) == len(listed)


def test_a_deleted_run_is_gone_everywhere() -> None:
    """An unlisted run still has its own responses, a deleted run has none."""
    history = frozen()
    workflow_id = history.workflow_ids[0]
    first, second = history.run_ids(workflow_id, 2, 50)
    history.unlist(first)
    history.delete(second)
    assert not {first, second} & set(history.run_ids(workflow_id))
    assert history.steps(first)
    with pytest.raises(KeyError):
        history.steps(second)
    with pytest.raises(KeyError):
        history.run(second)


def test_a_reopened_run_runs_its_last_step_again() -> None:
    """A reopened run runs again with the same step ids until its new end."""
    history = finished(failure_rate=0.5)
    for run_id in history.run_ids(history.workflow_ids[2], 20):
        steps, row = history.steps(run_id), history.run(run_id)
        history.freeze(EPOCH)
        history.reopen(run_id)
        history.advance(timedelta(seconds=3))
        assert history.run(run_id)["status"] == "running"
        assert history.run(run_id)["end_time"] is None
        assert history.steps(run_id)[:-1] == steps[:-1]
        assert history.steps(run_id)[-1]["status"] == "running"
        history.advance(timedelta(seconds=60))
        assert [step["id"] for step in history.steps(run_id)] == [step["id"] for step in steps]
        assert history.run(run_id)["status"] == row["status"]
        assert history.run(run_id)["end_time"] > row["end_time"]
        assert time_of(history.run(run_id)["end_time"]) > EPOCH


def test_single_fields_can_be_changed() -> None:
    """A changed field changes that step or run alone, on top of its earlier values."""
    history = finished()
    run_id, other = history.run_ids(history.workflow_ids[0], 2)
    steps, row, others = history.steps(run_id), history.run(run_id), history.steps(other)
    history.change_step(run_id, steps[1]["id"], status="odd", surprise=[1])
    history.change_step(run_id, steps[1]["id"], error="late")
    history.change_run(run_id, status="archived")
    changed = {**steps[1], "status": "odd", "surprise": [1], "error": "late"}
    assert history.steps(run_id) == [steps[0], changed, *steps[2:]]
    assert history.run(run_id) == {**row, "status": "archived"}
    assert history.runs(history.workflow_ids[0], 1) == [{**row, "status": "archived"}]
    assert history.steps(other) == others


def test_added_runs_have_the_inputs_they_were_started_with() -> None:
    """A run added by hand has the given inputs and lives like any other run."""
    history = frozen(failure_rate=0)
    [run_id] = history.add_runs(history.workflow_ids[0], inputs={"prompt": "Hello", "n": 3})
    assert history.run(run_id)["status"] == "pending"
    assert history.steps(run_id) == []
    history.advance(timedelta(minutes=2))
    assert history.run(run_id)["status"] == "completed"
    assert history.run(run_id)["inputs"] == {"prompt": "Hello", "n": 3}
    assert history.steps(run_id)[0]["inputs"]["input_data"]["prompt"] == "Hello"


def test_a_clock_can_be_stopped_moved_and_let_go() -> None:
    """A test can stop, move and release the history's clock."""
    history = History()
    history.freeze()
    assert history.now() == history.now()
    history.freeze(EPOCH)
    history.advance(timedelta(hours=1))
    assert history.now() == EPOCH + timedelta(hours=1)
    history.resume()
    assert abs(history.now() - datetime.now(UTC)) < timedelta(seconds=5)


@pytest.mark.parametrize(
    "options",
    [
        {"workflows": 0},
        {"runs_per_workflow": 2, "live": 3},
        {"live": -1},
        {"steps_per_run": 0},
        {"pace": 0},
        {"failure_rate": 1.5},
        {"spacing": timedelta(0)},
        {"arrivals_per_minute": -1},
    ],
)
def test_impossible_numbers_are_refused(options: dict[str, Any]) -> None:
    """An impossible history is refused when it is described, not when it is read."""
    with pytest.raises(ValueError):
        History(**options)
