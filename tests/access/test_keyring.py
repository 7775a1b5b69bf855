from __future__ import annotations

import hmac
import secrets
from dataclasses import replace
from hashlib import sha256

import pytest

from app.access.key_text import KeyText, new_key
from app.access.keyring import ANONYMOUS, IssuedKeys, Key, Keyring, StatedKey
from app.access.wrong_keys import WrongKeys
from app.errors import ApiError, Forbidden, RateLimited, Unauthenticated
from app.images import Operation
from app.ledger.values.directory import ApiKey, Directory, Project
from app.ledger.values.limits import Limits

PEPPER = b"pepper"
DESIGN = Project("proj_design", "design", 0, limits=Limits(images_per_minute=100))


def key(name: str = "team", secret: str = "secret", **more: object) -> StatedKey:
    return StatedKey(sha256(secret.encode()).digest(), Key(name, name, **more))  # type: ignore[arg-type]


class Book:
    """A directory that changes, its issued keys, and the keyring over both."""

    def __init__(self, *stated: StatedKey, is_sandbox: bool = False) -> None:
        self.now = 1000.0
        self.directory = Directory()
        self.used = list[str]()
        self.issued = IssuedKeys(PEPPER, lambda: self.directory, lambda: self.now, self.used.append)
        wrong = WrongKeys(lambda: self.now)
        self.keyring = Keyring(stated, self.issued, wrong, is_sandbox=is_sandbox)

    def issue(self, *, is_admin: bool = False, **fields: object) -> KeyText:
        text = new_key(secrets.choice, is_admin=is_admin)
        made = replace(ApiKey(text.id, "laptop", text.digest(PEPPER), DESIGN.id), **fields)  # type: ignore[arg-type]
        self.have(made)
        return text

    def have(self, *keys: ApiKey, projects: tuple[Project, ...] = (DESIGN,)) -> None:
        """A new directory, as after a change."""
        known = {each.id: each for each in (*self.directory.keys.values(), *keys)}
        self.directory = Directory(self.directory.revision + 1, {each.id: each for each in projects}, known)

    def change(self, text: KeyText, **fields: object) -> None:
        self.have(replace(self.directory.keys[text.id], **fields))  # type: ignore[arg-type]

    def ask(self, text: KeyText | str, address: str | None = None) -> Key:
        secret = text if isinstance(text, str) else text.text
        return self.keyring.authenticate(f"Bearer {secret}", address=address)

    def refusal(self, text: KeyText | str, address: str | None = None) -> ApiError:
        with pytest.raises(ApiError) as caught:
            self.ask(text, address)
        return caught.value


# --- keys of the configuration ---


@pytest.mark.parametrize(
    "header", ["Bearer secret", "bearer secret", "BEARER secret", "Bearer  secret", "Bearer secret ", "Bearer \tsecret"]
)
def test_a_key_is_known_however_the_header_is_written(header: str) -> None:
    known = key()
    assert Keyring([key("other", "other-secret"), known]).authenticate(header) is known.key


def test_a_key_in_the_header_of_azures_clients_is_known() -> None:
    known = key()
    assert Keyring([known]).authenticate(None, "secret") is known.key
    assert Keyring([known]).authenticate("Basic x", " secret ") is known.key


@pytest.mark.parametrize(
    "header", [None, "", "Bearer", "Bearer ", "Bearer   ", "Basic secret", "secret", "Bearersecret"]
)
def test_a_caller_without_a_key_reads_how_to_send_one(header: str | None) -> None:
    with pytest.raises(Unauthenticated) as caught:
        Keyring([key()]).authenticate(header)
    assert (caught.value.status, caught.value.code) == (401, None)
    assert "Authorization: Bearer" in caught.value.message
    assert "api-key" in caught.value.message


@pytest.mark.parametrize("header", [None, "", "Bearer", "Bearer ", "Basic c2VjcmV0"])
@pytest.mark.parametrize("api_key", ["secret", " secret "])
def test_a_key_is_known_by_the_header_of_azures_clients(header: str | None, api_key: str) -> None:
    known = key("team")
    assert Keyring([key("other", "other-secret"), known]).authenticate(header, api_key) is known.key


def test_a_bearer_key_goes_before_an_api_key() -> None:
    keyring = Keyring([key("team")])
    assert keyring.authenticate("Bearer secret", "wrong").name == "team"
    with pytest.raises(Unauthenticated, match="Incorrect API key provided"):
        keyring.authenticate("Bearer wrong", "secret")


@pytest.mark.parametrize("secret", ["wrong", "Secret", "secret2", "secre", "sk-0123456789abcdef", "\xe9", "a" * 10_000])
def test_a_wrong_key_is_refused_and_not_repeated(secret: str) -> None:
    with pytest.raises(Unauthenticated) as caught:
        Keyring([key()]).authenticate(f"Bearer {secret}")
    assert (caught.value.status, caught.value.code) == (401, "invalid_api_key")
    assert secret not in caught.value.message


