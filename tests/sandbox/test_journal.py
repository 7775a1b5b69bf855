"""What the sandbox remembers, and how requests are shown."""

import hashlib
from typing import Any

import httpx
import pytest

from app.sandbox.incoming import Incoming
from app.sandbox.journal import PICTURES_KEPT, REQUESTS_KEPT, Gallery, Journal, described
from tests.sandbox.pictures import alpha_mask, plain, text, white_mask


async def last(client: httpx.AsyncClient, count: int = 1) -> list[dict[str, Any]]:
    answer = await client.get("/control/requests", params={"last": count})
    found = answer.json()
    assert isinstance(found, list)
    return found


@pytest.mark.anyio
async def test_a_form_is_shown_in_order_with_its_files_described(client: httpx.AsyncClient) -> None:
    image, mask = plain((80, 48)), alpha_mask()
    files = {"image": ("in.png", image, "image/png"), "mask": ("m.png", mask, "application/octet-stream")}
    await client.post("/nebul/v1/images/edits", data={"prompt": "a hat", "n": "2"}, files=files)
    [entry] = await last(client)
    assert (entry["provider"], entry["path"], entry["json"]) == ("nebul", "/nebul/v1/images/edits", None)
    assert entry["headers"]["authorization"] == "Bearer sk-test"
    assert [field["name"] for field in entry["form"]] == ["prompt", "n", "image", "mask"]
    assert entry["form"][0] == {"name": "prompt", "value": "a hat"}
    assert entry["form"][2] == {
        "name": "image",
        "filename": "in.png",
        "content_type": "image/png",
        "size": len(image),
        "sha256": hashlib.sha256(image).hexdigest(),
        "format": "png",
        "width": 80,
        "height": 48,
        "mode": "RGB",
    }
    assert (entry["form"][3]["mode"], entry["form"][3]["content_type"]) == ("RGBA", "application/octet-stream")


@pytest.mark.anyio
async def test_json_is_shown_in_order_with_its_pictures_described(client: httpx.AsyncClient) -> None:
    mask = white_mask()
    body = {"prompt": "x" * 2000, "mask": text(mask), "image": "%%%", "width": 64}
    await client.post("/nebula/api/v1/images/generation", json=body)
    [entry] = await last(client)
    assert list(entry["json"]) == list(body)
    assert entry["json"]["prompt"]["length"] == 2000
    assert entry["json"]["mask"]["sha256"] == hashlib.sha256(mask).hexdigest()
    assert (entry["json"]["mask"]["mode"], entry["json"]["mask"]["base64_length"]) == ("L", len(text(mask)))
    assert entry["json"]["image"] == {"invalid_base64": "%%%"}
    assert entry["json"]["width"] == 64


@pytest.mark.anyio
async def test_refused_requests_are_shown_too_oldest_first(client: httpx.AsyncClient) -> None:
    for number in range(3):
        await client.post("/netmind/v1/images/generations", json={"junk": number})
    assert [entry["json"]["junk"] for entry in await last(client, 2)] == [1, 2]
    assert await last(client, 0) == []


@pytest.mark.anyio
async def test_a_body_that_cannot_be_read_is_shown_with_the_reason(client: httpx.AsyncClient) -> None:
    headers = {"content-type": "multipart/form-data"}
    await client.post("/nebul/v1/images/edits", content=b"no boundary", headers=headers)
    await client.post("/nebul/v1/images/edits", content=b"a=b", headers={"content-type": "text/plain"})
    problems = [entry["problem"] for entry in await last(client, 2)]
    assert "boundary" in problems[0].lower()
    assert "text/plain" in problems[1]


def test_only_the_newest_requests_are_kept() -> None:
    journal = Journal(("netmind",))
    for number in range(REQUESTS_KEPT + 5):
        journal.saw("netmind", {"number": number})
    assert len(journal.last(10_000)) == REQUESTS_KEPT
    assert journal.last(1) == [{"provider": "netmind", "number": REQUESTS_KEPT + 4}]


def test_only_the_newest_pictures_are_kept() -> None:
    gallery = Gallery()
    names = [gallery.hang(b"picture", "png", "image/png") for _ in range(PICTURES_KEPT + 1)]
    assert gallery.get(names[0]) is None
    assert gallery.get(names[-1]) == ("image/png", b"picture")


def test_a_text_that_is_no_unicode_can_be_described() -> None:
    assert described(Incoming("/", {}, "application/json", json={"prompt": "\ud800" * 2000}))["problem"] is None
