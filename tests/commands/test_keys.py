from __future__ import annotations

import json
import re
import time

import pytest

from app.errors import Unauthenticated
from app.ledger.values.directory import encode
from app.ledger.values.limits import Limits
from tests.commands.conftest import Book


def create(book: Book, *more: str, name: str = "laptop") -> str:
    return book.carry_out("keys", "create", "--project", "design", "--name", name, *more).lines[0]


def listed(book: Book, name: str = "laptop") -> dict[str, object]:
    [found] = [key for key in book.carry_out("keys", "list", "--json").json if key["name"] == name]
    assert isinstance(found, dict)
    return found


# --- create ---


def test_a_new_key_stands_alone_on_standard_output_and_a_gateway_knows_it(book: Book) -> None:
    done = book.carry_out("keys", "create", "--project", "design", "--name", "laptop")
    [text] = done.lines
    assert re.fullmatch(r"igk_[0-9A-Za-z]{46}", text)
    assert text not in done.err
    assert "project 'design' did not exist and was made: proj_" in done.err
    assert "shown this once" in done.err
    key = book.issued(time.time()).find(text)
    assert key is not None
    assert key.project is not None
    assert (key.id, key.name, key.project.name, key.scopes) == (text[4:12], "laptop", "design", ("draw",))


def test_a_project_that_exists_is_taken_by_its_name_or_its_id(book: Book) -> None:
    project = book.carry_out("projects", "create", "design").lines[0]
    assert "did not exist" not in book.carry_out("keys", "create", "--project", "design", "--name", "a").err
    book.carry_out("keys", "create", "--project", project, "--name", "b")
    assert {key["project_id"] for key in book.carry_out("keys", "list", "--json").json if "project_id" in key} == {
        project
    }


def test_a_key_has_the_limits_globs_scopes_and_end_that_were_said(book: Book) -> None:
    limits = ("requests", "images", "megapixels")
    options = [word for n, limit in enumerate(limits, 1) for word in (f"--{limit}-per-minute", str(n))]
    text = create(
        book,
        *(*options, "--max-concurrency", "4", "--models", "a/*,b", "--models", "c", "--operations", "ed*"),
        *("--scope", "draw", "--scope", "usage", "--expires", "90d"),
    )
    now = time.time()
    key = book.issued(now).find(text)
    assert key is not None
    assert (key.models, key.operations, key.scopes) == (("a/*", "b", "c"), ("ed*",), ("draw", "usage"))
    assert key.limits == Limits(1, 2, 3, 4)
    assert book.issued(now + 90 * 86400 - 100).find(text) is not None
    with pytest.raises(Unauthenticated, match="has expired"):
        book.issued(now + 90 * 86400 + 100).find(text)


def test_an_admin_key_has_no_project_and_does_not_draw(book: Book) -> None:
    text = book.carry_out("keys", "create", "--admin", "--name", "root").lines[0]
    assert text.startswith("iga_")
    key = book.issued(time.time()).find(text)
    assert key is not None
    assert (key.scopes, key.project, key.has_scope("draw")) == (("admin",), None, False)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--name", "x"), "--project"),
        (("--admin", "--project", "p", "--name", "x"), "--admin"),
        (("--project", "p", "--name", "x", "--expires", "soon"), "no span of time"),
        (("--project", "p", "--name", "x", "--operations", "drawing"), "no operation"),
        (("--project", "p", "--name", "x", "--scope", "admin"), "'admin' is not one of"),
        (("--project", "p", "--name", "x", "--images-per-minute", "0"), "--images-per-minute"),
        (("--project", "p", "--name", "\n"), "--name"),
    ],
)
def test_what_cannot_be_made_is_refused_with_the_option(book: Book, options: tuple[str, ...], words: str) -> None:
    done = book("keys", "create", *options)
    assert (done.status, done.out) == (2, "")
    assert words in re.sub(r"[\s│]+", " ", done.err)
    assert not (book.folder / "data").exists()


def test_no_file_holds_the_key(book: Book) -> None:
    text = create(book)
    rotated = book.carry_out("keys", "rotate", "laptop").lines[0]
    for path in (book.folder / "data").rglob("*"):
        content = path.read_bytes()
        for secret in (text, rotated, text[12:44], rotated[12:44]):
            assert secret.encode() not in content, path


# --- list ---


def test_the_list_has_keys_of_the_database_and_of_the_configuration(book: Book) -> None:
    text = create(book, "--images-per-minute", "20")
    table = book.carry_out("keys", "list")
    assert table.lines[0].split() == [
        *("id", "name", "project", "scopes", "models", "limits", "state", "last", "used", "source"),
    ]
    rows = {line.split()[1]: line for line in table.lines[1:]}
    assert set(rows) == {"ci", "laptop"}
    assert rows["ci"].endswith("file")
    assert text[4:12] in rows["laptop"]
    assert "20 images per minute" in rows["laptop"]
    assert rows["laptop"].endswith("database")
    assert text not in table.out
    assert listed(book, "ci")["source"] == "file"
    assert (listed(book)["state"], listed(book)["limits"]) == ("active", {"images_per_minute": 20})


