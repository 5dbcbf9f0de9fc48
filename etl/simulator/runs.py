"""One simulated run: its whole course, and what the API shows of it at a given time.

Times are microseconds since 1970 in UTC; the API's rows have ISO texts.
"""

from __future__ import annotations

from collections import deque
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any, NamedTuple

import msgspec

from etl.simulator import nodes
from etl.simulator.model_calls import Expected
from etl.simulator.providers import MODELS
from etl.simulator.workflows import Node, SimulatedWorkflow, fixed_model, slowness, temperature

Json = dict[str, Any]

SECOND = 1_000_000

USER_ID = "2*****************1"
ORGANIZATION_ID = "2*****************7"

_UNIX_EPOCH = datetime(1970, 1, 1)

# How many of the last texts a node gets. With all of them, the size of a run would grow with the
# square of its steps.
_TEXTS_KEPT = 2


class Profile(msgspec.Struct, frozen=True):
    """The settings that all runs of a history share."""

    step_bytes: int
    """Approximate size of a model step in JSON."""
    failure_rate: float
    """Share of the runs that fail (three of four) or are cancelled."""
    pace: float
    """The factor of every duration."""


class StepPlan(NamedTuple):
    """A step in its final form, and the times at which its parts appear."""

    appears: int
    starts: int
    ends: int
    outputs_arrive: int
    content: Json
    expected: Expected | None
    """The meaning of the outputs as a call of a model; None if they are none."""


class RunPlan(NamedTuple):
    """A run in its final form."""

    id: str
    created: int
    starts: int
    ends: int
    settles: int
    """When the run stops changing; outputs can arrive after its end."""
    status: str
    error: str | Json | None
    inputs: Json
    outputs: str | Json | None
    open_end_time: str | None
    """The `end_time` of a step that has not ended: null or an empty string."""
    steps: tuple[StepPlan, ...]


def longest_run(workflow: SimulatedWorkflow, pace: float) -> int:
    """Return a time within which any run of the workflow settles."""
    return int((len(workflow.nodes) * (nodes.TIME_OUT_SECONDS + 1) + 10) * pace * SECOND)


