"""Texts of the configuration that are checked beyond their type: parts of addresses and of HTTP headers."""

from __future__ import annotations

import re
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, SecretStr

from app.config.errors import refusal

SHORTEST_KEY = 16  # characters of a key for callers
SHORTEST_SECRET = 32  # characters of the secret that everything is derived from

_ORIGIN = re.compile(
    r"\*|null|(?P<scheme>[a-z][a-z0-9+.-]*)://(?P<host>[a-z0-9._-]+|\[[0-9a-f:.]+\])(?P<port>:[0-9]{1,5})?/?", re.ASCII
)
_HOST_NAME = re.compile(r"\*|[a-z0-9._-]{1,253}", re.ASCII)
_DEFAULT_PORTS = {"http": ":80", "https": ":443"}
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")


def _address(text: str) -> str:
    """Check an http(s) address and remove its trailing slash, so that paths can be appended."""
    parts = urlsplit(text.strip())
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.port == 0:
        raise refusal("is no http:// or https:// address", "write it like https://api.example.com/v1")
    if parts.username or parts.password:
        raise refusal("holds a name or a password", "use `api_key` or `headers`, which are never shown")
    if parts.query or parts.fragment:
        raise refusal("holds a '?' or a '#'", "write the address up to its path")
    return text.strip().rstrip("/")


def _origin(text: str) -> str:
    """Check an origin as browsers write it: in lower case, without a path, and without the scheme's own port. A local
    file's origin is `null`."""
    found = _ORIGIN.fullmatch(text.strip().lower())
    if found is None:
        raise refusal("is no origin", "write it like https://studio.example.com, without a path, or '*' for all")
    if found["scheme"] is None:
        return found[0]
    port = found["port"] if found["port"] != _DEFAULT_PORTS.get(found["scheme"]) else None
    return f"{found['scheme']}://{found['host']}{port or ''}"


def _host_name(text: str) -> str:
    """Check a host name as a request's `Host` has it, without its port."""
    name = text.strip().lower().removesuffix(".")
    if not _HOST_NAME.fullmatch(name):
        raise refusal("is no host name", "write it like gateway.example.com, without scheme and port, or '*' for all")
    return name


def _secret(value: Any) -> Any:
    """Strip a secret: white space around it comes from files. An empty text becomes None."""
    if not isinstance(value, str):
        return value
    if not re.fullmatch(r"[!-~]*", value.strip()):
        raise refusal("holds characters that no HTTP header can carry", "check that it was copied whole and alone")
    return value.strip() or None


def _long_enough(secret: SecretStr | None) -> SecretStr | None:
    if secret is not None and len(secret.get_secret_value()) < SHORTEST_KEY:
        raise refusal(
            f"is shorter than {SHORTEST_KEY} characters, and so can be guessed",
            "take a longer one, like the output of `openssl rand -hex 24`",
        )
    return secret


def _hard_to_guess(secret: SecretStr | None) -> SecretStr | None:
    if secret is not None and len(secret.get_secret_value()) < SHORTEST_SECRET:
        raise refusal(
            f"is shorter than {SHORTEST_SECRET} characters, and so can be guessed",
            "take the output of `openssl rand -hex 32`",
        )
    return secret


def _digest(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    if not re.fullmatch(r"(?:[0-9A-Fa-f]{64})?", value.strip()):
        raise refusal("is not 64 hexadecimal digits", "take the output of `printf %s KEY | sha256sum`")
    return value.strip().lower() or None


def _headers(headers: dict[str, str]) -> dict[str, str]:
    for name, value in headers.items():
        if not _HEADER_NAME.fullmatch(name):
            raise refusal(f"{name!r} is no name of an HTTP header", "use letters, digits and '-'")
        if not re.fullmatch(r"[\t -~]*", value):
            raise refusal(f"the value of {name!r} holds characters that no HTTP header can carry", "leave them out")
    return headers


Address = Annotated[str, AfterValidator(_address)]
Origin = Annotated[str, AfterValidator(_origin)]
HostName = Annotated[str, AfterValidator(_host_name)]
Secret = Annotated[SecretStr | None, BeforeValidator(_secret)]
CallerKey = Annotated[Secret, AfterValidator(_long_enough)]
Digest = Annotated[str | None, BeforeValidator(_digest)]
HttpHeaders = Annotated[dict[str, str], AfterValidator(_headers)]
MasterSecret = Annotated[Secret, AfterValidator(_hard_to_guess)]
