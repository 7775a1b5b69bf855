"""Links to stored files: signed and expiring, so that a link alone is enough to read its file and nothing else. Knows
no file and no request."""

from __future__ import annotations

import hmac
import re
from collections.abc import Callable

from app.errors import ApiError
from app.storage.files import StoredFile

PATH = "/files/"
# Exactly what `Signer.url` writes: one spelling of each link, so that nothing in it can be said twice or otherwise.
_QUERY = re.compile(r"key=([0-9a-f]{16})&expires=([0-9]{1,15})&signature=([0-9a-f]{64})")
_PURPOSE = "image-gateway link 1"  # the secret may serve others some day


def named(url: str) -> str:
    """The name of the file to which a link of ours leads; of another address, something that is no name of a file."""
    return url.partition("?")[0].rpartition(PATH)[2]


class Signer:
    """`clock` gives seconds since 1970."""

    def __init__(self, secret: bytes, clock: Callable[[], float]) -> None:
        self._secret = secret
        self._clock = clock

    def url(self, base_url: str, key: str, file: StoredFile) -> str:
        """The address of `file` under `base_url` (no trailing slash), handed out to the virtual key named `key`."""
        digest = self.key_digest(key)
        signature = self._signature(file.name, digest, str(file.expires))
        return f"{base_url}{PATH}{file.name}?key={digest}&expires={file.expires}&signature={signature}"

    def check(self, name: str, query: str) -> None:
        """Whether the link leads to the file `name`, still. Raises ApiError, 403: `url_invalid` or `url_expired`."""
        said = _QUERY.fullmatch(query)
        if not said or not hmac.compare_digest(self._signature(name, said[1], said[2]), said[3]):
            raise _refused("This link is not one that this server has signed. Use it exactly as it came.", "invalid")
        if int(said[2]) <= self._clock():
            raise _refused("This link has expired. Ask for the image again, or download images sooner.", "expired")

    def key_digest(self, key: str) -> str:
        """Tells nothing of the key but whether two are the same."""
        return self._mac("key", key)[:16]

    def _signature(self, name: str, key: str, expires: str) -> str:
        return self._mac("file", f"{PATH}{name}", expires, key)

    def _mac(self, *parts: str) -> str:
        message = "\n".join((_PURPOSE, *parts)).encode("utf-8", "surrogatepass")
        return hmac.digest(self._secret, message, "sha256").hex()


def _refused(message: str, how: str) -> ApiError:
    return ApiError(message, status=403, type="invalid_request_error", code=f"url_{how}", should_retry=False)
