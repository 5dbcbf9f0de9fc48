"""The hierarchy of errors."""

from __future__ import annotations

from etl.errors import ApiUnavailable, NotFound, RequestRefused


def test_a_reworded_error_keeps_its_kind_and_fields() -> None:
    """Advice added to an error changes only its text, and keeps the server's status."""
    for error in (NotFound("no list", 404), RequestRefused("no such method", 405)):
        reworded = error.reworded(f"{error}: name the runs")
        assert type(reworded) is type(error)
        assert (str(reworded), reworded.status) == (f"{error}: name the runs", error.status)
    assert str(error) == "no such method"
    assert type(ApiUnavailable("later").reworded("much later")) is ApiUnavailable