def test_the_refusal_quotes_enough_of_a_wrong_key_to_recognise_it() -> None:
    with pytest.raises(Unauthenticated, match=r"sk-…cdef\."):
        Keyring([key()]).authenticate("Bearer sk-0123456789abcdef")


def test_every_key_is_compared_in_constant_time_wherever_the_right_one_stands(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[tuple[bytes, bytes]] = []

    def compare(a: bytes, b: bytes) -> bool:
        compared.append((a, b))
        return hmac.compare_digest(a, b)

    keys = [key(f"key {number}", f"secret {number}") for number in range(5)]
    keyring = Keyring(keys)
    monkeypatch.setattr("app.access.keyring.hmac", type("Hmac", (), {"compare_digest": staticmethod(compare)}))
    for number in range(5):
        compared.clear()
        assert keyring.authenticate(f"Bearer secret {number}") is keys[number].key
        assert [a for a, _ in compared] == [each.sha256 for each in keys]
        assert {len(b) for _, b in compared} == {32}


def test_a_stated_keys_project_is_the_directorys_of_that_name() -> None:
    book = Book(key(project=Project("proj_file", "design", 0)))
    assert book.ask("secret").project == Project("proj_file", "design", 0)
    book.have()
    assert book.ask("secret").project == DESIGN


def test_stated_keys_are_listed_with_the_directorys_project_and_without_their_texts() -> None:
    book = Book(key(project=Project("proj_file", "design", 0), models=("flux/*",)))
    book.have()
    assert book.keyring.stated_keys() == (ApiKey("team", "team", b"", DESIGN.id, models=("flux/*",), source="file"),)


# --- the door ---


@pytest.mark.parametrize("header", [None, "", "Bearer x", "Basic y"])
def test_without_any_key_every_caller_is_let_in(header: str | None) -> None:
    assert Keyring([]).authenticate(header) is ANONYMOUS
    assert Book().keyring.authenticate(header) is ANONYMOUS


def test_the_first_key_closes_the_door_and_deleting_the_last_does_not_open_it() -> None:
    book = Book()
    assert not book.keyring.is_closed
    text = book.issue()
    assert book.keyring.is_closed
    assert book.ask(text).name == "laptop"
    book.directory = Directory(9)
    assert book.keyring.is_closed
    assert book.refusal(text).status == 401
    with pytest.raises(Unauthenticated):
        book.keyring.authenticate(None)


def test_a_deleted_key_is_refused_although_nobody_asked_whether_the_door_is_closed() -> None:
    book = Book()
    text = book.issue()
    assert book.ask(text).id == text.id
    book.directory = Directory(9)
    assert book.refusal(text).status == 401


def test_a_key_that_was_deleted_before_anybody_looked_closes_the_door() -> None:
    book = Book()
    assert not book.keyring.is_closed
    book.directory = Directory(2, has_had_keys=True)
    assert book.keyring.is_closed
    book.directory = Directory(3)
    assert book.keyring.is_closed


def test_in_the_sandbox_keys_count_and_close_nothing() -> None:
    book = Book(is_sandbox=True)
    text = book.issue()
    assert book.ask(text).id == text.id
    assert book.ask("anything") is ANONYMOUS
    assert book.keyring.authenticate(None) is ANONYMOUS
    assert not book.keyring.is_closed


# --- issued keys ---


def test_an_issued_key_brings_what_the_directory_says_of_it() -> None:
    book = Book()
    text = book.issue(
        scopes=("draw", "usage"),
        models=("openai/*",),
        operations=("edits",),
        limits=Limits(requests_per_minute=5),
        default_response_format="url",
    )
    found = book.ask(text)
    assert found == Key(
        text.id, "laptop", DESIGN, ("draw", "usage"), ("openai/*",), ("edits",), Limits(requests_per_minute=5), "url"
    )
    assert [limit.scope for limit in found.all_limits()] == [f"key:{text.id}:requests", "project:proj_design:images"]
    assert book.used == [text.id]
    assert book.ask(text) is found  # made once for each directory


def test_a_changed_key_is_another_one_at_the_next_request() -> None:
    book = Book()
    text = book.issue()
    assert book.ask(text).models == ()
    book.change(text, models=("a",))
    assert book.ask(text).models == ("a",)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"disabled_at": 1}, "has been disabled"),
        ({"disabled_at": 1, "disabled_why": "leaked"}, r"has been disabled \(leaked\)"),
        ({"expires_at": 1_000_000_000}, "has expired"),
    ],
)
def test_a_key_that_is_no_longer_good_is_refused_with_the_reason(change: dict[str, object], words: str) -> None:
    book = Book()
    text = book.issue()
    book.change(text, **change)
    error = book.refusal(text)
    assert (error.status, error.code) == (401, "invalid_api_key")
    assert pytest.approx(1000) == book.now
    with pytest.raises(Unauthenticated, match=words):
        book.ask(text)
    assert book.used == []


