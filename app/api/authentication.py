"""The one place where a caller's key is looked up."""

from __future__ import annotations

from starlette.types import Scope

from app.access.keyring import Key, Keyring
from app.api.requests.reading import header


def authenticate(scope: Scope, keyring: Keyring) -> Key:
    """Find the caller's key, and name it in the request's log line. Raises Unauthenticated."""
    key = keyring.authenticate(header(scope, b"authorization"))
    scope["state"]["log"].key = key.name
    return key
