"""Decide which addresses are a provider's own, so that its credential may go there. Knows no request."""

from __future__ import annotations

import asyncio
from functools import cache
from typing import TYPE_CHECKING

from yarl import URL

from app.errors import FetchError
from app.upstream.addresses import parse_url

if TYPE_CHECKING:
    from tldextract import TLDExtract


async def own_address(text: str, base_url: str) -> URL | None:
    """Return the address that an answer names if it is its provider's own: same scheme, host and port as `base_url`, or
    https at a host of the same registrable domain (`bfl.ai`, `example.co.uk`). None for any other."""
    try:
        address, home = parse_url(text), parse_url(base_url)
    except FetchError:
        return None
    if address.origin() == home.origin():
        return address
    if address.scheme != "https":
        return None
    # The first look reads the list of public suffixes, which takes a quarter of a second.
    domain = await asyncio.to_thread(registrable_domain, address.host or "")
    return address if domain and domain == registrable_domain(home.host or "") else None


def registrable_domain(host: str) -> str:
    """Return the part of a host's name that its owner registered, `bfl.ai` of `api.eu1.bfl.ai`; an empty text for IP
    addresses and private names. A customer's name at a host counts as registered: neighbours are strangers."""
    return _suffixes()(host).top_domain_under_public_suffix


@cache
def _suffixes() -> TLDExtract:
    """Read the list that comes with the package: nothing is downloaded, and nothing written."""
    from tldextract import TLDExtract  # 70 ms, and only providers that name addresses need it

    return TLDExtract(suffix_list_urls=(), cache_dir=None, include_psl_private_domains=True)
