"""The states of a run: the table in the code, the table in the documentation, and the promises that follow from it."""

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.runs.state import TRANSITIONS, Event, IllegalTransition, State, after

UNDER_WAY = (State.WAITING, State.SENT)
MONEY = (Path(__file__).parents[2] / "docs/money.md").read_text(encoding="utf-8")


def rows(header: str) -> list[tuple[str, ...]]:
    """Return the rows of the table with this header."""
    table = MONEY.split(f"{header}\n")[1].split("\n\n")[0].splitlines()[1:]
    return [tuple(cell.strip() for cell in re.split(r"(?<!\\)\|", row)[1:-1]) for row in table]


def test_the_documentation_has_the_states_with_their_meaning() -> None:
    assert rows("| State | Meaning |") == [(state.name.lower(), state.value) for state in State]


def test_the_documentation_has_the_transitions() -> None:
    table = [(state.name.lower(), event.value, then.name.lower()) for (state, event), then in TRANSITIONS.items()]
    assert rows("| State | Event | Next state |") == table


def test_every_state_but_the_last_is_left_and_every_state_but_the_first_is_reached() -> None:
    assert {state for state, _ in TRANSITIONS} == set(State) - {State.FORGOTTEN}
    assert set(TRANSITIONS.values()) == set(State)
    assert {event for _, event in TRANSITIONS} == set(Event)


@pytest.mark.parametrize("state", State)
@pytest.mark.parametrize("event", Event)
def test_an_event_outside_of_the_table_is_refused(state: State, event: Event) -> None:
    if (state, event) in TRANSITIONS:
        assert after(state, event) is TRANSITIONS[state, event]
    else:
        with pytest.raises(IllegalTransition, match=f"{event.name} in state {state.name}"):
            after(state, event)


@given(st.lists(st.sampled_from(list(Event)), max_size=30))
def test_a_run_that_may_have_been_paid_for_is_never_drawn_afresh(events: list[Event]) -> None:
    state, ended_paid = State.WAITING, False
    for event in events:
        if (state, event) not in TRANSITIONS:
            continue
        before, state = state, after(state, event)
        assert before in UNDER_WAY or state not in UNDER_WAY, "an ended run never begins again"
        ended_paid |= event in (Event.FAIL_PAID, Event.FINISH)
        if ended_paid:
            assert not state.is_unpaid
        assert not (state.is_delivered and Event.FINISH not in events)


@given(st.lists(st.sampled_from(list(Event)), max_size=30))
def test_a_failure_that_no_caller_got_stays_owed_until_one_gets_it(events: list[Event]) -> None:
    state = State.WAITING
    for event in (event for event in events if event is not Event.FORGET):
        if (state, event) in TRANSITIONS:
            before, state = state, after(state, event)
            assert before is not State.OWED or event is Event.TELL or state is State.OWED
