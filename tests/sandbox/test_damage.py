"""What the faults make of an answer, seen over the wire."""

import base64
import binascii
import gzip
import json
from typing import Any

import httpx
import pytest

from app.sandbox.faults import SHAPES
from app.sandbox.server import Sandbox
from tests.sandbox.pictures import drawn, image_of

pytestmark = pytest.mark.anyio

PATHS = {
    "netmind": "/netmind/v1/images/generations",
    "nebula": "/nebula/api/v1/images/generation",
    "nebul": "/nebul/v1/images/generations",
    "openai": "/openai/v1/images/generations",
}
BODIES: dict[str, dict[str, Any]] = {
    "netmind": {"model": "black-forest-labs/FLUX.1-schnell", "size": "64x64", "response_format": "b64_json"},
    "nebula": {"model": "black-forest-labs/FLUX.1-schnell", "width": 64, "height": 64},
    "nebul": {"size": "64x64"},
    "openai": {"model": "gpt-image-2", "size": "64x64"},
}
every_provider = pytest.mark.parametrize("provider", PATHS)


async def ask(client: httpx.AsyncClient, provider: str, fault: str) -> httpx.Response:
    body = {"prompt": f"a fox [[fault:{fault}]]", **BODIES[provider]}
    return await client.post(PATHS[provider], json=body)


def message_of(provider: str, body: dict[str, Any]) -> str:
    """The text of a provider's error, checking its shape."""
    if provider == "nebula":
        assert (set(body), body["data"], body["status"]) == ({"data", "message", "status"}, None, "failed")
        return str(body["message"])
    assert set(body) == {"error"}
    assert set(body["error"]) == {"message", "type", "param", "code"}
    return f"{body['error']['message']} ({body['error']['code']})"


@every_provider
@pytest.mark.parametrize("status", [400, 401, 402, 403, 404, 408, 413, 422, 429, 500, 502, 503, 504, 524, 599])
async def test_any_status_comes_in_the_providers_own_shape_and_draws_nothing(
    client: httpx.AsyncClient, sandbox: Sandbox, provider: str, status: int
) -> None:
    answer = await ask(client, provider, str(status))
    assert answer.status_code == status
    assert message_of(provider, answer.json())
    assert sum(sandbox.world.journal.drawings.values()) == 0


async def test_a_status_can_say_when_to_come_back(client: httpx.AsyncClient) -> None:
    assert (await ask(client, "netmind", "429:retry_after=7")).headers["retry-after"] == "7"
    assert "retry-after" not in (await ask(client, "netmind", "429")).headers


@pytest.mark.parametrize("shape", SHAPES)
async def test_a_status_comes_in_every_shape_that_was_seen(client: httpx.AsyncClient, shape: str) -> None:
    answer = await ask(client, "nebula", f"503:shape={shape}")
    assert answer.status_code == 503
    if shape == "empty":
        assert answer.content == b""
        return
    if shape == "html":
        assert answer.headers["content-type"] == "text/html"
        assert b"<html>" in answer.content
        return
    body = answer.json()
    said = {
        "failed": lambda: body["message"],
        "openai": lambda: body["error"]["message"],
        "litellm": lambda: body["error"]["message"],
        "detail": lambda: body["detail"],
        "detail_list": lambda: body["detail"][0]["msg"],
        "message": lambda: body["message"],
        "error_string": lambda: body["error"],
        "draft": lambda: body["error"]["message"],
    }[shape]()
    assert "overloaded" in said
    if shape == "litellm":
        assert body["error"]["code"] == "503"


@every_provider
async def test_moderation_is_a_400_that_says_so(client: httpx.AsyncClient, provider: str) -> None:
    answer = await ask(client, provider, "moderation")
    assert answer.status_code == 400
    assert "moderation_blocked" in message_of(provider, answer.json())


@every_provider
async def test_an_exhausted_quota_is_a_429_that_says_so(client: httpx.AsyncClient, provider: str) -> None:
    answer = await ask(client, provider, "quota")
    assert answer.status_code == 429
    assert "insufficient_quota" in message_of(provider, answer.json())


@every_provider
@pytest.mark.parametrize(("fault", "said"), [("moderation200", "moderation_blocked"), ("failed200", "failed")])
async def test_a_200_can_carry_a_failure(
    client: httpx.AsyncClient, sandbox: Sandbox, provider: str, fault: str, said: str
) -> None:
    answer = await ask(client, provider, fault)
    assert answer.status_code == 200
    assert said in message_of(provider, answer.json())
    assert sandbox.world.journal.drawings[provider] == 0


@every_provider
async def test_a_200_can_carry_no_picture(client: httpx.AsyncClient, sandbox: Sandbox, provider: str) -> None:
    assert (await ask(client, provider, "noimage")).json()["data"] == []
    [entry] = (await ask(client, provider, "nullimage")).json()["data"]
    assert entry["b64_json"] is None
    assert sandbox.world.journal.drawings[provider] == 2, "drawn, though not handed out"