def plan_run(
    workflow: SimulatedWorkflow,
    profile: Profile,
    random: Random,
    *,
    run_id: str,
    created: int,
    version: int,
    inputs: Json | None = None,
    reopened: int | None = None,
) -> RunPlan:
    """Draw the course of a run.

    An equal `random` gives the same course, shifted by `created`.

    Args:
        workflow: the run's workflow.
        profile: the settings of the history.
        random: the source of all draws.
        run_id: the run's id.
        created: when the run is created.
        version: the workflow's version.
        inputs: the run's inputs; None: they are drawn.
        reopened: when the last step runs again, for at least 5 s (times the pace).
    """
    pace = profile.pace
    failure_rate = profile.failure_rate
    chain = workflow.nodes
    last = len(chain) - 1
    if inputs is None:
        inputs = {"prompt": nodes.prompt_for(workflow.template, random)}
    status = "completed"
    draw = random.random()
    if draw < failure_rate and last > 0:
        status = "cancelled" if draw < failure_rate / 4 else "failed"
        last = int(random.random() * last)
        if chain[last].type == "conditional":
            last -= 1
    any_model = MODELS[int(random.random() * len(MODELS))]
    model = fixed_model(workflow.template, version) or any_model
    open_end_time = None if random.random() < 0.75 else ""
    texts: dict[str, str] = {}
    steps = []
    error: str | Json | None = None
    skip = False
    clock = starts = settles = created + _duration(random, 0.1, 0.8, pace)
    ahead = deque(chain[: last + 1])
    repeated_node = workflow.repeated_node
    while ahead:
        node = ahead.popleft()
        content = _step(random, node)
        if skip:
            skip = False
            content["status"] = "skipped"
            steps.append(
                StepPlan(
                    appears=clock,
                    starts=clock,
                    ends=clock,
                    outputs_arrive=clock,
                    content=content,
                    expected=None,
                )
            )
            continue
        if not ahead and reopened is not None:
            clock = max(clock, reopened)
        appears = clock
        clock += _duration(random, 0.005, 0.3, pace)
        situation = nodes.NodeContext(
            template=workflow.template,
            run_id=run_id,
            prompt=str(inputs.get("prompt", "")),
            node_texts=texts,
            started=clock / SECOND,
            model=model,
            temperature=temperature(version),
            step_bytes=profile.step_bytes,
        )
        work = nodes.run_node(node, random, situation)
        content["inputs"], content["outputs"], expected = work.inputs, work.outputs, work.expected
        duration = int(
            _duration(random, *nodes.SECONDS[node.type], pace)
            * slowness(workflow.template, node, version)
        )
        if not ahead and status != "completed":
            if status == "failed":
                error, timed_out = nodes.failure(node, random)
                if timed_out:
                    duration = int(nodes.TIME_OUT_SECONDS * pace * SECOND)
            else:
                error = "Run was cancelled by the user"
            content.update(status=status, outputs=None, error=error)
            expected = None
        elif node.type == "integration" and random.random() < failure_rate / 2:
            nodes.soft_failure(node, random, work.outputs)
            if work.outputs["result"]["data"] is None:
                expected = None
        elif node.type == "conditional":
            # The last step is never skipped: it is the End node, or the node that fails.
            skip = work.outputs["branch"] == "false" and len(ahead) > 1
        elif node.id == repeated_node and expected is not None and expected.cut_off:
            ahead.appendleft(node)
            repeated_node = ""
        if not ahead and reopened is not None:
            duration = max(duration, int(5 * pace * SECOND))
        ends = clock + duration
        outputs_arrive = ends + (_duration(random, 0.5, 3.0, pace) if random.random() < 0.1 else 0)
        content.update(start_time=iso(clock), end_time=iso(ends), elapsed_time=duration // SECOND)
        steps.append(
            StepPlan(
                appears=appears,
                starts=clock,
                ends=ends,
                outputs_arrive=outputs_arrive,
                content=content,
                expected=expected,
            )
        )
        clock = ends
        settles = max(settles, outputs_arrive)
        if work.text:
            texts[node.id] = work.text
            if len(texts) > _TEXTS_KEPT:
                del texts[next(iter(texts))]
    outputs = None
    if status == "completed":
        outputs = nodes.run_outputs(workflow.template, next(reversed(texts.values()), ""))
    return RunPlan(
        id=run_id,
        created=created,
        starts=starts,
        ends=clock,
        settles=settles,
        status=status,
        error=error,
        inputs=inputs,
        outputs=outputs,
        open_end_time=open_end_time,
        steps=tuple(steps),
    )


def steps_at(run: RunPlan, now: int) -> list[Json]:
    """Return the run's steps as the API shows them at that time."""
    if now >= run.settles:
        return [step.content for step in run.steps]
    return [_step_at(step, now, run.open_end_time) for step in run.steps if now >= step.appears]


def expected_at(run: RunPlan, now: int) -> dict[str, Expected]:
    """Return the meaning of the outputs that are visible at that time, by the step's id."""
    return {
        step.content["id"]: step.expected
        for step in run.steps
        if step.expected is not None and now >= step.outputs_arrive
    }


def row_at(run: RunPlan, now: int) -> Json:
    """Return the run's own row as the API shows it at that time."""
    ended = now >= run.ends
    return {
        "id": run.id,
        "status": run.status if ended else "running" if now >= run.starts else "pending",
        "start_time": iso(run.created),
        "end_time": iso(run.ends) if ended else None,
        "elapsed_time": max(min(now, run.ends) - run.created, 0) // SECOND,
        "error": run.error if ended else None,
        "outputs": run.outputs if ended else None,
        "all_outputs": {
            step.content["node_id"]: step.content["outputs"]
            for step in run.steps
            if now >= step.outputs_arrive and step.content["outputs"] is not None
        },
        "inputs": run.inputs,
    }


def _step_at(step: StepPlan, now: int, open_end_time: str | None) -> Json:
    if now >= step.outputs_arrive:
        return step.content
    if now >= step.ends:
        return {**step.content, "outputs": None}
    unfinished = {**step.content, "end_time": open_end_time, "error": None, "outputs": None}
    if now >= step.starts:
        return {**unfinished, "status": "running", "elapsed_time": (now - step.starts) // SECOND}
    return {**unfinished, "status": "pending", "start_time": None, "elapsed_time": 0}


def _step(random: Random, node: Node) -> Json:
    """Return a completed step without inputs and outputs.

    Its id has the API's form: like a UUID, but with letters after f.
    """
    digits = f"{random.getrandbits(116):029x}"
    letter = "ghijklmnopqrstuv"[random.getrandbits(4)]
    return {
        "id": f"{digits[:8]}-{digits[8:12]}-4{digits[12:15]}-a{digits[15:18]}-"
        f"{digits[18:28]}{letter}{digits[28]}",
        "user_id": USER_ID,
        "organization_id": ORGANIZATION_ID,
        "node_id": node.id,
        "status": "completed",
        "start_time": None,
        "end_time": None,
        "elapsed_time": 0,
        "error": None,
        "outputs": None,
        "inputs": {},
        "step_metadata": None,
        "tokens": 0,
    }


def _duration(random: Random, shortest: float, longest: float, pace: float) -> int:
    """Draw a duration in microseconds between two in seconds; short ones are more likely."""
    share = random.random()
    return int((shortest + (longest - shortest) * share * share) * pace * SECOND)


def microseconds(time: datetime) -> int:
    """Return a time with a zone as microseconds since 1970."""
    return (time.astimezone(UTC).replace(tzinfo=None) - _UNIX_EPOCH) // timedelta(microseconds=1)


def iso(time: int) -> str:
    """Return a time in the format of steps and runs."""
    return (_UNIX_EPOCH + timedelta(microseconds=time)).isoformat(timespec="microseconds") + "Z"


def iso_with_space(time: int) -> str:
    """Return a time in the format of workflows."""
    return (_UNIX_EPOCH + timedelta(microseconds=time)).isoformat(
        " ", timespec="microseconds"
    ) + "+00:00"
