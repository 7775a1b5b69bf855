"""Parse the URLs of downloads, and refuse hosts that are not public. Pure: looks nothing up."""

from __future__ import annotations

import re
from collections.abc import Callable
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address, ip_network
from urllib.parse import urljoin

from yarl import URL

from app.errors import FetchError, Reason, shortened

Address = IPv4Address | IPv6Address

# The registries of special-purpose addresses (RFC 6890) as of 2025, written out, because Python's `is_global` depends
# on its version.
_NOT_PUBLIC = tuple(
    map(
        ip_network,
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
            *("2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20"),
        ),
    )
)
_ASSIGNED_6 = IPv6Network("2000::/3")  # all that were ever assigned
_NAT64 = IPv6Network("64:ff9b::/96")  # an IPv4 address in the last four bytes
_NUMERIC = re.compile(r"(?:.*\.)?(?:[0-9]+|0x[0-9a-f]*)", re.IGNORECASE)
# DNS has no underscore, but resolvers take it. A colon or a percent sign would bypass them.
_NAME = re.compile(r"(?=.{1,254}\Z)[A-Za-z0-9_-]{1,63}(?:\.[A-Za-z0-9_-]{1,63})*+\.?")
_LOCAL = re.compile(r"[^.]*|.*\.(?:localhost|local|internal|intranet|lan|home\.arpa)", re.IGNORECASE)
_LONGEST_URL = 8192
_ENCODED_URL = re.compile(r"[A-Za-z0-9._~:/?#\[\]@!$&'()*+,;=%-]+")
_CONTROL = re.compile(r"[\x00-\x1f\x7f\\]")


def is_public(address: Address) -> bool:
    """True if anyone can reach `address`, so that the gateway reveals nothing by reaching it."""
    if isinstance(address, IPv6Address):
        if address.scope_id is not None:  # an interface of this machine
            return False
        if address.ipv4_mapped is not None:
            return is_public(address.ipv4_mapped)
        if address in _NAT64:
            return is_public(IPv4Address(address.packed[12:]))
        if address not in _ASSIGNED_6:
            return False
    return not any(address in network for network in _NOT_PUBLIC)


def parse_address(host: str) -> Address | None:
    """Return the address that `host` spells in the standard way; None for names and for disguises."""
    try:
        return ip_address(host)
    except ValueError:
        return None


def is_disguised(host: str) -> bool:
    """True if `host` spells an address in a way that only some systems understand: `0x7f.1`, `2130706433`,
    `0177.0.0.1`, `127.0.0.1.`"""
    return parse_address(host) is None and _NUMERIC.fullmatch(host.rstrip(".")) is not None


def is_name(host: str) -> bool:
    """True if a resolver can look `host` up in the form in which it is sent. HTTP clients take anything with a colon
    for an address, and do not ask the resolver that checks."""
    return _NAME.fullmatch(host) is not None


def is_local_name(host: str) -> bool:
    """True if `host` is a name that only has a meaning inside some network."""
    return parse_address(host) is None and _LOCAL.fullmatch(host.rstrip(".")) is not None


def parse_url(text: str, base: str = "") -> URL:
    """Parse a URL, relative to `base` if it is not a full one. Raises FetchError. Keeps percent-escapes as they are:
    the URL may be signed."""
    try:
        text = urljoin(base, text.strip())
        if len(text) > _LONGEST_URL or _CONTROL.search(text):
            raise ValueError
        url = URL(text, encoded=_ENCODED_URL.fullmatch(text) is not None)
        if not url.host or url.scheme not in ("http", "https") or url.port in (0, None):
            raise ValueError
    except (ValueError, IndexError):  # yarl's own, for `https://[]@/`
        raise FetchError(Reason.URL, "has no URL that can be fetched") from None
    if url.user is not None or url.password is not None:
        raise FetchError(Reason.URL, f"at {shortened(url.host)!r} is not fetched: its URL holds a name or a password")
    return url


def refuse_private(url: URL, public: Callable[[Address], bool], *, proxied: bool) -> None:
    """Raise FetchError for a host that is visibly not public, before its name is looked up. `proxied`: the proxy will
    look it up."""
    host = url.host or ""
    if url.scheme != "https":
        raise FetchError(Reason.URL, f"at {shortened(host)!r} is not fetched: only https: URLs are")
    address = parse_address(host)
    if (address is not None and not public(address)) or is_disguised(host):
        raise private_host(host)
    if address is None and not is_name(url.raw_host or ""):
        raise FetchError(Reason.URL, f"at {shortened(host)!r} is not fetched: that is not the name of a host")
    if proxied and is_local_name(host):
        raise private_host(host)


def private_host(host: str) -> FetchError:
    return FetchError(Reason.PRIVATE, f"at {shortened(host)!r} is not fetched: that host is not a public one")
