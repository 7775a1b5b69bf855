from __future__ import annotations

import json
import re

import pytest

from app.ledger.database.protocol import Database
from tests.commands.conftest import Book
from tests.ledger.samples import a_settlement, an_admission


def draw(book: Book, cost: int = 0, in_doubt: int = 0) -> str:
    """Write a drawing that has ended, and return its id."""
    admission = an_admission()

    async def drawn(database: Database) -> None:
        await database.admit(admission, (), "gateway", 1)
        await database.settle(a_settlement(admission.id, cost, in_doubt))

    book.ask(lambda registry: drawn(registry.database))
    return admission.id


def break_drawing(book: Book, id: str) -> None:
    book.ask(lambda registry: registry.database.execute([("update drawing set cost_nano = 7 where id = ?", (id,))]))


def test_a_book_that_adds_up_is_proven(book: Book) -> None:
    draw(book, cost=100)
    done = book.carry_out("ledger", "verify")
    assert (done.out, done.err) == ("", "the book adds up\n")


def test_what_does_not_add_up_is_told_and_repaired(book: Book) -> None:
    id = draw(book, cost=1000)
    break_drawing(book, id)
    done = book("ledger", "verify")
    assert done.status == 1
    assert done.out == f"drawing {id}: spent is 0.000000007, and its entries say 0.000001\n"
    done = book.carry_out("ledger", "verify", "--repair")
    assert done.err == "repaired: 1\nthe book adds up\n"
    assert book("ledger", "verify").status == 0


@pytest.mark.parametrize(("how", "state", "cost"), [("--paid", "settled", 50), ("--unpaid", "released", 0)])
def test_a_drawing_in_doubt_is_resolved_once(book: Book, how: str, state: str, cost: int) -> None:
    id = draw(book, in_doubt=50)
    assert how.removeprefix("--") in book.carry_out("ledger", "resolve", id, how).err
    sql = "select state, cost_nano, in_doubt_nano from drawing"
    [row] = book.ask(lambda registry: registry.database.query(sql))
    assert tuple(row) == (state, cost, 0)
    sql = "select actor_kind, action, object_kind, object_id, after from audit"
    [line] = book.ask(lambda registry: registry.database.query(sql))
    assert tuple(line[:4]) == ("command", "resolve", "drawing", id)
    assert json.loads(line[4]) == {"paid": how == "--paid"}
    done = book("ledger", "resolve", id, how)
    assert (done.status, done.err) == (
        1,
        f"No drawing {id!r} is in doubt. It is resolved already, or has another id.\n",
    )


def test_whether_it_was_paid_has_to_be_said(book: Book) -> None:
    done = book("ledger", "resolve", "any")
    assert done.status == 2
    assert "--paid" in re.sub(r"[\s│]+", " ", done.err)
