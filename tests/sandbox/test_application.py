"""The controls over HTTP."""

from typing import Any

import httpx
import pytest

from app.sandbox.server import Sandbox

pytestmark = pytest.mark.anyio

BODY = {"model": "gpt-image-2", "prompt": "a fox", "size": "64x64"}


async def statuses(client: httpx.AsyncClient, times: int) -> list[int]:
    return [(await client.post("/openai/v1/images/generations", json=BODY)).status_code for _ in range(times)]


async def control(client: httpx.AsyncClient, **order: Any) -> int:
    return (await client.post("/control", json=order)).status_code


async def test_a_fault_stands_as_often_as_was_said(client: httpx.AsyncClient) -> None:
    assert await control(client, provider="openai", fault="503:retry_after=7", times=2) == 204
    assert await statuses(client, 3) == [503, 503, 200]


async def test_a_fault_for_another_provider_stands_aside(client: httpx.AsyncClient) -> None:
    await control(client, provider="nebula", fault="503", times=None)
    assert await statuses(client, 1) == [200]


async def test_a_fault_for_everybody_stands_until_all_is_forgotten(client: httpx.AsyncClient, sandbox: Sandbox) -> None:
    await control(client, provider=None, fault="500")
    assert await statuses(client, 3) == [500, 500, 500]
    assert (await client.delete("/control")).status_code == 204
    assert sandbox.world.journal.last(9) == []
    assert await statuses(client, 1) == [200]


@pytest.mark.parametrize(
    ("order", "said"),
    [
        ({}, "Expected"),
        ({"fault": "nonsense"}, "Unknown fault 'nonsense'"),
        ({"fault": "503", "provider": "nebius"}, "Unknown provider 'nebius'"),
        ({"fault": "503", "times": 0}, "times=0"),
        ({"fault": "503", "times": "3"}, "times='3'"),
    ],
)
async def test_an_order_that_cannot_be_followed_is_refused(
    client: httpx.AsyncClient, order: dict[str, Any], said: str
) -> None:
    answer = await client.post("/control", json=order)
    assert answer.status_code == 400
    assert said in answer.json()["error"]
    assert await statuses(client, 1) == [200]


async def test_drawings_are_counted_per_provider(client: httpx.AsyncClient) -> None:
    await statuses(client, 2)
    await client.post("/openai/v1/images/generations", json={**BODY, "n": 3})
    await client.post("/nebul/v1/images/generations", json={"prompt": "a fox", "size": "64x64"})
    await client.post("/openai/v1/images/generations", json={**BODY, "junk": 1})
    counted = (await client.get("/control/drawings")).json()
    assert counted == {"netmind": 0, "nebula": 0, "nebul": 1, "openai": 5, "bfl": 0}


async def test_a_picture_that_is_not_there_is_a_404(client: httpx.AsyncClient) -> None:
    assert (await client.get("/pictures/999.png")).status_code == 404


async def test_a_count_that_is_no_number_is_refused(client: httpx.AsyncClient) -> None:
    assert (await client.get("/control/requests?last=all")).status_code == 400