# --- changes ---


def test_a_disabled_key_is_refused_until_it_is_enabled(book: Book) -> None:
    text = create(book)
    book.carry_out("keys", "disable", "laptop")
    assert listed(book)["state"] == "disabled"
    with pytest.raises(Unauthenticated, match="has been disabled"):
        book.issued(time.time()).find(text)
    book.carry_out("keys", "enable", text[4:12])
    assert listed(book)["state"] == "active"
    assert book.issued(time.time()).find(text) is not None


def test_a_rotated_key_keeps_its_id_and_its_old_text_for_the_grace(book: Book) -> None:
    old = create(book)
    done = book.carry_out("keys", "rotate", "laptop", "--grace", "1h")
    [new] = done.lines
    assert new[:12] == old[:12]
    assert new != old
    now = time.time()
    found = [book.issued(now).find(text) for text in (old, new)]
    assert [key.id for key in found if key] == [old[4:12]] * 2
    assert book.issued(now + 3601).find(old) is None
    assert book.issued(now + 3601).find(new) is not None


def test_a_rotation_without_grace_ends_the_old_text_at_once(book: Book) -> None:
    old = create(book)
    book.carry_out("keys", "rotate", "laptop", "--grace", "0s")
    assert book.issued(time.time()).find(old) is None


def test_a_deleted_key_is_gone_and_the_door_stays_closed(book: Book) -> None:
    text = create(book)
    book.carry_out("keys", "delete", "laptop")
    assert book.issued(time.time()).find(text) is None
    assert "laptop" not in book.carry_out("keys", "list").out
    assert book.ask(lambda registry: registry.database.query("select count(*) from api_key"))[0][0] == 1


def test_a_name_of_several_keys_is_refused_with_their_ids(book: Book) -> None:
    ids = [create(book)[4:12] for _ in range(2)]
    done = book("keys", "disable", "laptop")
    assert done.status == 1
    assert all(id in done.err for id in ids)
    book.carry_out("keys", "disable", ids[0])


@pytest.mark.parametrize("command", ["disable", "enable", "rotate", "delete"])
def test_a_key_that_is_not_there_or_stands_in_the_configuration_is_refused(book: Book, command: str) -> None:
    done = book("keys", command, "nobody")
    assert (done.status, done.out) == (1, "")
    assert done.err == "There is no key 'nobody'. `image-gateway keys list` shows all of them.\n"
    done = book("keys", command, "ci")
    assert (done.status, done.err) == (1, "Key 'ci' stands in the configuration. Change it there.\n")


def test_changes_are_in_the_audit_log_without_any_digest(book: Book) -> None:
    create(book)
    book.carry_out("keys", "rotate", "laptop")
    book.carry_out("keys", "delete", "laptop")
    rows = book.ask(lambda registry: registry.database.query('select action, actor_kind, "before", after from audit'))
    assert [(row[0], row[1]) for row in rows] == [
        ("create", "command"),
        ("create", "command"),
        ("rotate", "command"),
        ("delete", "command"),
    ]
    told = "".join(str(row[2:]) for row in rows)
    assert '"digest"' not in told
    assert not re.search(r"[0-9a-f]{64}", told)


# --- the door ---


def serve_everywhere(book: Book) -> None:
    config = json.loads(book.file.read_text())
    book.file.write_text(json.dumps({**config, "keys": [], "server": {"host": "0.0.0.0"}}))


def test_issued_keys_let_the_gateway_listen_elsewhere_also_deleted_ones(book: Book) -> None:
    serve_everywhere(book)
    done = book("check")
    assert done.status == 1
    assert "server.host: '0.0.0.0' is not a loopback address" in done.err
    assert not (book.folder / "data").exists()
    create(book)
    assert "issued" in book.carry_out("check").out
    book.carry_out("keys", "delete", "laptop")
    book.carry_out("check")


def test_while_the_database_cannot_be_used_the_copy_of_the_directory_tells(book: Book) -> None:
    create(book)
    directory = book.ask(lambda registry: registry.directory())
    serve_everywhere(book)
    (book.folder / "data/gateway.db").write_text("no database any more, this is something else")
    assert book("check").status == 1
    (book.folder / "data/directory.json").write_text(encode(directory))
    book.carry_out("check")


# --- the database ---


def test_a_database_that_cannot_be_used_is_told_in_a_line(book: Book) -> None:
    (book.folder / "data").write_text("a file in its place")
    done = book("keys", "list")
    assert (done.status, done.out) == (1, "")
    assert len(done.err.splitlines()) == 1
    assert "data" in done.err


def test_in_the_sandbox_a_note_says_that_it_has_a_book_of_its_own(tmp_path_factory: pytest.TempPathFactory) -> None:
    book = Book(tmp_path_factory.mktemp("sandbox"), {})
    done = book.carry_out("keys", "list")
    assert "no provider is configured" in done.err
    assert done.out == "There is no key.\n"
