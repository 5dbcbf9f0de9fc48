"""The dead letters of one response: bounded in number, bytes and memory, and every loss counted."""

from __future__ import annotations

import hashlib
import os
import resource
from collections.abc import Callable

import pytest

from etl import dead_letter_buffer
from etl.dead_letter_buffer import DeadLetterBuffer
from etl.records import Rejected
from etl.transform import scanner
from etl.transform.decode import decode_steps
from etl.transform.redact import Redaction, RedactionRule
from etl.transform.runs import decode_page
from etl.transform.scanner import elements, split_tolerant
from etl.transform.states import StateMap
from etl.transform.tolerant_json import Malformed
from tests.support import slow

STATES = StateMap()
POLICY = Redaction([RedactionRule("$.inputs", "drop")], "key").policy("w")


def array(*texts: bytes) -> bytes:
    """Return a JSON array of these elements."""
    return b"[" + b",".join(texts) + b"]"


def test_the_first_hundred_are_letters_and_the_others_one() -> None:
    """Of 150,000 elements that are not steps, 100 are dead letters of their own, the rest are one.

    That one counts the others and holds their bytes.
    """
    numbers = [b"%d" % number for number in range(100_000, 250_000)]
    good = b'{"id": "good", "status": "completed"}'
    for body in (array(*numbers, good), b"\xef\xbb\xbf" + array(*numbers, good)):
        answer = decode_steps(body, workflow_id="w", run_id="r", states=STATES)
        assert [(step.id, step.position) for step in answer.steps] == [("good", 150_000)]
        *single, others = answer.rejected
        assert [one.body for one in single] == numbers[:100]
        assert {one.reason for one in answer.rejected} == {"not_an_object"}
        assert others.detail == "And 149,900 more: An element of the response is not a JSON object."
        assert others.body == array(*numbers[100:])
        # The same response makes the same dead letters.
        again = decode_steps(body, workflow_id="w", run_id="r", states=STATES)
        assert again.rejected[-1].content_hash == others.content_hash


def test_up_to_a_hundred_bad_elements_are_separate_letters() -> None:
    """A hundred bad elements are a hundred dead letters, each identified by its own bytes."""
    answer = decode_steps(
        array(*(b"%d" % n for n in range(100))), workflow_id="w", run_id="r", states=STATES
    )
    assert [one.body for one in answer.rejected] == [b"%d" % n for n in range(100)]
    assert {one.content_hash for one in answer.rejected} == {None}


def test_each_reason_has_its_own_letter_for_the_others() -> None:
    """Each reason has its own dead letter for the rest; values without an id get the step's id."""
    steps = [b'{"id": "s%d", "error": "\\u0000"}' % number for number in range(150)]
    answer = decode_steps(array(*steps, *[b"{}"] * 30), workflow_id="w", run_id="r", states=STATES)
    assert len(answer.steps) == 150
    assert len(answer.rejected) == 102
    values, without_id = answer.rejected[-2:]
    assert (values.reason, values.detail) == (
        "not_storable",
        "And 50 more: error: jsonb cannot hold: NUL",
    )
    assert values.body == array(
        *(b'{"step_id":"s%d","value":"\\u0000"}' % number for number in range(100, 150))
    )
    assert (without_id.reason, without_id.body) == ("unusable_id", array(*[b"{}"] * 30))


def test_bytes_are_bounded_and_omissions_are_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    """A response's dead letters stay within the bound, and one without all its bytes says so."""
    monkeypatch.setattr(dead_letter_buffer, "MAX_BYTES", 1_000)

    def gathered(last: bytes) -> tuple[Rejected, ...]:
        found = DeadLetterBuffer(Rejected("malformed", "Bad.", b"x%08d" % n) for n in range(149))
        found.add(Rejected("malformed", "Bad.", last))
        return found.letters()

    letters = gathered(b"y" * 5_000)
    assert len(letters) == 101
    assert letters[-1].body == array(*(b"x%08d" % n for n in range(100, 110)))
    assert (
        letters[-1].detail == "And 50 more: Bad. Only the first 99 of their 5,441 bytes are kept."
    )
    assert letters[-1].content_hash != gathered(b"z" * 5_000)[-1].content_hash
    (large,) = DeadLetterBuffer([Rejected("not_an_array", "Bad.", b"x" * 1_001)]).letters()
    assert (large.body, large.detail) == (
        b"x" * 1_000,
        "Bad. Only the first 1,000 of its 1,001 bytes are kept.",
    )
    assert large.content_hash == hashlib.blake2b(b"x" * 1_001, digest_size=16).digest()


