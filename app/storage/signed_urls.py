"""Links to stored files: signed and expiring, so that a link alone suffices to read its file and nothing else. Knows no
file and no request."""

from __future__ import annotations

import hmac
import re
from collections.abc import Callable

from app.errors import ApiError
from app.storage.files import StoredFile

PATH = "/files/"
# Exactly what `Signer.url` writes: each link has one spelling only.
_QUERY = re.compile(r"key=([0-9a-f]{16})&expires=([0-9]{1,15})&signature=([0-9a-f]{64})")
_PURPOSE = "image-gateway link 1"  # the former secret was meant to have other purposes too


def file_name(url: str) -> str:
    """Return the name of the file that a link of ours leads to; for other URLs, a text that names no file."""
    return url.partition("?")[0].rpartition(PATH)[2]


class Signer:
    """`clock` gives seconds since 1970."""

    def __init__(self, secret: bytes, clock: Callable[[], float], former: bytes | None = None) -> None:
        """Links that were signed with `former` stay good until they expire."""
        self._secret = secret
        self._former = former
        self._clock = clock

    def url(self, base_url: str, key: str, file: StoredFile) -> str:
        """Return the link to `file` under `base_url` (no trailing slash) for the API key with the id `key`."""
        digest = self.key_digest(key)
        signature = _signature(self._secret, file.name, digest, str(file.expires))
        return f"{base_url}{PATH}{file.name}?key={digest}&expires={file.expires}&signature={signature}"

    def check(self, name: str, query: str) -> None:
        """Check that the link leads to the file `name`, still. Raises ApiError, 403: `url_invalid` or `url_expired`."""
        match = _QUERY.fullmatch(query)
        if not match or not self._is_signed(name, *match.groups()):
            raise _refusal("This link is not one that this server has signed. Use it exactly as it came.", "invalid")
        if int(match[2]) <= self._clock():
            raise _refusal("This link has expired. Ask for the image again, or download images sooner.", "expired")

    def key_digest(self, key: str) -> str:
        """Return a text that reveals nothing of the key but whether two are the same."""
        return _mac(self._secret, "key", key)[:16]

    def _is_signed(self, name: str, key: str, expires: str, signature: str) -> bool:
        secrets = [secret for secret in (self._secret, self._former) if secret is not None]
        return any(hmac.compare_digest(_signature(secret, name, key, expires), signature) for secret in secrets)


def _signature(secret: bytes, name: str, key: str, expires: str) -> str:
    return _mac(secret, "file", f"{PATH}{name}", expires, key)


def _mac(secret: bytes, *parts: str) -> str:
    message = "\n".join((_PURPOSE, *parts)).encode("utf-8", "surrogatepass")
    return hmac.digest(secret, message, "sha256").hex()


def _refusal(message: str, how: str) -> ApiError:
    return ApiError(message, status=403, type="invalid_request_error", code=f"url_{how}", should_retry=False)
