"""Prose for people is wrapped on a terminal, and only there."""

from __future__ import annotations

import io

import pytest

from etl.terminal import counted, first_plain, wrapped

COMMAND = "`orchestra-etl prune --runs-older-than 730d`"


class Terminal(io.StringIO):
    """A stream that says that it is a terminal."""

    def isatty(self) -> bool:
        """Return True."""
        return True


@pytest.fixture(autouse=True)
def fifty_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the terminal 50 columns wide."""
    monkeypatch.setenv("COLUMNS", "50")


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("short", ["short"]),
        ("a" * 50, ["a" * 50]),
        (f"{'a' * 49} b", ["a" * 49, "  b"]),
        (f"  {'a' * 40} {'b' * 10}", [f"  {'a' * 40}", f"    {'b' * 10}"]),
        ("one\ntwo\n", ["one", "two", ""]),
        (f"for this, run {COMMAND}, then wait", ["for this, run", f"  {COMMAND},", "  then wait"]),
        (f"see {'x' * 70} here", ["see", f"  {'x' * 70}", "  here"]),
        (f"an `{'long ' * 12}` end", [
            "an `long long long long long long long long long",
            "  long long long ` end",
        ]),
        ("日本" * 15, ["日本" * 12 + "日", "  本" + "日本" * 2]),
        (f"id={'a' * 60}日本", [f"id={'a' * 60}", "  日本"]),
        (f"{'❤️' * 30}", ["❤️" * 25, f"  {'❤️' * 5}"]),
        (f"{'日本' * 12} 日本", ["日本" * 12, "  日本"]),
    ],
)  # fmt: skip
def test_lines_break_between_words(text: str, lines: list[str]) -> None:
    """A line breaks between words and wide characters, never inside what fits one line."""
    assert wrapped(text, Terminal()).split("\n") == lines
    assert wrapped(text, io.StringIO()) == text


def test_a_blank_name_is_replaced() -> None:
    """The first text that shows something is used: a name of spaces shows nothing."""
    assert first_plain(None, "", " \t\u2003\n", " the id ") == "the id"
    assert first_plain("long name", "id", length=5) == "long…"
    assert first_plain("日本語", length=5) == "日本…"
    assert first_plain("日本語", length=6) == "日本語"
    assert first_plain("\u200b", "id") == "\\u200b"
    assert first_plain(None, " ") == ""


@pytest.mark.parametrize(
    ("number", "words", "text"),
    [
        (0, ("run",), "0 runs"),
        (1, ("run",), "1 run"),
        (10332, ("run",), "10,332 runs"),
        (1, ("match", "matches"), "1 match"),
        (2, ("match", "matches"), "2 matches"),
    ],
)
def test_a_number_has_its_noun(number: int, words: tuple[str, ...], text: str) -> None:
    """One thing has the singular, any other number of things the plural."""
    assert counted(number, *words) == text
