from __future__ import annotations

import pytest

from app.access.wrong_keys import MOST_A_MINUTE, MOST_ADDRESSES, WrongKeys


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_an_address_may_send_twenty_wrong_keys_and_then_one_every_three_seconds() -> None:
    clock = Clock()
    wrong = WrongKeys(clock)
    assert [wrong.count("192.0.2.1") for _ in range(MOST_A_MINUTE)] == [0.0] * 20
    assert wrong.count("192.0.2.1") == pytest.approx(3)
    clock.now += 2
    assert wrong.count("192.0.2.1") == pytest.approx(1)  # one that was refused did not count
    clock.now += 1
    assert wrong.count("192.0.2.1") == 0
    assert wrong.count("192.0.2.1") == pytest.approx(3)
    clock.now += 60
    assert [wrong.count("192.0.2.1") for _ in range(21)][19:] == [0.0, pytest.approx(3)]


def test_addresses_are_counted_apart() -> None:
    wrong = WrongKeys(Clock())
    for _ in range(30):
        wrong.count("192.0.2.1")
    assert wrong.count("192.0.2.2") == 0
    assert wrong.count(None) == 0
    assert wrong.count("not an address") == 0


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("2001:db8::1", "2001:db8::ffff:2", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("::ffff:192.0.2.1", "192.0.2.1", True),
        ("::ffff:192.0.2.1", "::ffff:192.0.2.2", False),
    ],
)
def test_the_addresses_of_one_machine_count_as_one(one: str, other: str, same: bool) -> None:
    wrong = WrongKeys(Clock())
    for _ in range(MOST_A_MINUTE):
        wrong.count(one)
    assert bool(wrong.count(other)) is same


def test_only_so_many_addresses_are_remembered_and_the_one_seen_last_stays() -> None:
    wrong = WrongKeys(Clock())
    for _ in range(MOST_A_MINUTE):
        wrong.count("192.0.2.1")
    for number in range(MOST_ADDRESSES - 1):
        wrong.count(f"other {number}")
    assert wrong.count("192.0.2.1") > 0
    for number in range(MOST_ADDRESSES):
        wrong.count(f"another {number}")
    assert wrong.count("192.0.2.1") == 0
