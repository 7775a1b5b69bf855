from __future__ import annotations

import hmac
from hashlib import sha256

import pytest

from app.access.keyring import ANONYMOUS, Key, Keyring
from app.errors import Unauthenticated


def key(name: str, secret: str = "secret", **more: object) -> Key:
    return Key(name, sha256(secret.encode()).digest(), **more)  # type: ignore[arg-type]


# --- authentication ---


@pytest.mark.parametrize(
    "header", ["Bearer secret", "bearer secret", "BEARER secret", "Bearer  secret", "Bearer secret ", "Bearer \tsecret"]
)
def test_a_key_is_known_however_the_header_is_written(header: str) -> None:
    known = key("team")
    assert Keyring([key("other", "other-secret"), known]).authenticate(header) is known


@pytest.mark.parametrize(
    "header", [None, "", "Bearer", "Bearer ", "Bearer   ", "Basic secret", "secret", "Bearersecret"]
)
def test_a_caller_without_a_key_reads_how_to_send_one(header: str | None) -> None:
    with pytest.raises(Unauthenticated) as caught:
        Keyring([key("team")]).authenticate(header)
    assert (caught.value.status, caught.value.code) == (401, None)
    assert "Authorization" in caught.value.message


@pytest.mark.parametrize("secret", ["wrong", "Secret", "secret2", "secre", "sk-0123456789abcdef", "\xe9", "a" * 10_000])
def test_a_wrong_key_is_refused_and_not_repeated(secret: str) -> None:
    with pytest.raises(Unauthenticated) as caught:
        Keyring([key("team")]).authenticate(f"Bearer {secret}")
    assert (caught.value.status, caught.value.code) == (401, "invalid_api_key")
    assert secret not in caught.value.message


def test_the_refusal_quotes_enough_of_a_wrong_key_to_recognise_it() -> None:
    with pytest.raises(Unauthenticated, match=r"sk-…cdef\."):
        Keyring([key("team")]).authenticate("Bearer sk-0123456789abcdef")


@pytest.mark.parametrize("header", [None, "", "Bearer x", "Basic y"])
def test_without_any_key_every_caller_is_let_in(header: str | None) -> None:
    assert Keyring([]).authenticate(header) is ANONYMOUS


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
        assert keyring.authenticate(f"Bearer secret {number}") is keys[number]
        assert [a for a, _ in compared] == [each.sha256 for each in keys]
        assert {len(b) for _, b in compared} == {32}


# --- models ---


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
    assert key("team", models=globs).may_use(*names) is may
