from __future__ import annotations

from app.errors import LONGEST_MESSAGE, LONGEST_PARAM, Conflict, InvalidRequest, shortened


def test_a_text_is_shortened_only_where_it_is_long() -> None:
    assert shortened("x" * 64) == "x" * 64
    assert shortened("x" * 65) == "x" * 64 + "…"
    assert shortened("xyz", 2) == "xy…"


def test_no_error_is_longer_than_a_screen_whatever_it_quotes() -> None:
    error = InvalidRequest("m" * 100_000, param="p" * 100_000)
    assert error.message == str(error) == "m" * LONGEST_MESSAGE + "…"
    assert error.param == "p" * LONGEST_PARAM + "…"
    again = InvalidRequest(error.message, param=error.param)
    assert (again.message, again.param) == (error.message, error.param)


def test_an_sdk_does_not_ask_again_after_a_conflict() -> None:
    assert Conflict("No.").should_retry is False
    assert Conflict("No.", should_retry=True).should_retry is True
    assert InvalidRequest("No.").should_retry is None
