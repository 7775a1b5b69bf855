from __future__ import annotations

import asyncio
import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.upstream.own_addresses import own_address, registrable_domain

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


OWN = [
    # the same origin, whatever it is
    ("https://api.bfl.ai/v1", "https://api.bfl.ai/v1/get_result?id=1"),
    ("https://api.bfl.ai/v1", "https://API.BFL.AI:443/x"),
    ("http://10.0.0.7:8000/v1", "http://10.0.0.7:8000/jobs/1"),
    ("http://localhost:8000", "http://localhost:8000/jobs/1"),
    ("http://gpu/v1", "http://gpu/jobs/1"),
    # https at a host of the same registrable domain
    ("https://api.bfl.ai/v1", "https://api.eu1.bfl.ai/v1/get_result?id=1"),
    ("https://api.bfl.ai/v1", "https://bfl.ai/x"),
    ("https://api.bfl.ai/v1", "https://gateway.bfl.ai:8443/x"),
    ("http://api.bfl.ai/v1", "https://gateway.bfl.ai/x"),
    ("https://api.example.co.uk", "https://jobs.example.co.uk/1"),
]
FOREIGN = [
    ("https://api.bfl.ai/v1", "http://api.bfl.ai/v1/get_result"),  # no longer encrypted
    ("https://api.bfl.ai/v1", "http://api.eu1.bfl.ai/v1"),
    ("https://api.bfl.ai/v1", "https://api.bfl.ai.evil.test/x"),
    ("https://api.bfl.ai/v1", "https://evilbfl.ai/x"),
    ("https://api.bfl.ai/v1", "https://evil.test/api.bfl.ai"),
    ("https://api.bfl.ai/v1", "https://api.bfl.ai@evil.test/x"),
    ("https://api.bfl.ai/v1", "https://me:secret@api.bfl.ai/x"),
    ("https://api.bfl.ai/v1", "https://api.bfl.ai\\@evil.test/x"),
    ("https://api.bfl.ai/v1", "https://evil.test\n.bfl.ai/x"),
    ("https://api.bfl.ai/v1", "https://ai/x"),
    ("https://api.bfl.ai/v1", "ftp://api.bfl.ai/x"),
    ("https://api.bfl.ai/v1", "v1/get_result"),
    ("https://api.bfl.ai/v1", "//evil.test/x"),
    ("https://api.bfl.ai/v1", "@evil.test/x"),
    ("https://api.bfl.ai/v1", "https://"),
    ("https://api.example.co.uk", "https://evil.co.uk/1"),
    # neighbours at the same hosting company
    ("https://us.azurewebsites.net", "https://them.azurewebsites.net/x"),
    ("https://us.blob.core.windows.net", "https://them.blob.core.windows.net/x"),
    ("https://us.github.io", "https://them.github.io/x"),
    # no registrable domain
    ("http://10.0.0.7:8000/v1", "http://10.0.0.7:8001/x"),
    ("https://10.0.0.7/v1", "https://10.0.0.8/x"),
    ("https://127.0.0.1", "https://127.0.0.1:8443/x"),
    ("https://[::1]", "https://[::2]/x"),
    ("https://gpu1/v1", "https://gpu2/x"),
    ("https://a.gpu.internal", "https://b.gpu.internal/x"),
]


@pytest.mark.parametrize(("base_url", "address"), OWN)
async def test_a_providers_own_address_is_taken(base_url: str, address: str) -> None:
    assert await own_address(address, base_url) is not None


@pytest.mark.parametrize(("base_url", "address"), FOREIGN)
async def test_any_other_address_is_refused(base_url: str, address: str) -> None:
    assert await own_address(address, base_url) is None


async def test_an_address_keeps_its_signature() -> None:
    signed = "https://api.eu1.bfl.ai/v1/get_result?id=a%2Fb&sig=x%2By%3D%3D"
    assert str(await own_address(signed, "https://api.bfl.ai/v1")) == signed


def test_the_list_of_suffixes_is_the_package_s_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_: pytest.fail("the network is asked"))
    assert registrable_domain("api.eu1.bfl.ai") == "bfl.ai"


@given(st.text(max_size=40), st.sampled_from(["https://api.bfl.ai/", "https://", "http://[", ""]))
def test_no_address_makes_it_raise(text: str, start: str) -> None:
    asyncio.run(own_address(start + text, "https://api.bfl.ai"))
