"""Signed messages to the operator's webhook, in the form of the Standard Webhooks (standardwebhooks.com), which
OpenAI's SDKs verify too. The address is the operator's alone: it may be a private one, and no redirect leads away."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Callable

import aiohttp
import httpx
from yarl import URL

from app.upstream.transport import Connections, connection_errors, give_back

CONNECT_SECONDS, TOTAL_SECONDS = 5.0, 15.0
ENCODED = "whsec_"  # the secret behind it is base64


def sign(secret: str, id: str, timestamp: int, body: str) -> str:
    """Return the value of `webhook-signature`."""
    key = base64.b64decode(secret.removeprefix(ENCODED)) if secret.startswith(ENCODED) else secret.encode()
    digest = hmac.digest(key, f"{id}.{timestamp}.{body}".encode(), hashlib.sha256)
    return f"v1,{binascii.b2a_base64(digest, newline=False).decode()}"


class Webhook:
    """One address. `clock` gives seconds since the epoch."""

    def __init__(self, connections: Connections, url: str, secret: str, clock: Callable[[], float]) -> None:
        self._connections = connections
        self._url = URL(url, encoded=True)
        self._secret = secret
        self._clock = clock

    async def send(self, id: str, body: str) -> str | None:
        """Send a message. The same id marks a repeat for the receiver. Returns why it was not accepted, without the
        address, which may hold a secret; None: it was."""
        timestamp = int(self._clock())
        headers = {
            "Content-Type": "application/json",
            "User-Agent": "image-gateway",
            "webhook-id": id,
            "webhook-timestamp": str(timestamp),
            "webhook-signature": sign(self._secret, id, timestamp, body),
        }
        timeout = aiohttp.ClientTimeout(TOTAL_SECONDS, sock_connect=CONNECT_SECONDS)
        try:
            with connection_errors():
                response = await self._connections.request(
                    "POST", self._url, headers=headers, data=body.encode(), timeout=timeout
                )
        except httpx.TransportError as error:
            return f"no answer: {type(error).__name__}"
        give_back(response)
        if 200 <= response.status < 300:
            return None
        hint = ", and redirects are not followed" if 300 <= response.status < 400 else ""
        return f"status {response.status}{hint}"
