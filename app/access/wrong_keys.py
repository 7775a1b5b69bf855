"""Counts the wrong keys of each address. It slows down guessing, and never refuses a right key: behind a proxy, many
callers share an address."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from ipaddress import IPv6Address, ip_address

MOST_A_MINUTE = 20
MOST_ADDRESSES = 10_000  # that are remembered; beyond, the one that was seen least recently is forgotten


class WrongKeys:
    """GCRA by address: a burst of `MOST_A_MINUTE`, and as many each minute. `clock` gives seconds. Belongs to one
    thread."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._full_at = OrderedDict[str, float]()  # by network: when the whole burst is there again

    def count(self, address: str | None) -> float:
        """Count a wrong key. Return the seconds until the next one is due; 0: it is due now."""
        network, now = _network(address), self._clock()
        full_at = max(self._full_at.pop(network, now), now)
        wait = full_at + 60.0 / MOST_A_MINUTE - now - 60.0
        if wait <= 1e-9:
            full_at += 60.0 / MOST_A_MINUTE
        self._full_at[network] = full_at
        if len(self._full_at) > MOST_ADDRESSES:
            self._full_at.popitem(last=False)
        return max(wait, 0.0) if wait > 1e-9 else 0.0


def _network(address: str | None) -> str:
    """Return the address; for IPv6 its first half, since one machine has the whole other half."""
    try:
        found = ip_address(address or "")
    except ValueError:
        return address or ""
    if isinstance(found, IPv6Address):
        return found.ipv4_mapped.compressed if found.ipv4_mapped else str(IPv6Address(int(found) >> 64 << 64))
    return found.compressed