def test_withheld_letters_are_bounded_too() -> None:
    """Under redaction rules a dead letter keeps no unredactable bytes.

    The letter for many elements has a hash of all of them.
    """

    def withheld(last: int) -> tuple[Rejected, ...]:
        body = array(*(b'"secret%d"' % number for number in range(150_000)), b"%d" % last)
        return decode_steps(
            body, workflow_id="w", run_id="r", states=STATES, policy=POLICY
        ).rejected

    letters = withheld(1)
    assert len(letters) == 101
    assert {one.body for one in letters} == {b""}
    assert letters[-1].detail.startswith(
        "And 149,901 more: An element of the response is not a JSON object."
    )
    assert letters[-1].content_hash not in (None, withheld(2)[-1].content_hash)


def test_elements_behind_the_last_one_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of very many small steps the first are stored, and the others are one dead letter.

    It has their number and their bytes, whether they were read or not.
    """
    steps = [b'{"id":"%d"}' % number for number in range(30_000)]
    for start in (b"", b"\xef\xbb\xbf"):
        answer = decode_steps(start + array(*steps), workflow_id="w", run_id="r", states=STATES)
        assert [step.id for step in answer.steps] == [str(number) for number in range(20_000)]
        (others,) = answer.rejected
        assert (others.reason, others.body) == ("too_many", array(*steps[20_000:]))
        assert (
            others.detail
            == "And 10,000 more: The response has more elements than its length allows."
        )
        page = decode_page(start + array(*steps))
        # The walk requests the rows behind them by their position in the list.
        assert (len(page.runs), len(page.rows), [one.reason for one in page.rejected]) == (
            20_000,
            20_000,
            ["too_many"],
        )
    monkeypatch.setattr(scanner, "_COUNTED", 100)
    *_, behind = split_tolerant(array(*steps), 10)
    assert (behind.number, behind.unread) == (101, True)


def test_steps_of_usual_size_are_all_read() -> None:
    """A response whose steps have at least 256 bytes is read whole, for any number of steps."""
    steps = [b'{"id":"%d","outputs":"%s"}' % (number, b"x" * 240) for number in range(25_000)]
    answer = decode_steps(array(*steps), workflow_id="w", run_id="r", states=STATES)
    assert (len(answer.steps), answer.rejected) == (25_000, ())


def test_a_step_with_too_many_members() -> None:
    """An object with too many members becomes a dead letter, and its neighbours are stored."""
    members = b",".join(b'"m%d":%d' % (number, number) for number in range(20_001))
    many = b'{"id":"many",' + members + b"}"
    inner = b'{"id":"inner","outputs":{' + members + b"}}"
    answer = decode_steps(
        array(b'{"id":"a"}', many, inner), workflow_id="w", run_id="r", states=STATES
    )
    assert [step.id for step in answer.steps] == ["a", "inner"]
    assert [(one.reason, one.body) for one in answer.rejected] == [("too_many", many)]


@pytest.mark.parametrize("text", [b"1", b'"a"', b"", b"nul", b'{"id":1}', b"[]", b'"\\u0000,"'])
def test_truncated_arrays_are_unreadable(text: bytes) -> None:
    """A truncated array of any length is unreadable."""
    whole = array(*[text] * 120_000)
    assert sum(one.number for one in elements(whole, most=2_000)) == 120_000
    with pytest.raises(Malformed):
        list(elements(whole[:-1], most=2_000))


KINDS: dict[str, Callable[[int], bytes]] = {
    "ones": lambda n: array(*[b"1"] * n),
    "texts": lambda n: array(*(b'"%d,"' % i for i in range(n))),
    "one id": lambda n: array(*(b'{"id":"s","n":%d}' % i for i in range(n))),
    "steps": lambda n: array(*(b'{"id":"%d"}' % i for i in range(n))),
    "members": lambda n: b'[{"id":"s",' + b",".join(b'"%d":1' % i for i in range(n)) + b"}]",
    "quotes": lambda n: b'[{"id":"s","outputs":[' + b",".join([b'[""]'] * n) + b"]}]",
}


def peak_of(kind: str) -> tuple[int, int]:
    """Return a process's peak memory in bytes for such a response, and the response's length."""
    body = KINDS[kind](200_000)
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        decode_steps(body, workflow_id="w", run_id="r", states=STATES)
        os.write(writing, str(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before).encode())
        os._exit(0)
    os.waitpid(child, 0)
    os.close(writing)
    with os.fdopen(reading) as output:
        return int(output.read()) * 1024, len(body)


@pytest.mark.parametrize("kind", ["texts", "steps", *slow("ones", "one id", "members", "quotes")])
def test_memory_is_in_proportion_to_the_body(kind: str) -> None:
    """Decoding any response takes a few times its size, not hundreds of bytes per element."""
    peak, length = peak_of(kind)
    # The bound is the cost of 20,000 steps, which are always read, and a few times the body.
    assert peak < 30_000_000 + 5 * length


@pytest.mark.parametrize(("row", "reason", "step_id"), [
    (b'{"id":"s","inputs":%d}', "duplicate_id", "s"),
    (b'{"id":"s","inputs":%d,"error":"\\u0000"}', "not_storable", "s"),
    (b"null,7", "not_an_object", None),
])  # fmt: skip
def test_equal_refusals_are_counted(row: bytes, reason: str, step_id: str | None) -> None:
    """Very many equal refusals are two dead letters: the first one, and the number of the others.

    Refusals are equal if they concern one step or the same bytes, for one reason.
    """
    answer = decode_steps(
        array(*(row.replace(b"%d", b"%d" % n) for n in range(5_000))),
        workflow_id="w",
        run_id="r",
        states=STATES,
    )
    letters = [one for one in answer.rejected if one.reason == reason]
    few = [one for one in letters if one.detail.startswith("And ")]
    assert len(answer.rejected) <= 4
    assert {one.step_id for one in letters} == {step_id}
    singles = len(letters) - len(few)
    more = sum(int(one.detail.split()[1].replace(",", "")) for one in few)
    assert (
        singles + more
        == {"duplicate_id": 4_999, "not_storable": 5_000, "not_an_object": 10_000}[reason]
    )


def test_rows_of_one_run_in_a_page_are_counted() -> None:
    """Very many different rows of one run in a page are two dead letters; others are unaffected."""
    rows = [b'{"id":"r","n":%d}' % number for number in range(5_000)]
    page = decode_page(array(*rows, b'{"id":7}', b'{"id":8}'))
    assert [one.reason for one in page.rejected] == [
        "duplicate_id",
        "unusable_id",
        "unusable_id",
        "duplicate_id",
    ]
    assert (
        page.rejected[-1].detail
        == "And 4,998 more: A later row of the same page has the run's id 'r'."
    )


def test_letters_for_equal_refusals_are_bounded() -> None:
    """There are at most as many dead letters for repeated refusals as for first ones."""
    steps = [b'{"id":"s%d","inputs":%d}' % (number, n) for number in range(500) for n in range(4)]
    letters = decode_steps(array(*steps), workflow_id="w", run_id="r", states=STATES).rejected
    assert len(letters) == 2 * 100 + 1
    assert letters[-1].detail.startswith("And 1,200 more: ")
