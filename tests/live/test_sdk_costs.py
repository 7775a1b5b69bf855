"""Costs through the official Python SDK, unmodified: headers, bounds, tags, events and estimates."""

import io
from collections.abc import AsyncIterator
from typing import Any

import openai
import pytest

from app.sandbox.server import Sandbox
from tests.live.conftest import Start
from tests.live.house import file_of, plain
from tests.live.test_cost_told import config

pytestmark = pytest.mark.anyio

FOX: dict[str, Any] = {"model": "flux", "prompt": "a fox", "size": "64x64"}


@pytest.fixture
async def client(start: Start, sandbox: Sandbox) -> AsyncIterator[openai.AsyncOpenAI]:
    gateway = await start(config(sandbox))
    async with openai.AsyncOpenAI(base_url=f"{gateway.url}/v1", api_key="unused", max_retries=0) as client:
        yield client


async def test_a_raw_response_has_the_cost(client: openai.AsyncOpenAI) -> None:
    bounds: dict[str, Any] = {"extra_headers": {"x-gateway-max-cost": "0.04", "x-gateway-tags": "team=blue"}}
    raw = await client.images.with_raw_response.generate(**FOX, **bounds)
    assert (raw.headers["x-gateway-cost"], raw.headers["x-gateway-currency"]) == ("0.038000", "USD")
    images: Any = raw.parse()
    assert len(images.data) == 1


async def test_an_extra_body_bounds_the_cost_of_every_operation(client: openai.AsyncOpenAI) -> None:
    drawn = await client.images.generate(**FOX, extra_body={"max_cost": 0.038})
    assert drawn.data and drawn.data[0].b64_json
    with pytest.raises(openai.BadRequestError) as refused:
        await client.images.generate(**FOX, extra_body={"max_cost": 0.037})
    assert (refused.value.code, refused.value.param) == ("max_cost_exceeded", "max_cost")
    picture = ("fox.png", io.BytesIO(file_of(plain((64, 64)))), "image/png")
    edited = await client.images.edit(model="kontext", prompt="night", image=picture, extra_body={"max_cost": 0.05})
    assert edited.data
    picture[1].seek(0)
    with pytest.raises(openai.BadRequestError, match="max_cost"):
        await client.images.edit(model="kontext", prompt="night", image=picture, extra_body={"max_cost": 0.049})


async def test_a_streams_events_have_the_cost(client: openai.AsyncOpenAI) -> None:
    stream: Any = await client.images.generate(**FOX, stream=True)
    told = [event.gateway async for event in stream if event.type == "image_generation.completed"]
    assert [(gateway["cost"], gateway["currency"]) for gateway in told] == [(0.038, "USD")]


async def test_an_estimate_is_one_post(client: openai.AsyncOpenAI) -> None:
    found: Any = await client.post("/images/generations/estimate", body={**FOX, "n": 2}, cast_to=object)
    assert found["cost"] == {"least": 0.076, "most": 0.076, "currency": "USD"}
