"""Where a download may go: addresses read and judged, and how a download fails. Pure: looks nothing up."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from urllib.parse import urljoin

from yarl import URL

from app.errors import shortened

Address = IPv4Address | IPv6Address

# The registries of special-purpose addresses (RFC 6890) as of 2025, written out: what Python's own `is_global` knows
# depends on its version.
_NOT_PUBLIC_4 = tuple(
    map(
        IPv4Network,
        (
            "0.0.0.0/8",  # this network
            "10.0.0.0/8",
            "100.64.0.0/10",  # shared by carriers; also Alibaba's metadata
            "127.0.0.0/8",
            "168.63.129.16/32",  # Azure's own service on each virtual machine
            "169.254.0.0/16",  # link-local: the metadata of most clouds
            "172.16.0.0/12",
            "192.0.0.0/24",
            "192.0.2.0/24",
            "192.88.99.0/24",  # 6to4 relays
            "192.168.0.0/16",
            "198.18.0.0/15",
            "198.51.100.0/24",
            "203.0.113.0/24",
            "224.0.0.0/4",  # multicast
            "240.0.0.0/4",  # reserved, and broadcast
        ),
    )
)
_PUBLIC_6 = IPv6Network("2000::/3")  # all that was ever given out
_NOT_PUBLIC_6 = tuple(map(IPv6Network, ("2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20")))
_TRANSLATED = IPv6Network("64:ff9b::/96")  # NAT64: an IPv4 address in its last four bytes
_NUMERIC = re.compile(r"(?:.*\.)?(?:[0-9]+|0x[0-9a-f]*)", re.IGNORECASE)
# An underscore is none of DNS's, and resolvers take it. A colon or a percent sign would lead past them.
_NAME = re.compile(r"(?=.{1,254}\Z)[A-Za-z0-9_-]{1,63}(?:\.[A-Za-z0-9_-]{1,63})*+\.?")
_LOCAL = re.compile(r"[^.]*|.*\.(?:localhost|local|internal|intranet|lan|home\.arpa)", re.IGNORECASE)
_LONGEST_URL = 8192
_SPELT_OUT = re.compile(r"[A-Za-z0-9._~:/?#\[\]@!$&'()*+,;=%-]+")
_CONTROL = re.compile(r"[\x00-\x1f\x7f\\]")
_PASSING = frozenset({408, 425, 429, 500, 502, 503, 504})


class Reason(Enum):
    """Why a download failed."""

    URL = auto()  # no address that is fetched: its scheme, its form
    PRIVATE = auto()  # a host that is not public
    REDIRECTS = auto()  # too many, or one that leads nowhere
    STATUS = auto()
    NO_IMAGE = auto()
    TOO_LARGE = auto()
    TIMED_OUT = auto()
    LOST = auto()  # no connection, or one that broke


@dataclass(eq=False)
class FetchError(Exception):
    """`message` goes on from "the image": it names the host and never the rest of the address, which may be secret."""

    reason: Reason
    message: str
    status: int | None = None

    def __str__(self) -> str:
        return self.message

    @property
    def passing(self) -> bool:
        """Whether another attempt may go better."""
        return self.reason in (Reason.TIMED_OUT, Reason.LOST) or self.status in _PASSING


def is_public(address: Address) -> bool:
    """Whether everybody can reach `address`, so that the gateway gives nothing away by reaching it."""
    if isinstance(address, IPv4Address):
        return not any(address in network for network in _NOT_PUBLIC_4)
    if address.scope_id is not None:  # a zone of this machine
        return False
    if address.ipv4_mapped is not None:
        return is_public(address.ipv4_mapped)
    if address in _TRANSLATED:
        return is_public(IPv4Address(address.packed[12:]))
    return address in _PUBLIC_6 and not any(address in network for network in _NOT_PUBLIC_6)


def literal(host: str) -> Address | None:
    """The address that `host` is, in the one way to write it; None for names and for disguises."""
    try:
        return ip_address(host)
    except ValueError:
        return None


def is_disguised(host: str) -> bool:
    """Whether `host` is an address in a way of writing that some systems understand and some do not: `0x7f.1`,
    `2130706433`, `0177.0.0.1`, `127.0.0.1.`"""
    return literal(host) is None and _NUMERIC.fullmatch(host.rstrip(".")) is not None


def is_name(host: str) -> bool:
    """True if a resolver can look `host` up, in the form in which it is sent. HTTP clients take anything with a colon
    for an address, and do not ask the resolver that checks."""
    return _NAME.fullmatch(host) is not None


def is_local_name(host: str) -> bool:
    """Whether `host` is a name that only has a meaning inside some network."""
    return literal(host) is None and _LOCAL.fullmatch(host.rstrip(".")) is not None


def address_of(text: str, base: str = "") -> URL:
    """Where `text` leads, read at `base`. Raises FetchError. What is spelt out is left as it is: it may be signed."""
    try:
        text = urljoin(base, text.strip())
        if len(text) > _LONGEST_URL or _CONTROL.search(text):
            raise ValueError
        url = URL(text, encoded=_SPELT_OUT.fullmatch(text) is not None)
        if not url.host or url.scheme not in ("http", "https") or url.port in (0, None):
            raise ValueError
    except ValueError:
        raise FetchError(Reason.URL, "has no address that can be fetched") from None
    if url.user is not None or url.password is not None:
        raise FetchError(
            Reason.URL, f"at {shortened(url.host)!r} is not fetched: its address holds a name or a password"
        )
    return url


def refuse_private(url: URL, public: Callable[[Address], bool], *, proxied: bool) -> None:
    """Raises FetchError for what can be seen without looking the name up. `proxied`: nobody here will look it up."""
    host = url.host or ""
    if url.scheme != "https":
        raise FetchError(Reason.URL, f"at {shortened(host)!r} is not fetched: only https: addresses are")
    address = literal(host)
    if (address is not None and not public(address)) or is_disguised(host):
        raise private(host)
    if address is None and not is_name(url.raw_host or ""):
        raise FetchError(Reason.URL, f"at {shortened(host)!r} is not fetched: that is no name of a host")
    if proxied and is_local_name(host):
        raise private(host)


def private(host: str) -> FetchError:
    return FetchError(Reason.PRIVATE, f"at {shortened(host)!r} is not fetched: that host is not a public one")
