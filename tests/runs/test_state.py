"""The states of a run: the table in the code, the table in the documentation, and the promises that follow from it."""

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.runs.state import TRANSITIONS, IllegalTransition, State, Step, after

UNDER_WAY = (State.WAITING, State.SENT)
MONEY = (Path(__file__).parents[2] / "docs/money.md").read_text(encoding="utf-8")


def rows(header: str) -> list[tuple[str, ...]]:
    """Return the rows of the table with this header."""
    table = MONEY.split(f"{header}\n")[1].split("\n\n")[0].splitlines()[1:]
    return [tuple(cell.strip() for cell in re.split(r"(?<!\\)\|", row)[1:-1]) for row in table]


def test_the_documentation_has_the_states_with_their_meaning() -> None:
    assert rows("| State | Meaning |") == [(state.name.lower(), state.value) for state in State]


def test_the_documentation_has_the_transitions() -> None:
    table = [(state.name.lower(), step.value, then.name.lower()) for (state, step), then in TRANSITIONS.items()]
    assert rows("| State | Event | Next state |") == table


def test_every_state_but_the_last_is_left_and_every_end_is_reached() -> None:
    assert {state for state, _ in TRANSITIONS} == set(State) - {State.FORGOTTEN}
    assert set(TRANSITIONS.values()) == set(State) - set(UNDER_WAY)
    assert {step for _, step in TRANSITIONS} == set(Step)


@pytest.mark.parametrize("state", State)
@pytest.mark.parametrize("step", Step)
def test_a_step_outside_of_the_table_is_refused(state: State, step: Step) -> None:
    if (state, step) in TRANSITIONS:
        assert after(state, step) is TRANSITIONS[state, step]
    else:
        with pytest.raises(IllegalTransition, match=f"{step.name} in state {state.name}"):
            after(state, step)


@given(st.sampled_from(UNDER_WAY), st.lists(st.sampled_from(list(Step)), max_size=30))
def test_a_run_that_may_have_been_paid_for_is_never_drawn_afresh(state: State, steps: list[Step]) -> None:
    ended_paid = False
    for step in steps:
        if (state, step) not in TRANSITIONS:
            continue
        state = after(state, step)
        assert state not in UNDER_WAY, "an ended run never begins again"
        ended_paid |= step in (Step.FAIL_PAID, Step.FINISH)
        if ended_paid:
            assert not state.is_unpaid
        assert not (state.is_delivered and Step.FINISH not in steps)


@given(st.sampled_from(UNDER_WAY), st.lists(st.sampled_from(list(Step)), max_size=30))
def test_a_failure_that_no_caller_got_stays_owed_until_one_gets_it(state: State, steps: list[Step]) -> None:
    for step in (step for step in steps if step is not Step.FORGET):
        if (state, step) in TRANSITIONS:
            before, state = state, after(state, step)
            assert before is not State.OWED or step is Step.TELL or state is State.OWED
