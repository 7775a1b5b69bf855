from __future__ import annotations

from tests.commands.conftest import Book


def test_a_project_is_made_listed_and_archived(book: Book) -> None:
    [id] = book.carry_out("projects", "create", "design", "--images-per-minute", "50").lines
    assert id.startswith("proj_")
    book.carry_out("keys", "create", "--project", "design", "--name", "laptop")
    [project] = book.carry_out("projects", "list", "--json").json
    assert (project["id"], project["name"], project["keys"], project["state"]) == (id, "design", 1, "active")
    assert project["limits"] == {"images_per_minute": 50}
    assert book.carry_out("projects", "list").lines[1].split()[:4] == [id, "design", "1", "active"]
    book.carry_out("projects", "archive", "design")
    [project] = book.carry_out("projects", "list", "--json").json
    assert project["state"] == "archived"
    done = book("keys", "create", "--project", "design", "--name", "another")
    assert (done.status, done.out) == (1, "")
    assert "is archived" in done.err


def test_a_name_is_taken_once(book: Book) -> None:
    book.carry_out("projects", "create", "design")
    done = book("projects", "create", "design")
    assert (done.status, done.out) == (1, "")
    assert "There is a project 'design' already" in done.err


def test_a_project_that_is_not_there_cannot_be_archived(book: Book) -> None:
    done = book("projects", "archive", "nobody")
    assert (done.status, done.err) == (
        1,
        "There is no project 'nobody'. `image-gateway projects list` shows all of them.\n",
    )


def test_without_projects_the_list_says_so(book: Book) -> None:
    assert book.carry_out("projects", "list").out == "There is no project.\n"
    assert book.carry_out("projects", "list", "--json").json == []
