from __future__ import annotations

from typing import Any

import pytest

from app.access.refusals import rate_limit_headers, refusal_error, write_duration
from app.catalog.money import to_nano
from app.ledger.values.directory import Budget
from app.ledger.values.drawings import BudgetRefusal, LimitRefusal, Unavailable, Unpriced
from app.ledger.values.limits import Limit, LimitState, Measure, Owner
from app.ledger.values.windows import Period

KEY, PROJECT = Owner("key", "k1", "ci"), Owner("project", "p1", "design")
DECEMBER = Period(1_793_487_600_000_000, 1_796_079_600_000_000)  # November 2026 in Prague


def state(measure: Measure, amount: int, remaining: int = 0, reset: float = 60.0, owner: Owner = KEY) -> LimitState:
    return LimitState(Limit(owner, measure, amount), remaining, reset)


def over_budget(**fields: Any) -> BudgetRefusal:
    budget = Budget("bud_1", "project", "p1", to_nano(50), "month", "Europe/Prague", owner="design", **fields)
    used, held = to_nano("49.5"), to_nano("0.25")
    return BudgetRefusal(budget, DECEMBER, to_nano(50), used, held, to_nano("0.75"))


# --- limits ---


@pytest.mark.parametrize(
    ("refused", "needed", "wait", "message"),
    [
        (state(Measure.REQUESTS, 60), 1, 0.9, "Key 'ci' may make 60 requests a minute. Try again in 0.9 s."),
        (
            state(Measure.IMAGES, 10, 3, owner=PROJECT),
            4,
            6.0,
            "Project 'design' may ask for 10 images a minute, of which 3 are left. Try again in 6.0 s.",
        ),
        (
            state(Measure.MEGAPIXELS, 8, 1),
            2_000_000,
            7.5,
            "Key 'ci' may ask for 8 megapixels a minute, of which 1 are left. Try again in 7.5 s.",
        ),
        (
            state(Measure.CONCURRENCY, 2),
            1,
            None,
            "Key 'ci' may have 2 requests running at a time. Wait for one to finish.",
        ),
    ],
    ids=lambda value: str(value.limit.measure) if isinstance(value, LimitState) else "",
)
def test_a_refusal_names_the_limit_its_owner_and_the_wait(
    refused: LimitState, needed: int, wait: float | None, message: str
) -> None:
    error = refusal_error(LimitRefusal(refused, needed, wait))
    assert (error.status, error.code, error.param, error.message) == (429, "rate_limit_exceeded", None, message)
    assert error.retry_after == (wait or 1.0)
    assert error.should_retry is None


def test_what_a_limit_never_allows_is_not_tried_again() -> None:
    error = refusal_error(LimitRefusal(state(Measure.MEGAPIXELS, 4, 4), 16_000_000, None))
    assert (error.status, error.code, error.should_retry, error.retry_after) == (
        429,
        "rate_limit_exceeded",
        False,
        None,
    )
    assert "this request needs 16 megapixels. Ask for fewer or smaller images." in error.message


def test_a_refused_request_reads_what_is_left() -> None:
    states = (state(Measure.REQUESTS, 60, 10, 50.0), state(Measure.IMAGES, 10, 0, 60.0))
    error = refusal_error(LimitRefusal(states[1], 1, 6.0, states))
    assert error.headers == rate_limit_headers(states)


# --- budgets ---


def test_a_budget_that_is_used_up_names_itself_its_use_and_its_new_start() -> None:
    error = refusal_error(over_budget())
    assert (error.status, error.type, error.code) == (429, "insufficient_quota", "insufficient_quota")
    assert (error.should_retry, error.param, error.retry_after) == (False, None, None)
    assert error.message == (
        "This request does not fit into the budget bud_1 (50 a month of project 'design'): 49.5 USD are used, and this "
        "request may need 0.75. It starts anew at 2026-12-01T00:00+01:00, or ask the gateway's operator to raise it."
    )


def test_a_budget_that_running_requests_hold_may_be_tried_again() -> None:
    budget = over_budget().budget
    error = refusal_error(BudgetRefusal(budget, DECEMBER, to_nano(50), to_nano(1), to_nano(49), to_nano(2)))
    assert (error.status, error.code, error.should_retry, error.retry_after) == (429, "budget_reserved", None, 5.0)
    assert "1 USD are used, 49 held, and this request may need 2" in error.message


def test_a_budget_that_never_starts_anew_says_so() -> None:
    budget = Budget("bud_2", "all", None, to_nano(5), "total", models=("openai/*",))
    error = refusal_error(BudgetRefusal(budget, Period(0, None), to_nano(5), to_nano(5), 0, to_nano(1)), "EUR")
    assert "bud_2 (5 in all of everything for openai/*): 5 EUR are used" in error.message
    assert "does not start anew" in error.message


def test_a_model_without_a_price_is_refused_with_the_remedy() -> None:
    error = refusal_error(Unpriced(over_budget().budget))
    assert (error.status, error.code, error.param) == (400, "model_unpriced", "model")
    assert "`price`" in error.message
    assert "bud_1" in error.message


def test_a_database_that_is_away_is_told_without_its_address() -> None:
    error = refusal_error(Unavailable("connection to 10.0.0.9 refused"))
    assert (error.status, error.code, error.retry_after) == (503, "ledger_unavailable", 5.0)
    assert "10.0.0.9" not in error.message


# --- headers ---


def test_headers_tell_the_tightest_limit_of_each_measure() -> None:
    states = (
        state(Measure.REQUESTS, 60, 59, 1.0),
        state(Measure.REQUESTS, 600, 12, 360.0, PROJECT),
        state(Measure.IMAGES, 10, 4, 36.0),
        state(Measure.MEGAPIXELS, 8, 1),
        state(Measure.CONCURRENCY, 2, 1, 0.0),
    )
    assert rate_limit_headers(states) == {
        "x-ratelimit-limit-requests": "600",
        "x-ratelimit-remaining-requests": "12",
        "x-ratelimit-reset-requests": "6m0s",
        "x-ratelimit-limit-images": "10",
        "x-ratelimit-remaining-images": "4",
        "x-ratelimit-reset-images": "36s",
    }
    assert rate_limit_headers(()) == {}


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0s"), (0.35, "350ms"), (1, "1s"), (1.2, "2s"), (59, "59s"), (60, "1m0s"), (360, "6m0s"), (3661, "1h1m1s")],
)
def test_a_duration_is_written_as_openai_does(seconds: float, text: str) -> None:
    assert write_duration(seconds) == text
