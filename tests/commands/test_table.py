from __future__ import annotations

from app.commands.table import table


def test_columns_are_aligned_and_numbers_to_the_right() -> None:
    assert table(("name", "cost"), [("a", "1"), ("long name", "10.5")], right=("cost",)).splitlines() == [
        "name       cost",
        "a             1",
        "long name  10.5",
    ]


def test_a_table_without_rows_has_its_heads() -> None:
    assert table(("a", "b"), []) == "a  b"
