"""Which requests of web pages a gateway without keys refuses."""

from __future__ import annotations

import pytest

from app.api.web_pages import PageRules
from app.errors import Forbidden

RULES = PageRules(frozenset({"studio.example.com"}), frozenset({"https://pages.example.com", "app://studio"}))


def refusal(rules: PageRules | None = None, **headers: str) -> str | None:
    """The code of the refusal; None if there is none."""
    try:
        (rules or RULES).check(
            [(name.replace("_", "-").encode(), value.encode("latin-1")) for name, value in headers.items()]
        )
    except Forbidden as error:
        assert error.status == 403
        return error.code
    return None


@pytest.mark.parametrize(
    "host",
    [
        *("localhost", "localhost:8000", "LocalHost:8000", "localhost.", "app.localhost", "a.b.localhost:1"),
        *("127.0.0.1", "127.0.0.1:8000", "0.0.0.0:8000", "192.168.7.7:8000", "[::1]", "[::1]:8000", "[2001:DB8::7]:80"),
        *("studio.example.com", "Studio.Example.com.", "studio.example.com:8443"),
    ],
)
def test_an_address_a_name_of_loopback_and_a_listed_name_are_the_gateways_own(host: str) -> None:
    assert refusal(host=host) is None
    assert refusal(host=host, origin=f"http://{host.lower()}") is None


@pytest.mark.parametrize(
    "host",
    [
        *("evil.example", "evil.example:8000", "localhost.evil.example", "notlocalhost", ".example", "localhost..", ""),
        *("127.0.0.1.evil.example", "127.1", "2130706433", "0x7f.0.0.1", "010.0.0.1.nip.io", "[evil.example]"),
        *("evil.studio.example.com", "studio.example.com.evil.example", "127.0.0.1@evil.example", "[::1]evil.example"),
        *("evil.example:127.0.0.1", "localhost\xa0", "[::1", "xn--lcalhost-q1b", "_gateway", " " * 60_000),
    ],
)
def test_any_other_name_is_refused_whatever_it_looks_like(host: str) -> None:
    assert refusal(host=host) == "host_not_allowed"
    assert refusal(host=host, origin="https://pages.example.com") == "host_not_allowed"


@pytest.mark.parametrize(
    "origin",
    [
        *("https://evil.example", "null", "", "http://localhost", "http://localhost:8001", "http://127.0.0.1:8000"),
        *("localhost:8000", "http://localhost:8000.evil.example", "http://localhost:8000/", "app://other"),
        *("https://pages.example.com:8443", "http://pages.example.com", "https://pages.example.com.evil.example"),
    ],
)
def test_an_origin_that_is_neither_listed_nor_the_gateways_own_is_foreign(origin: str) -> None:
    assert refusal(host="localhost:8000", origin=origin) == "origin_not_allowed"


@pytest.mark.parametrize("origin", ["https://pages.example.com", "app://studio", "http://localhost:8000"])
def test_a_listed_origin_and_the_gateways_own_are_fine(origin: str) -> None:
    assert refusal(host="localhost:8000", origin=origin) is None


def test_what_a_browser_calls_cross_site_needs_a_listed_origin() -> None:
    assert refusal(host="localhost:8000", sec_fetch_site="cross-site") == "origin_not_allowed"
    own, listed = "http://localhost:8000", "https://pages.example.com"
    assert refusal(host="localhost:8000", sec_fetch_site="cross-site", origin=own) == "origin_not_allowed"
    assert refusal(host="localhost:8000", sec_fetch_site="cross-site", origin=listed) is None
    for site in ("same-origin", "same-site", "none"):
        assert refusal(host="localhost:8000", sec_fetch_site=site) is None


def test_a_client_that_is_no_browser_says_nothing_of_this() -> None:
    assert refusal() is None
    assert refusal(host="localhost:8000", user_agent="curl") is None


def test_a_star_allows_every_origin_or_every_name() -> None:
    assert refusal(PageRules(frozenset(), frozenset("*")), host="localhost", origin="https://evil.example") is None
    assert refusal(PageRules(frozenset(), frozenset("*")), host="evil.example") == "host_not_allowed"
    assert refusal(PageRules(frozenset("*"), frozenset()), host="evil.example") is None
    assert refusal(PageRules(frozenset("*"), frozenset()), host="a", origin="https://b") == "origin_not_allowed"


def test_a_long_header_is_quoted_in_short() -> None:
    with pytest.raises(Forbidden) as refused:
        RULES.check([(b"host", b"a" * 60_000)])
    assert len(refused.value.message) < 500
