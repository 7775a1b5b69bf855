"""API keys: they name a caller and state its limits. All of it comes from the configuration. Knows no HTTP but the
text of one header, and not how much a key has used."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase

from app.errors import Unauthenticated
from app.images import ResponseFormat


@dataclass(frozen=True, slots=True)
class Key:
    """An API key. Without `models` it may use every model. A limit that is None does not exist."""

    name: str
    sha256: bytes
    models: tuple[str, ...] = ()
    requests_per_minute: int | None = None
    max_concurrency: int | None = None
    default_response_format: ResponseFormat | None = None

    def may_use(self, *names: str) -> bool:
        """True if one of a model's names is on the key's list."""
        return self.models in ((), ("*",)) or any(fnmatchcase(name, glob) for glob in self.models for name in names)


ANONYMOUS = Key("anonymous", b"")  # every caller of a gateway that has no keys


class Keyring:
    """All keys of one configuration. Without any key every caller is let in, as `ANONYMOUS`."""

    def __init__(self, keys: Iterable[Key]) -> None:
        self._keys = tuple(keys)

    def authenticate(self, authorization: str | None) -> Key:
        """Find the key of an `Authorization` header. Raises Unauthenticated."""
        if not self._keys:
            return ANONYMOUS
        scheme, _, secret = (authorization or "").partition(" ")
        secret = secret.strip()
        if scheme.lower() != "bearer" or not secret:
            raise Unauthenticated(
                "You didn't provide an API key. Send the key that the gateway's operator gave you in the "
                "Authorization header: 'Authorization: Bearer YOUR_KEY'."
            )
        digest = hashlib.sha256(secret.encode()).digest()
        # Compare with all of them, so that the time taken does not tell which one it was.
        found = [key for key in self._keys if hmac.compare_digest(key.sha256, digest)]
        if not found:
            raise Unauthenticated(
                f"Incorrect API key provided: {_hint(secret)}. Ask the gateway's operator for a key.",
                code="invalid_api_key",
            )
        return found[-1]


def _hint(secret: str) -> str:
    """Quote enough of a wrong key to recognise it, and too little to use it."""
    return f"{secret[:3]}…{secret[-4:]}" if len(secret) >= 12 else "…"
