"""The text of an issued key: made, recognised, and turned into the digest that is stored. Holds no key.

    igk_ Ab3dE6gH 0123456789abcdefghijABCDEFGHIJ01 2cK9xZ
    kind    id               random                checksum

The kind is `igk_`, or `iga_` for an admin key. The id names the key in lists and logs, and a rotation inherits it. The
checksum distinguishes a badly copied key from one that was never issued, and lets scanners find keys in texts.
"""

from __future__ import annotations

import hmac
import re
import string
from collections.abc import Callable
from dataclasses import dataclass, field
from zlib import crc32

ALPHABET = string.digits + string.ascii_uppercase + string.ascii_lowercase
ORDINARY, ADMIN = "igk_", "iga_"
ID_LENGTH = 8
RANDOM_LENGTH = 32  # of 62 characters: 190 bits
CHECKSUM_LENGTH = 6  # 32 bits in base 62

Choose = Callable[[str], str]  # picks one character of a text: `secrets.choice`

_FORM = re.compile(
    rf"({ORDINARY}|{ADMIN})([0-9A-Za-z]{{{ID_LENGTH}}})[0-9A-Za-z]{{{RANDOM_LENGTH + CHECKSUM_LENGTH}}}", re.ASCII
)


@dataclass(frozen=True, slots=True)
class KeyText:
    """A key as its caller sends it."""

    text: str = field(repr=False)
    id: str
    is_admin: bool

    def digest(self, pepper: bytes) -> bytes:
        """Return the digest that is stored. Without the pepper it cannot confirm a guess of the key."""
        return hmac.digest(pepper, self.text.encode(), "sha256")


def new_key(choose: Choose, *, is_admin: bool, id: str | None = None) -> KeyText:
    """Make a key, or another text for the key with this id."""
    id = id or _random(choose, ID_LENGTH)
    body = f"{ADMIN if is_admin else ORDINARY}{id}{_random(choose, RANDOM_LENGTH)}"
    return KeyText(body + _checksum(body), id, is_admin)


def resembles_key(text: str) -> bool:
    """True if a text begins like an issued key."""
    return text.startswith((ORDINARY, ADMIN))


def parse_key(text: str) -> KeyText | None:
    """Read an issued key. None: it is no key, or was copied badly."""
    match = _FORM.fullmatch(text)
    if match is None or _checksum(text[:-CHECKSUM_LENGTH]) != text[-CHECKSUM_LENGTH:]:
        return None
    return KeyText(text, match[2], match[1] == ADMIN)


def stable_id(kind: str, name: str, length: int = ID_LENGTH) -> str:
    """Return the id of something that the configuration names: always the same one for a name."""
    number = int.from_bytes(hmac.digest(b"image-gateway id 1", f"{kind}\n{name}".encode(), "sha256"), "big")
    return _base62(number, length)


def _random(choose: Choose, length: int) -> str:
    return "".join(choose(ALPHABET) for _ in range(length))


def _checksum(body: str) -> str:
    return _base62(crc32(body.encode()), CHECKSUM_LENGTH)


def _base62(number: int, length: int) -> str:
    """Return the last `length` digits of a number."""
    digits = []
    for _ in range(length):
        number, digit = divmod(number, len(ALPHABET))
        digits.append(ALPHABET[digit])
    return "".join(reversed(digits))
