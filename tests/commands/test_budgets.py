from __future__ import annotations

import re

import pytest

from app.config.inventory import key_id
from tests.commands.conftest import Book


def listed(book: Book) -> list[dict[str, object]]:
    found = book.carry_out("budgets", "list", "--json").json
    assert isinstance(found, list)
    return found


def test_a_budget_of_a_project_is_set_listed_and_removed(book: Book) -> None:
    book.carry_out("projects", "create", "design")
    [id] = book.carry_out(
        *("budgets", "set", "--project", "design", "--amount", "50.5", "--window", "month"),
        *("--timezone", "Europe/Prague", "--models", "a/*,b", "--thresholds", "100,50", "--soft"),
    ).lines
    [budget] = listed(book)
    shown = {name: budget[name] for name in ("id", "scope", "owner", "models", "window", "timezone", "amount", "hard")}
    assert shown == {
        "id": id,
        "scope": "project",
        "owner": "design",
        "models": ["a/*", "b"],
        "window": "month",
        "timezone": "Europe/Prague",
        "amount": "50.500000",
        "hard": False,
    }
    assert budget["thresholds"] == [50, 100]
    assert "project design" in book.carry_out("budgets", "list").lines[1]
    book.carry_out("budgets", "remove", id)
    assert listed(book) == []
    assert book.carry_out("budgets", "list").out == "There is no budget.\n"


def test_a_budget_that_counts_the_same_gets_the_new_amount(book: Book) -> None:
    first = book.carry_out("budgets", "set", "--all", "--amount", "5", "--window", "day").out
    again = book.carry_out("budgets", "set", "--all", "--amount", "7", "--window", "day", "--soft")
    assert again.out == first
    assert "has the new amount" in again.err
    other = book.carry_out("budgets", "set", "--all", "--amount", "7", "--window", "week").out
    assert other != first
    assert [(budget["window"], budget["amount"], budget["hard"]) for budget in listed(book)] in (
        [("day", "7.000000", False), ("week", "7.000000", True)],
        [("week", "7.000000", True), ("day", "7.000000", False)],
    )


@pytest.mark.parametrize(("models", "same"), [("a,b", "b,a"), ("a,b", "a,b,b"), ("*", ""), ("a,*", "*")])
def test_the_order_of_models_makes_no_second_budget(book: Book, models: str, same: str) -> None:
    options = ("--all", "--window", "day", "--amount", "5")
    first = book.carry_out("budgets", "set", *options, "--models", models).out
    assert book.carry_out("budgets", "set", *options, *(("--models", same) if same else ())).out == first
    assert len(listed(book)) == 1


def test_a_budget_of_a_key_takes_its_id_its_name_or_a_key_of_the_configuration(book: Book) -> None:
    text = book.carry_out("keys", "create", "--project", "design", "--name", "laptop").lines[0]
    first = book.carry_out("budgets", "set", "--key", "laptop", "--amount", "1", "--window", "day").out
    again = book.carry_out("budgets", "set", "--key", text[4:12], "--amount", "2", "--window", "day").out
    assert first == again
    book.carry_out("budgets", "set", "--key", "ci", "--amount", "3", "--window", "total")
    assert {(budget["scope_id"], budget["owner"]) for budget in listed(book)} == {
        (text[4:12], "laptop"),
        (key_id("ci"), "ci"),
    }


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--amount", "5", "--window", "day"), "--project, --key or --all"),
        (("--all", "--key", "ci", "--amount", "5", "--window", "day"), "--project, --key or --all"),
        (("--all", "--amount", "lots", "--window", "day"), "no amount of money"),
        (("--all", "--amount", "-1", "--window", "day"), "a number above 0"),
        (("--all", "--amount", "5", "--window", "year"), "'year' is not one of"),
        (("--all", "--amount", "5", "--window", "day", "--timezone", "Mars"), "no time zone"),
        (("--all", "--amount", "5", "--window", "day", "--thresholds", "half"), "whole numbers"),
        (("--all", "--amount", "5", "--window", "day", "--thresholds", "0"), "no percentage"),
    ],
)
def test_what_cannot_be_set_is_refused_with_the_option(book: Book, options: tuple[str, ...], words: str) -> None:
    done = book("budgets", "set", *options)
    assert (done.status, done.out) == (2, "")
    assert words in re.sub(r"[\s│]+", " ", done.err)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("set", "--project", "nobody", "--amount", "5", "--window", "day"), "There is no project 'nobody'"),
        (("set", "--key", "nobody", "--amount", "5", "--window", "day"), "There is no key 'nobody'"),
        (("remove", "bud_nobody"), "There is no budget 'bud_nobody'"),
    ],
)
def test_an_owner_or_a_budget_that_is_not_there_is_told(book: Book, arguments: tuple[str, ...], words: str) -> None:
    done = book("budgets", *arguments)
    assert (done.status, done.out) == (1, "")
    assert words in done.err


def test_a_budget_of_nothing_which_the_administration_can_set_is_listed(
    book: Book, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.catalog.money.to_nano", lambda _: 0)
    book.carry_out("budgets", "set", "--all", "--amount", "5", "--window", "day")
    monkeypatch.undo()
    assert "100 %" in book.carry_out("budgets", "list").lines[1]
