"""In which form images leave, and what is held of them meanwhile."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import pytest

from app.access.keyring import Key
from app.catalog.deployments import Deployment, Provider
from app.catalog.fitting import Fitted
from app.catalog.profiles import Profile
from app.errors import Unavailable, UpstreamFailed
from app.events import Done, Event, ImageBegins, ImageData, ImageEnds, Served
from app.gateway.call import Call
from app.gateway.delivery import Delivery
from app.images import ImageRequest, ResponseFormat
from app.storage.disk import DiskStore
from app.storage.files import StoredFile
from app.storage.spool import Uploads
from tests.drawings import into, play, wanted

pytestmark = pytest.mark.anyio
IMAGE: tuple[Event, ...] = (ImageBegins(0), ImageData(b"aGVsbG8="), ImageEnds())  # of 5 bytes


@pytest.fixture
def store(tmp_path: Path) -> DiskStore:
    return DiskStore(tmp_path, lifetime=100, max_bytes=5, clock=lambda: 1000.0)


def calling(request: ImageRequest, key: ResponseFormat | None = None) -> Call:
    who = Key("a", "a", default_response_format=key)
    return Call(request, who, Uploads(), id="run", base_url="https://h")


def link(base_url: str, key: str, file: StoredFile) -> str:
    assert key == "a"
    return f"{base_url}/{file.name}"


def fitted(model: ResponseFormat | None = None, urls: Literal["store", "pass"] = "store") -> Fitted:
    profile = Profile(default_response_format=model)
    return Fitted(Deployment(Provider("p", "openai", "https://p/v1", urls=urls), "m", profile), wanted())


async def fill(store: DiskStore) -> None:
    await (await store.begin()).write(b"12345")


@pytest.mark.parametrize(
    ("said", "key", "model", "gateway", "result"),
    [
        ("b64_json", "url", "url", "url", "b64_json"),
        (None, "b64_json", "url", "url", "b64_json"),
        (None, None, "b64_json", "url", "b64_json"),
        (None, None, None, "url", "url"),
        ("url", "b64_json", "b64_json", "b64_json", "url"),
    ],
)
def test_the_callers_word_counts_before_its_keys_the_models_and_the_gateways(
    store: DiskStore,
    said: ResponseFormat | None,
    key: ResponseFormat | None,
    model: ResponseFormat | None,
    gateway: ResponseFormat,
    result: ResponseFormat,
) -> None:
    call = calling(wanted(response_format=said), key)
    assert Delivery(store, gateway, link).result(call, [fitted(model)]) == result


@pytest.mark.parametrize("where", ["key", "model", "gateway"])
def test_a_default_does_not_change_a_stream(store: DiskStore, where: str) -> None:
    """The SDKs' types of events know `b64_json` alone."""
    delivery = Delivery(store, "url" if where == "gateway" else "b64_json", link)
    key: ResponseFormat | None = "url" if where == "key" else None
    candidates = [fitted("url" if where == "model" else None)]
    assert delivery.result(calling(wanted(), key), candidates) == "url"
    assert delivery.result(calling(wanted(stream=True), key), candidates) == "b64_json"
    assert delivery.result(calling(wanted(stream=True, response_format="url"), key), candidates) == "url"


async def test_links_are_refused_before_anything_is_drawn_while_there_is_no_room(store: DiskStore) -> None:
    await fill(store)
    delivery = Delivery(store, "b64_json", link)
    call = calling(wanted(response_format="url"))
    for candidates in ([fitted()], [fitted(urls="pass"), fitted()]):
        with pytest.raises(Unavailable, match="max_mb"):
            delivery.result(call, candidates)
    assert delivery.result(call, [fitted(urls="pass")]) == "url"
    assert delivery.result(calling(wanted()), [fitted()]) == "b64_json"


@pytest.mark.parametrize("stream", [True, False])
async def test_linked_files_are_held_unless_the_caller_gets_no_link(store: DiskStore, stream: bool) -> None:
    delivery, call = Delivery(store, "b64_json", link), calling(wanted(response_format="url", stream=stream))
    call.result = "url"
    told: list[Event] = []
    with pytest.raises(UpstreamFailed):
        async with delivery.deliver(call, into(told)) as sink:
            await play([Served("p", "m", 1), *IMAGE, UpstreamFailed("broken")], sink)
    assert bool(told) is stream
    assert store.held == (5 if stream else 0)
    call.files.close()
    async with delivery.deliver(call, into(told)) as sink:
        await play([Served("p", "m", 1), *IMAGE, Done()], sink)
    assert told[-1] == Done()
    assert store.held == 5
    call.files.close()
    assert store.held == 0