@every_provider
async def test_a_200_can_be_a_page(client: httpx.AsyncClient, provider: str) -> None:
    answer = await ask(client, provider, "html200")
    assert (answer.status_code, answer.headers["content-type"]) == (200, "text/html")
    assert answer.content.startswith(b"<!DOCTYPE html>")


@every_provider
async def test_an_address_can_come_where_base64_was_asked_for(client: httpx.AsyncClient, provider: str) -> None:
    [entry] = (await ask(client, provider, "urlonly")).json()["data"]
    assert not entry.get("b64_json")
    assert image_of((await client.get(entry["url"])).content).size == (64, 64)


async def test_base64_can_hold_characters_that_are_none(client: httpx.AsyncClient) -> None:
    [entry] = (await ask(client, "openai", "badbase64")).json()["data"]
    with pytest.raises(binascii.Error):
        base64.b64decode(entry["b64_json"], validate=True)


async def test_base64_can_hold_line_breaks(client: httpx.AsyncClient) -> None:
    answer = await ask(client, "openai", "newlines")
    assert b"\\n" in answer.content
    [entry] = answer.json()["data"]
    assert image_of(base64.b64decode(entry["b64_json"])).size == (64, 64)


async def test_base64_can_lack_its_padding(client: httpx.AsyncClient) -> None:
    [entry] = (await ask(client, "openai", "unpadded")).json()["data"]
    text = entry["b64_json"]
    assert not text.endswith("=")
    assert image_of(base64.b64decode(text + "=" * (-len(text) % 4))).size == (64, 64)


async def test_base64_can_hold_escapes_of_json(client: httpx.AsyncClient) -> None:
    answer = await ask(client, "nebula", "json_escaped")
    assert b"\\/" in answer.content
    assert b"/" not in answer.content.replace(b"\\/", b"")
    assert b"=" not in answer.content
    assert drawn(answer).size == (64, 64)


async def test_base64_can_be_a_data_url(client: httpx.AsyncClient) -> None:
    [entry] = (await ask(client, "nebul", "dataurl")).json()["data"]
    prefix, _, content = entry["b64_json"].partition(",")
    assert prefix == "data:image/png;base64"
    assert image_of(base64.b64decode(content)).size == (64, 64)


async def test_a_picture_can_end_too_early(client: httpx.AsyncClient) -> None:
    [entry] = (await ask(client, "netmind", "truncated_image")).json()["data"]
    data = base64.b64decode(entry["b64_json"], validate=True)
    assert data.startswith(b"\x89PNG")
    assert b"IEND" not in data


async def test_a_picture_can_be_a_page(client: httpx.AsyncClient) -> None:
    [entry] = (await ask(client, "netmind", "notimage")).json()["data"]
    assert base64.b64decode(entry["b64_json"], validate=True).startswith(b"<!DOCTYPE html>")


async def test_a_jpeg_can_be_claimed_to_be_a_png(client: httpx.AsyncClient) -> None:
    answer = await ask(client, "nebul", "lying_jpeg")
    assert answer.json()["output_format"] == "png"
    assert drawn(answer).format == "JPEG"


async def test_json_can_be_pretty(client: httpx.AsyncClient) -> None:
    answer = await ask(client, "netmind", "pretty")
    assert answer.content.count(b"\n") > 4
    assert drawn(answer).size == (64, 64)


async def test_json_can_be_declared_as_text(client: httpx.AsyncClient) -> None:
    answer = await ask(client, "netmind", "wrongtype")
    assert answer.headers["content-type"] == "text/plain"
    assert drawn(answer).size == (64, 64)


async def raw(client: httpx.AsyncClient, fault: str) -> tuple[str, bytes]:
    """The answer's content coding, and its body as it was sent."""
    body = {"prompt": f"a fox [[fault:{fault}]]", **BODIES["netmind"]}
    async with client.stream("POST", PATHS["netmind"], json=body) as answer:
        return answer.headers["content-encoding"], b"".join([piece async for piece in answer.aiter_raw()])


async def test_json_can_be_compressed_though_nobody_asked(client: httpx.AsyncClient) -> None:
    coding, body = await raw(client, "gzip")
    assert coding == "gzip"
    assert len(json.loads(gzip.decompress(body))["data"]) == 1


async def test_a_small_answer_can_unpack_to_a_large_one(client: httpx.AsyncClient) -> None:
    coding, body = await raw(client, "gzipbomb:8")
    assert coding == "gzip"
    assert len(body) < 64 * 1024
    assert len(json.loads(gzip.decompress(body))["data"][0]["b64_json"]) == 8 * 1024 * 1024


async def test_a_fault_that_nobody_knows_is_told(client: httpx.AsyncClient) -> None:
    answer = await ask(client, "openai", "nonsense")
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "unknown_fault")


async def test_a_request_that_breaks_the_providers_rules_is_refused_before_its_faults(
    client: httpx.AsyncClient,
) -> None:
    body = {"prompt": "a fox [[fault:503]]", **BODIES["netmind"], "n": 1}
    assert (await client.post(PATHS["netmind"], json=body)).status_code == 400