def test_a_key_is_good_until_the_moment_it_expires() -> None:
    book = Book()
    text = book.issue(expires_at=1_000_000_001)
    assert book.ask(text)
    book.now += 0.000002
    assert book.refusal(text).status == 401


def test_a_rotated_key_is_good_by_both_texts_until_the_grace_has_passed() -> None:
    book = Book()
    old = book.issue()
    new = new_key(secrets.choice, is_admin=False, id=old.id)
    book.change(old, digest=new.digest(PEPPER), previous_digest=old.digest(PEPPER), previous_until=1_060_000_000)
    assert book.ask(old).id == book.ask(new).id == old.id
    book.now += 60
    assert book.ask(new).id == old.id
    assert book.refusal(old).code == "invalid_api_key"


def test_the_keys_of_an_archived_project_draw_no_more() -> None:
    book = Book()
    text = book.issue()
    book.have(projects=(replace(DESIGN, archived_at=5),))
    error = book.refusal(text)
    assert (error.status, error.code, error.should_retry) == (403, "project_archived", False)
    assert "'design'" in error.message


def test_a_key_of_another_pepper_is_unknown() -> None:
    book = Book()
    text = new_key(secrets.choice, is_admin=False)
    book.have(ApiKey(text.id, "laptop", text.digest(b"another"), DESIGN.id))
    assert book.refusal(text).code == "invalid_api_key"


def test_a_key_that_was_copied_badly_is_told_from_one_that_nobody_issued() -> None:
    book = Book(key())
    stranger = new_key(secrets.choice, is_admin=False)
    assert "checksum" not in book.refusal(stranger).message
    assert "checksum" in book.refusal(stranger.text[:-1]).message


# --- scopes and operations ---


def test_admin_keys_do_not_draw_and_ordinary_keys_do_not_administrate() -> None:
    book = Book()
    admin = book.ask(book.issue(is_admin=True, scopes=("admin",)))
    ordinary = book.ask(book.issue())
    for scope in ("admin", "usage", "metrics"):
        admin.require(scope)
        with pytest.raises(Forbidden) as caught:
            ordinary.require(scope)
        assert (caught.value.status, caught.value.code) == (403, "insufficient_scope")
    ordinary.require("draw")
    with pytest.raises(Forbidden, match="admin keys do not draw"):
        admin.require("draw")
    ANONYMOUS.require("draw")


@pytest.mark.parametrize(
    ("globs", "may"), [((), True), (("*",), True), (("edits",), True), (("gen*",), False), (("gen*", "ed*"), True)]
)
def test_a_key_may_ask_for_the_operations_that_its_globs_name(globs: tuple[str, ...], may: bool) -> None:
    found = Key("a", "a", operations=globs)
    if may:
        found.require_operation(Operation.EDITS)
        return
    with pytest.raises(Forbidden, match="may not ask for edits: its operations are gen") as caught:
        found.require_operation(Operation.EDITS)
    assert (caught.value.status, caught.value.code) == (403, "operation_not_allowed")


@pytest.mark.parametrize(
    ("globs", "names", "may"),
    [
        ((), ["any"], True),
        (("*",), ["any/thing"], True),
        (("black-forest-labs/*",), ["black-forest-labs/FLUX.1-schnell"], True),
        (("black-forest-labs/*",), ["stabilityai/sdxl"], False),
        (("flux",), ["black-forest-labs/FLUX.1-schnell", "flux"], True),
        (("FLUX",), ["flux"], False),
        (("flux",), ["flux-2"], False),
        (("flux-?",), ["flux-2"], True),
        (("a", "b*"), ["bc"], True),
        (("a", "*"), ["z"], True),
    ],
)
def test_a_key_may_use_what_its_globs_name(globs: tuple[str, ...], names: list[str], may: bool) -> None:
    assert Key("a", "a", models=globs).may_use(*names) is may


# --- many wrong keys ---


def test_after_many_wrong_keys_an_address_is_slowed_down_and_right_keys_from_it_are_served() -> None:
    book = Book(key())
    assert [book.refusal("wrong", "192.0.2.1").status for _ in range(21)] == [401] * 20 + [429]
    error = book.refusal("wrong", "192.0.2.1")
    assert isinstance(error, RateLimited)
    assert (error.code, error.should_retry) == ("rate_limit_exceeded", False)
    assert error.retry_after == pytest.approx(3)
    assert book.ask("secret", "192.0.2.1").name == "team"
    assert book.refusal("wrong", "192.0.2.2").status == 401
    book.now += 3
    assert book.refusal("wrong", "192.0.2.1").status == 401
