"""Explain in the gateway's own words why a connection failed. The libraries' words quote addresses, proxies, and the
passwords in them."""

from __future__ import annotations

import os
import socket
import ssl
from collections.abc import Iterator


def explain(error: BaseException) -> str | None:
    """Return the reason, or None if none is known."""
    for cause in reversed(list(_causes(error))):  # the innermost is the system's own
        if isinstance(cause, socket.gaierror):
            return "DNS: its name is not known here"
        if isinstance(cause, ssl.SSLCertVerificationError):
            return f"TLS: its certificate is not trusted: {cause.verify_message}"
        if isinstance(cause, ssl.SSLError):
            return f"TLS: {cause.reason or 'no agreement'}"
        if isinstance(cause, ConnectionRefusedError):
            return "connect: nobody listens there"
        if type(cause) is OSError and cause.errno:  # a broken connection is not news
            return os.strerror(cause.errno)
    return None


def _causes(error: BaseException) -> Iterator[BaseException]:
    cause = error.__cause__
    while cause is not None:
        yield cause
        cause = cause.__cause__
