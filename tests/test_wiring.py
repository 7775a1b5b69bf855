"""What the composition root adds of its own."""

from app.wiring import steady


def test_a_steady_clock_begins_with_the_wall_clock_and_does_not_jump_with_it() -> None:
    wall, elapsed = 1_000_000.0, 50.0
    clock = steady(lambda: wall, lambda: elapsed)
    assert clock() == 1_000_000
    wall += 86_400
    assert clock() == 1_000_000
    elapsed += 7
    assert clock() == 1_000_007
