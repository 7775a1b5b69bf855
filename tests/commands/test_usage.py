from __future__ import annotations

import csv
import re
import time

import pytest

from app.ledger.database.protocol import Database
from tests.commands.conftest import Book
from tests.ledger.samples import a_settlement, an_admission


@pytest.fixture
def drawn(book: Book) -> Book:
    """A book with two drawings of today and one of forty days ago."""
    now = int(time.time() * 1_000_000)

    async def draw(database: Database) -> None:
        for model, ago, cost in (("=flux", 0, 1_500_000), ("sdxl", 0, 2_000_000), ("old", 40, 9_000_000)):
            at = now - ago * 86400 * 1_000_000
            admission = an_admission(model=model, most=cost, project_id=None)
            await database.admit(admission, (), "gateway", at)
            await database.settle(a_settlement(admission.id, cost, width=1000, height=1500, provider="nebula"))

    book.ask(lambda registry: draw(registry.database))
    return book


def test_a_table_tells_who_drew_what_and_the_sum(drawn: Book) -> None:
    done = drawn.carry_out("usage", "--by", "model")
    heads, dearest, cheaper, last = done.lines
    assert re.split(r"\s\s+", heads) == ["model", "requests", "images", "megapixels", "cost", "in doubt", "saved"]
    assert dearest.split() == ["sdxl", "1", "1", "1.5", "0.002000", "0.000000", "0.000000"]
    assert cheaper.split() == ["=flux", "1", "1", "1.5", "0.001500", "0.000000", "0.000000"]
    assert last.split() == ["all", "2", "2", "3.0", "0.003500", "0.000000", "0.000000"]


def test_csv_is_read_by_a_spreadsheet_that_runs_nothing(drawn: Book) -> None:
    rows = list(csv.DictReader(drawn.carry_out("usage", "--by", "model", "--csv").lines))
    assert [row["model"] for row in rows] == ["sdxl", "'=flux"]
    assert rows[0]["cost"] == "0.002000"
    assert rows[0]["in_doubt"] == "0.000000"


@pytest.mark.parametrize("by", ["project", "key", "model", "provider", "day"])
def test_json_has_a_line_for_each(drawn: Book, by: str) -> None:
    found = drawn.carry_out("usage", "--by", by, "--json").json
    assert sum(line["requests"] for line in found) == 2
    assert all(set(line) >= {by, "images", "megapixels", "cost", "in_doubt", "saved"} for line in found)


@pytest.mark.parametrize(("since", "count"), [("30d", 2), ("2000-01-01", 3), ("50d", 3), ("0s", 0)])
def test_only_what_was_drawn_since_counts(drawn: Book, since: str, count: int) -> None:
    found = drawn.carry_out("usage", "--since", since, "--json").json
    assert sum(line["requests"] for line in found) == count


def test_where_nothing_was_drawn_the_table_says_so(book: Book) -> None:
    assert book.carry_out("usage").out == "Nothing was drawn in this time.\n"
    assert book.carry_out("usage", "--json").json == []


@pytest.mark.parametrize(
    ("options", "words"), [(("--since", "long ago"), "is no time"), (("--csv", "--json"), "one of --csv and --json")]
)
def test_what_cannot_be_asked_is_refused(book: Book, options: tuple[str, ...], words: str) -> None:
    done = book("usage", *options)
    assert done.status == 2
    assert words in re.sub(r"[\s│]+", " ", done.err)
