"""Results: base64, links or bytes, in the format that was asked for, whatever the provider gives; and what is told of a
picture is what its bytes are."""

import asyncio
import base64
import re
from typing import Any

import openai
import pytest
from PIL import Image

from app.sandbox.server import Sandbox
from tests.live.conftest import Start
from tests.live.house import (
    GPT_IMAGE_2,
    KONTEXT,
    SCHNELL,
    House,
    at,
    bytes_of,
    decoded,
    fields_of,
    file_of,
    marked,
    models,
    picture,
    plain,
)
from tests.live.pictures import text
from tests.live.scripted import Scripted, answer, image_json
from tests.live.servers import Config, provider, sandbox_providers, served_by
from tests.live.wire import Reply, ask, edit, events, generate, post, request
from tests.live.wire import form as wire_form
from tests.pixels import encoded
from tests.waiting import PATIENCE

pytestmark = pytest.mark.anyio

SMALL = "64x48"
FORMATS = ["png", "jpeg", "webp"]


async def draw(port: int, accept: str | None = None, /, **fields: Any) -> Reply:
    headers = {} if accept is None else {"accept": accept}
    body = {"model": "schnell", "prompt": "a red fox", "size": SMALL, **fields}
    return await post(port, "/v1/images/generations", body, **headers)


async def fetch(port: int, url: str, method: str = "GET", **headers: Any) -> Reply:
    """What lies at the path of a link of the gateway's."""
    match = re.fullmatch(r"https?://[^/]+(/.*)", url)
    assert match, url
    return await ask(port, request(method, match[1], **headers))


def completed(reply: Reply) -> list[dict[str, Any]]:
    assert reply.status == 200, reply.body[:500]
    return [document for name, document in events(reply.body) if name.endswith(".completed")]


def assert_told_as_it_is(data: bytes, said: dict[str, Any], format: str | None = None) -> Image.Image:
    image = decoded(data)
    found = (image.format or "").lower()
    assert said["output_format"] == found
    assert said["size"] == f"{image.width}x{image.height}"
    assert format in (None, found)
    return image


# --- base64 and links ---


@pytest.mark.parametrize("model", ["schnell", "netmind-schnell", "sdxl", "gpt", "kontext"])
@pytest.mark.parametrize("n", [1, 3])
async def test_every_model_gives_links_that_can_be_fetched(home: House, model: str, n: int) -> None:
    reply = await draw(home.port, model=model, prompt=f"linked {n}", response_format="url", n=n)
    assert reply.status == 200, reply.body
    data = reply.json()["data"]
    assert len({image["url"] for image in data}) == n
    for image in data:
        assert "b64_json" not in image
        assert image["url"].startswith("http://gateway.localhost/files/")
        fetched = await fetch(home.port, image["url"])
        assert (fetched.status, fetched.header("content-type")) == (200, "image/png")
        assert fetched.header("content-length") == str(len(fetched.body))
        assert ".png?" in image["url"]
        assert_told_as_it_is(fetched.body, reply.json())


@pytest.mark.parametrize("model", ["schnell", "netmind-schnell", "gpt", "kontext"])
async def test_every_model_gives_base64_and_gives_it_unasked(home: House, model: str) -> None:
    for said in ({}, {"response_format": "b64_json"}, {"response_format": None}):
        reply = await draw(home.port, model=model, **said)
        assert_told_as_it_is(bytes_of(reply), reply.json())
        assert "url" not in reply.json()["data"][0]


async def test_a_link_has_the_extension_and_type_of_its_bytes(home: House) -> None:
    for format, extension in (("png", "png"), ("jpeg", "jpg"), ("webp", "webp")):
        reply = await draw(home.port, response_format="url", output_format=format)
        url = reply.json()["data"][0]["url"]
        assert f".{extension}?" in url
        fetched = await fetch(home.port, url)
        assert fetched.header("content-type") == f"image/{format}"
        assert_told_as_it_is(fetched.body, reply.json(), format)
        head = await fetch(home.port, url, "HEAD")
        assert (head.status, head.body, head.header("content-length")) == (200, b"", str(len(fetched.body)))
        part = await fetch(home.port, url, range="bytes=0-9")
        assert (part.status, part.body) == (206, fetched.body[:10])


async def test_a_link_that_was_tampered_with_is_refused(home: House) -> None:
    links = [
        (await draw(home.port, prompt=str(index), response_format="url")).json()["data"][0]["url"] for index in range(2)
    ]
    path, _, query = links[0].partition("?")
    fields = dict(re.findall(r"(\w+)=([^&]*)", query))
    wrong = [
        path,
        links[1].partition("?")[0] + "?" + query,
        *(links[0].replace(value, ("1" if value[0] == "0" else "0") + value[1:]) for value in fields.values()),
        links[0] + "&x=1",
        links[0].replace("/files/", "/files/../files/"),
    ]
    for url in wrong:
        reply = await fetch(home.port, url)
        assert reply.status in (403, 404), url
        assert reply.error()["code"] in ("url_invalid", "url_expired", "not_found"), url
    assert (await fetch(home.port, links[0])).status == 200


async def test_a_link_expires(start: Start, sandbox: Sandbox) -> None:
    config: Config = {"providers": sandbox_providers(sandbox.base_url), "models": models()}
    gateway = await start({**config, "files": {"lifetime_seconds": 1}})
    url = (await draw(gateway.port, response_format="url")).json()["data"][0]["url"]
    async with asyncio.timeout(PATIENCE):
        while (reply := await fetch(gateway.port, url)).status == 200:
            await asyncio.sleep(0.05)
    assert reply.status in (403, 404)
    assert reply.error()["code"] in ("url_expired", "file_not_found")


async def test_links_begin_as_the_configuration_says(start: Start, sandbox: Sandbox) -> None:
    config: Config = {"providers": sandbox_providers(sandbox.base_url), "models": models()}
    gateway = await start({**config, "files": {"public_url": "https://img.example.com/base/"}})
    url = (await draw(gateway.port, response_format="url")).json()["data"][0]["url"]
    assert url.startswith("https://img.example.com/base/files/")
    own = url.replace("/base/", "/")
    assert (await fetch(gateway.port, own)).header("content-type") == "image/png"


async def test_links_begin_as_the_caller_found_the_gateway(start: Start, sandbox: Sandbox) -> None:
    config: Config = {"providers": sandbox_providers(sandbox.base_url), "models": models()}
    gateway = await start({**config, "server": {"allowed_hosts": ["images.example.com"]}})
    body = b'{"model": "schnell", "prompt": "x", "size": "64x48", "response_format": "url"}'
    message = request("POST", "/v1/images/generations", body, content_type="application/json")
    reply = await ask(gateway.port, message.replace(b"host: gateway.localhost", b"host: images.example.com:8443"))
    assert reply.json()["data"][0]["url"].startswith("http://images.example.com:8443/files/")


async def test_who_says_nothing_gets_what_the_key_or_the_server_says(start: Start, sandbox: Sandbox) -> None:
    config: Config = {"providers": sandbox_providers(sandbox.base_url), "models": models()}
    secrets = {"new": "secret-of-new-one", "old": "secret-of-old-two"}
    keys = [
        {"name": "new", "key": secrets["new"], "default_response_format": "b64_json"},
        {"name": "old", "key": secrets["old"]},
    ]
    gateway = await start({**config, "keys": keys, "server": {"default_response_format": "url"}})

    async def kind(name: str, **said: Any) -> list[str]:
        body = {"model": "schnell", "prompt": "x", "size": SMALL, **said}
        reply = await post(gateway.port, "/v1/images/generations", body, authorization=f"Bearer {secrets[name]}")
        assert reply.status == 200, reply.body
        return sorted(set(reply.json()["data"][0]) & {"url", "b64_json"})

    assert await kind("new") == ["b64_json"]
    assert await kind("old") == ["url"]
    assert await kind("new", response_format="url") == ["url"]
    assert await kind("old", response_format="b64_json") == ["b64_json"]
    for said, form in (({}, "b64_json"), ({"response_format": "url"}, "url")):
        body = {"model": "schnell", "prompt": "x", "size": SMALL, "stream": True, **said}
        headers = {"authorization": f"Bearer {secrets['old']}"}
        [document] = completed(await post(gateway.port, "/v1/images/generations", body, **headers))
        assert {"url", "b64_json"} & set(document) == {form}


@pytest.mark.parametrize("model", ["schnell", "gpt", "kontext"])
async def test_streams_give_links_too(home: House, model: str) -> None:
    reply = await draw(home.port, model=model, response_format="url", stream=True, n=2)
    for document in completed(reply):
        assert "b64_json" not in document
        fetched = await fetch(home.port, document["url"])
        assert_told_as_it_is(fetched.body, document)


async def test_edits_in_both_doors_give_links(home: House) -> None:
    photo = file_of(plain())
    form = await edit(
        home.port, ("image", ("i.png", photo)), ("model", "gpt"), ("prompt", "x"), ("response_format", "url")
    )
    images = [{"image_url": "data:image/png;base64," + base64.b64encode(photo).decode()}]
    body = {"model": "gpt", "prompt": "x", "images": images, "response_format": "url"}
    for reply in (form, await post(home.port, "/v1/images/edits", body)):
        assert (await fetch(home.port, reply.json()["data"][0]["url"])).status == 200


async def test_partial_images_are_links_too(home: House) -> None:
    reply = await draw(home.port, model="gpt", response_format="url", stream=True, partial_images=2, n=2)
    found = events(reply.body)
    assert len({document["url"] for _, document in found}) == 6
    for _, document in found:
        assert_told_as_it_is((await fetch(home.port, document["url"])).body, document)


async def test_links_are_all_or_an_error(start: Start, sandbox: Sandbox) -> None:
    gateway = await start({"providers": sandbox_providers(sandbox.base_url), "models": models()})
    for fault in ("truncated_image", "503"):
        reply = await draw(gateway.port, response_format="url", n=3, prompt=f"x [[fault*1:{fault}]]")
        assert reply.status in (502, 503)
        assert reply.error()["code"] in ("upstream_broken_answer", "upstream_unavailable")


# --- the provider's links ---


def passing(sandbox: Sandbox) -> Config:
    providers = sandbox_providers(sandbox.base_url)
    for entry in providers.values():
        entry["urls"] = "pass"
    return {"providers": providers, "models": models()}


@pytest.mark.parametrize("model", ["netmind-schnell", "kontext"])
async def test_the_providers_own_links_pass_where_the_configuration_says_so(
    start: Start, sandbox: Sandbox, model: str
) -> None:
    gateway = await start(passing(sandbox))
    reply = await draw(gateway.port, model=model, response_format="url", n=3)
    urls = [image["url"] for image in reply.json()["data"]]
    assert len(set(urls)) == 3
    for url in urls:
        assert url.startswith(f"{sandbox.base_url}/pictures/")
    port = int(sandbox.base_url.rpartition(":")[2])
    assert decoded((await fetch(port, urls[0])).body).size == (64, 48)
    [document] = completed(await draw(gateway.port, model=model, response_format="url", stream=True))
    assert document["url"].startswith(f"{sandbox.base_url}/pictures/")
    reply = await draw(gateway.port, model=model)
    assert_told_as_it_is(bytes_of(reply), reply.json())


async def test_the_providers_own_links_pass_where_links_are_the_default(start: Start, sandbox: Sandbox) -> None:
    gateway = await start({**passing(sandbox), "server": {"default_response_format": "url"}})
    for model in ("netmind-schnell", "kontext"):
        url = (await draw(gateway.port, model=model)).json()["data"][0]["url"]
        assert url.startswith(f"{sandbox.base_url}/pictures/")
    assert bytes_of(await draw(gateway.port, model="kontext", response_format="b64_json"))
    url = (await draw(gateway.port, model="gpt")).json()["data"][0]["url"]  # a host that gives no links
    assert url.startswith("http://gateway.localhost/files/")


async def test_a_providers_relative_link_passes_as_a_whole_address(start: Start, upstream: Scripted) -> None:
    links = {"/v1/images/abc/content?sig=a%2Fb": upstream.base_url + "/v1/images/abc/content?sig=a%2Fb",
             "https://cdn.example.com/x?": "https://cdn.example.com/x?", "http://[bad": "http://[bad"}  # fmt: skip
    said = answer({"created": 1, "data": [{"url": link} for link in links]})
    gateway = await start(
        {"providers": {"a": provider(upstream.at("a", said), urls="pass")}, "models": {"flux": served_by("a")}}
    )
    reply = await generate(gateway.port, response_format="url", n=3)
    assert [image["url"] for image in reply.json()["data"]] == list(links.values())
    [document] = completed(await generate(gateway.port, response_format="url", stream=True))
    assert document["url"] == next(iter(links.values()))


async def test_a_link_to_another_format_than_was_asked_for_does_not_pass(start: Start, sandbox: Sandbox) -> None:
    """NetMind knows no formats, so its link would be one to a PNG."""
    gateway = await start(passing(sandbox))
    reply = await draw(gateway.port, model="netmind-schnell", response_format="url", output_format="jpeg")
    url = reply.json()["data"][0]["url"]
    assert url.startswith("http://gateway.localhost/files/")
    assert_told_as_it_is((await fetch(gateway.port, url)).body, reply.json(), "jpeg")


@pytest.mark.parametrize("model", ["schnell", "netmind-schnell", "kontext", "gpt"])
async def test_an_image_behind_a_link_is_given_in_whatever_form_is_asked_for(home: House, model: str) -> None:
    prompt = f"only a link at {model} [[fault:urlonly]]"
    reply = await draw(home.port, model=model, prompt=prompt)
    assert_told_as_it_is(bytes_of(reply), reply.json())
    reply = await draw(home.port, model=model, prompt=prompt, response_format="url", n=2)
    for image in reply.json()["data"]:
        assert image["url"].startswith("http://gateway.localhost/files/")
        assert_told_as_it_is((await fetch(home.port, image["url"])).body, reply.json())
    reply = await draw(home.port, "image/webp", model=model, prompt=prompt)
    assert (reply.header("content-type"), decoded(reply.body).format) == ("image/webp", "WEBP")
    if model != "gpt":  # the simulated one streams what it was asked for
        [document] = completed(await draw(home.port, model=model, prompt=prompt, stream=True))
        assert_told_as_it_is(base64.b64decode(document["b64_json"]), document)


async def test_a_link_to_a_private_host_is_not_followed_and_not_paid_for_twice(
    start: Start, upstream: Scripted, home: House
) -> None:
    url = (await draw(home.port, response_format="url")).json()["data"][0]["url"]
    providers = {"a": provider(upstream.at("a", answer({"created": 1, "data": [{"url": url}]})))}
    gateway = await start({"providers": providers, "models": {"flux": served_by("a")}})
    reply = await generate(gateway.port)
    assert reply.status == 502
    assert reply.header("x-should-retry") == "false"
    assert "signature" not in reply.error()["message"]
    assert len(upstream.received("a")) == 1


# --- bytes ---


@pytest.mark.parametrize("model", ["schnell", "netmind-schnell", "seedream", "gpt", "kontext"])
@pytest.mark.parametrize("format", FORMATS)
async def test_one_image_comes_as_its_bytes(home: House, model: str, format: str) -> None:
    size = "512x512" if model == "seedream" else SMALL
    reply = await draw(home.port, f"image/{format}", model=model, size=size)
    assert reply.status == 200, reply.body
    assert reply.header("content-type") == f"image/{format}"
    assert (decoded(reply.body).format or "").lower() == format
    assert reply.header("x-gateway-attempts") == "1"
    assert reply.header("x-request-id")
    assert reply.header("vary") == "Accept"


@pytest.mark.parametrize(
    ("accept", "content_type"),
    [
        ("image/png", "image/png"),
        ("image/jpg", "image/jpeg"),
        ("IMAGE/WebP", "image/webp"),
        ("image/*", "image/png"),
        ("image/*, */*;q=0.8", "image/png"),
        ("image/webp;q=0.4, image/png;q=0.6", "image/png"),
        ("image/avif,image/webp,*/*;q=0.8", "image/webp"),
        ("image/avif;q=0.9,application/json;q=0.5", "application/json"),
        ("*/*;q=0.8", "application/json"),
        ("*/*", "application/json"),
        ("application/json", "application/json"),
        ("image/png;q=0.5,application/json", "application/json"),
        ("application/json;q=0.2, image/jpeg", "image/jpeg"),
        ("image/png;q=0", "application/json"),
        ("text/html", "application/json"),
        ("", "application/json"),
        (";;,,", "application/json"),
        ("image/png;q=x", "application/json"),
    ],
)
async def test_the_best_type_that_is_accepted_decides(home: House, accept: str, content_type: str) -> None:
    reply = await draw(home.port, accept)
    assert (reply.status, reply.header("content-type")) == (200, content_type), reply.body
    if content_type != "application/json":
        assert Image.MIME[decoded(reply.body).format or ""] == content_type


@pytest.mark.parametrize(
    ("accept", "said", "param", "code"),
    [
        ("image/gif", {}, "Accept", "unsupported_accept"),
        ("image/avif", {}, "Accept", "unsupported_accept"),
        ("image/png", {"n": 2}, "n", "invalid_value"),
        ("image/png", {"output_format": "jpeg"}, "output_format", "invalid_value"),
        ("image/jpeg", {"background": "transparent", "model": "gpt"}, "background", "invalid_value"),
        ("image/png", {"output_compression": 50}, "output_compression", "invalid_png_output_compression"),
    ],
)
async def test_a_header_and_a_body_that_contradict_each_other_are_refused(
    home: House, accept: str, said: dict[str, Any], param: str, code: str
) -> None:
    reply = await draw(home.port, accept, prompt=f"never drawn {accept} {sorted(said)}", **said)
    assert (reply.status, reply.error()["param"], reply.error()["code"]) == (400, param, code)
    assert home.seen(f"never drawn {accept} {sorted(said)}") == []


async def test_header_and_body_may_agree(home: House) -> None:
    reply = await draw(home.port, "image/jpeg", output_format="jpeg", output_compression=10, response_format="url")
    assert (reply.header("content-type"), decoded(reply.body).format) == ("image/jpeg", "JPEG")


async def test_a_failure_is_json_whatever_is_accepted(home: House) -> None:
    reply = await draw(home.port, "image/png", model="no such model")
    assert (reply.status, reply.error()["param"]) == (400, "model")


async def test_a_stream_stays_a_stream_whatever_is_accepted(home: House) -> None:
    assert len(completed(await draw(home.port, "image/png", stream=True))) == 1


async def test_the_sdk_reads_the_bytes(home: House) -> None:
    client = openai.AsyncOpenAI(base_url=f"{home.gateway.url}/v1", api_key="none", max_retries=0)
    async with (
        client,
        client.images.with_streaming_response.generate(
            model="schnell", prompt="a fox", size="64x48", extra_headers={"Accept": "image/webp"}
        ) as response,
    ):
        data = b"".join([piece async for piece in response.iter_bytes()])
    assert response.headers["content-type"] == "image/webp"
    assert decoded(data).format == "WEBP"


# --- formats ---


@pytest.mark.parametrize("model", ["schnell", "netmind-schnell", "sdxl", "seedream", "gpt", "kontext"])
@pytest.mark.parametrize("format", FORMATS)
async def test_a_format_is_drawn_or_converted_and_told(home: House, model: str, format: str) -> None:
    size = "512x512" if model == "seedream" else SMALL
    prompt = f"as {format}"
    reply = await draw(home.port, model=model, size=size, prompt=prompt, output_format=format)
    assert_told_as_it_is(bytes_of(reply), reply.json(), format)
    assert reply.header("x-gateway-dropped") is None
    sent = home.seen(prompt)[-1]
    assert sent.get("output_format") == (format if model in ("gpt", "kontext") else None)
    reply = await draw(home.port, model=model, size=size, output_format=format, stream=True)
    [document] = completed(reply)
    assert_told_as_it_is(base64.b64decode(document["b64_json"]), document, format)


async def test_a_format_not_asked_for_is_the_providers_and_told(home: House) -> None:
    reply = await draw(home.port, model="seedream", size="512x512")
    assert_told_as_it_is(bytes_of(reply), reply.json(), "jpeg")


@pytest.mark.parametrize("model", ["schnell", "gpt", "kontext", "netmind-schnell"])
@pytest.mark.parametrize("asked", [None, *FORMATS])
async def test_a_provider_that_lies_about_the_format_deceives_nobody(
    home: House, model: str, asked: str | None
) -> None:
    prompt = f"no png at all {asked} [[fault:lying_jpeg]]"
    said = {} if asked is None else {"output_format": asked}
    reply = await draw(home.port, model=model, prompt=prompt, **said)
    assert_told_as_it_is(bytes_of(reply), reply.json(), asked or "jpeg")
    reply = await draw(home.port, model=model, prompt=prompt, response_format="url", **said)
    fetched = await fetch(home.port, reply.json()["data"][0]["url"])
    assert fetched.header("content-type") == f"image/{asked or 'jpeg'}"


async def test_a_provider_that_lies_about_the_size_deceives_nobody(start: Start, upstream: Scripted) -> None:
    answered = image_json(text(file_of(plain((40, 30)))), size="1024x1024", output_format="webp")
    providers = {"a": provider(upstream.at("a", answer(answered)))}
    gateway = await start({"providers": providers, "models": {"flux": served_by("a")}})
    reply = await generate(gateway.port)
    assert_told_as_it_is(bytes_of(reply), reply.json(), "png")


async def test_a_format_that_openai_does_not_know_is_told_and_can_be_converted(
    start: Start, upstream: Scripted
) -> None:
    bmp = encoded(Image.new("RGB", (64, 48), "red"), "BMP")
    answered = image_json(base64.b64encode(bmp).decode(), output_format="png", size="1024x1024")
    providers = {"a": provider(upstream.at("a", answer(answered)))}
    gateway = await start({"providers": providers, "models": {"flux": served_by("a")}})
    reply = await generate(gateway.port, size="1024x1024")
    assert (bytes_of(reply), reply.json()["output_format"]) == (bmp, "bmp")
    assert "size" not in reply.json()
    [event] = completed(await generate(gateway.port, size="1024x1024", stream=True))
    assert (event["output_format"], event["size"]) == ("bmp", "auto")
    reply = await generate(gateway.port, output_format="webp")
    assert assert_told_as_it_is(bytes_of(reply), reply.json(), "webp").size == (64, 48)


async def test_a_transparent_background_is_not_told_of_an_opaque_picture(start: Start, upstream: Scripted) -> None:
    answered = image_json(base64.b64encode(encoded(Image.new("RGB", (64, 48)))).decode())
    providers = {"a": provider(upstream.at("a", answer(answered)))}
    gateway = await start({"providers": providers, "models": {"flux": served_by("a")}})
    assert "background" not in (await generate(gateway.port, background="transparent")).json()
    [event] = completed(await generate(gateway.port, background="transparent", stream=True))
    assert event["background"] == "opaque"


@pytest.mark.parametrize("fields", [{}, {"response_format": "url"}, {"stream": True}, {"output_format": "jpeg"}])
async def test_an_image_that_a_provider_gives_as_a_data_url_is_an_image(
    start: Start, upstream: Scripted, fields: dict[str, Any]
) -> None:
    url = "data:image/png;base64," + base64.b64encode(encoded(Image.new("RGB", (64, 48)))).decode()
    providers = {"a": provider(upstream.at("a", answer({"created": 1, "data": [{"url": url}]})))}
    gateway = await start({"providers": providers, "models": {"flux": served_by("a")}})
    reply = await generate(gateway.port, **fields)
    if "stream" in fields:
        [said] = completed(reply)
        data = base64.b64decode(said["b64_json"])
    elif "response_format" in fields:
        said = reply.json()
        data = (await fetch(gateway.port, said["data"][0]["url"])).body
    else:
        said, data = reply.json(), bytes_of(reply)
    assert_told_as_it_is(data, said, fields.get("output_format", "png"))


@pytest.mark.parametrize("model", ["schnell", "gpt", "kontext"])
@pytest.mark.parametrize("format", ["jpeg", "webp"])
async def test_compression_makes_a_picture_smaller(home: House, model: str, format: str) -> None:
    async def size(compression: int) -> int:
        said = {"output_format": format, "output_compression": compression}
        reply = await draw(home.port, model=model, size="256x256", prompt="noise", **said)
        assert reply.header("x-gateway-dropped") is None
        assert (decoded(bytes_of(reply)).format or "").lower() == format
        return len(bytes_of(reply))

    assert await size(5) < await size(60) < await size(95)


async def test_compression_without_a_format_is_reported_where_nobody_honours_it(home: House) -> None:
    reply = await draw(home.port, output_compression=50)
    assert (reply.status, reply.header("x-gateway-dropped")) == (200, "output_compression")
    reply = await draw(home.port, output_format="png", output_compression=50)
    assert reply.error()["code"] == "invalid_png_output_compression"


@pytest.mark.parametrize("format", ["gif", "svg"])
@pytest.mark.parametrize("model", ["schnell", "gpt", "kontext"])
async def test_a_format_that_nobody_makes_is_refused(home: House, model: str, format: str) -> None:
    error = (await draw(home.port, model=model, output_format=format)).error()
    assert error["param"] == "output_format"
    assert all(able in error["message"] for able in FORMATS)


@pytest.mark.parametrize("model", ["gpt", "kontext"])
@pytest.mark.parametrize("format", [None, "png", "webp"])
async def test_transparency_is_kept(home: House, model: str, format: str | None) -> None:
    said = {} if format is None else {"output_format": format}
    reply = await draw(home.port, model=model, background="transparent", **said)
    image = assert_told_as_it_is(bytes_of(reply), reply.json(), format or "png")
    assert image.getchannel("A").getextrema() == (0, 255)
    assert reply.json()["background"] == "transparent"


async def test_transparency_survives_conversion(start: Start, sandbox: Sandbox) -> None:
    gpt: Config = at("openai", "gpt-image-2", **{**GPT_IMAGE_2, "output_formats": ["png"]})
    gateway = await start({"providers": sandbox_providers(sandbox.base_url), "models": {"gpt": gpt}})
    reply = await draw(gateway.port, model="gpt", background="transparent", output_format="webp")
    image = assert_told_as_it_is(bytes_of(reply), reply.json(), "webp")
    assert image.getchannel("A").getextrema() == (0, 255)
    assert "output_format" not in fields_of(sandbox.world.journal.last(1)[0])


async def test_transparency_is_refused_where_it_cannot_be_had(home: House) -> None:
    for model, said in (("schnell", {}), ("netmind-schnell", {}), ("gpt", {"output_format": "jpeg"})):
        reply = await draw(home.port, model=model, background="transparent", **said)
        assert (reply.status, reply.error()["param"]) == (400, "background")
    reply = await draw(home.port, background="opaque")
    assert (reply.status, reply.header("x-gateway-dropped")) == (200, "background")


@pytest.mark.parametrize("format", ["jpeg", "webp"])
async def test_partial_images_are_converted_too(start: Start, sandbox: Sandbox, format: str) -> None:
    gpt: Config = at("openai", "gpt-image-2", **{**GPT_IMAGE_2, "output_formats": ["png"]})
    gateway = await start({"providers": sandbox_providers(sandbox.base_url), "models": {"gpt": gpt}})
    reply = await draw(gateway.port, model="gpt", output_format=format, stream=True, partial_images=2)
    found = events(reply.body)
    assert [name.rpartition(".")[2] for name, _ in found] == ["partial_image", "partial_image", "completed"]
    for _, document in found:
        assert_told_as_it_is(base64.b64decode(document["b64_json"]), document, format)


@pytest.mark.parametrize("model", ["fill", "netmind-fill", "kontext", "gpt", "redux"])
async def test_edits_and_variations_come_in_the_format_asked_for(home: House, model: str) -> None:
    files = [("image", ("i.png", file_of(plain())))]
    files += [("mask", ("m.png", marked()))] if "fill" in model else []
    fields = [("model", model), ("output_format", "webp"), ("output_compression", "30")]
    fields += [] if model == "redux" else [("prompt", "x")]
    path = "/v1/images/variations" if model == "redux" else "/v1/images/edits"
    reply = await edit(home.port, *files, *fields, path=path)
    assert_told_as_it_is(bytes_of(reply), reply.json(), "webp")


async def test_a_picture_is_the_same_converted_or_not(home: House) -> None:
    same = {"prompt": "one and the same", "seed": 5}
    as_png = picture(await draw(home.port, **same)).convert("RGB")
    as_webp = picture(await draw(home.port, output_format="webp", **same)).convert("RGB")
    for place in ((3, 3), (60, 3), (30, 20)):
        one, other = as_png.getpixel(place), as_webp.getpixel(place)
        assert isinstance(one, tuple)
        assert isinstance(other, tuple)
        assert all(abs(a - b) < 40 for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("n", [1, 3])
@pytest.mark.parametrize("stream", [False, True])
async def test_a_picture_that_cannot_be_converted_is_an_error_and_not_paid_for_twice(
    start: Start, upstream: Scripted, n: int, stream: bool
) -> None:
    avif = b"\0\0\0\x18ftypavif\0\0\0\0mif1avif" + b"\0" * 999
    providers = {"a": provider(upstream.at("a", answer(image_json(text(avif)))))}
    models = {"flux": served_by("a", profile={"output_formats": ["gif"], "max_n": 1, "streaming": False})}
    gateway = await start({"providers": providers, "models": models})
    reply = await generate(gateway.port, output_format="png", n=n, stream=stream)
    assert reply.status == 502
    assert reply.header("x-should-retry") == "false"
    assert reply.error()["code"] == "upstream_broken_answer"
    assert len(upstream.received("a")) == n


async def test_several_pictures_are_converted_in_their_order(home: House) -> None:
    said = {"prompt": "several", "n": 3, "seed": 1}
    drawn = [picture(await draw(home.port, **{**said, "n": 1, "seed": seed})).convert("RGB") for seed in (1, 2, 3)]
    reply = await draw(home.port, **said, output_format="webp", output_compression=100)
    for index, expected in enumerate(drawn):
        image = picture(reply, index).convert("RGB")
        assert list(image.resize((4, 3)).tobytes()) == pytest.approx(list(expected.resize((4, 3)).tobytes()), abs=20)
        assert reply.json()["data"][index]["seed"] == index + 1


async def test_edits_come_as_bytes_through_both_doors(home: House) -> None:
    photo = file_of(plain())
    images = [{"image_url": "data:image/png;base64," + base64.b64encode(photo).decode()}]
    body = {"model": "gpt", "prompt": "x", "images": images}
    in_json = await post(home.port, "/v1/images/edits", body, accept="image/webp")
    content_type, form = wire_form(("model", "gpt"), ("prompt", "x"), ("image", ("i.png", photo)))
    message = request("POST", "/v1/images/edits", form, content_type=content_type, accept="image/webp")
    for reply in (in_json, await ask(home.port, message)):
        assert (reply.status, reply.header("content-type")) == (200, "image/webp")
        assert decoded(reply.body).size == (64, 48)


async def test_a_format_goes_to_the_provider_that_can_and_is_converted_for_the_next(
    start: Start, sandbox: Sandbox
) -> None:
    deployments = [{"provider": "nebul", "model": KONTEXT}, {"provider": "nebula", "model": SCHNELL}]
    providers = sandbox_providers(sandbox.base_url)
    gateway = await start({"providers": providers, "models": {"schnell": {"deployments": deployments}}})
    reply = await draw(gateway.port, output_format="jpeg", prompt="x [[fault@nebul:503]]")
    assert_told_as_it_is(bytes_of(reply), reply.json(), "jpeg")
    assert reply.header("x-gateway-provider") == "nebula"
    seen = [fields_of(entry).get("output_format") for entry in sandbox.world.journal.last(2)]
    assert seen == ["jpeg", None]


async def test_what_is_told_of_quality_and_background_is_what_holds(home: House) -> None:
    """The provider's word before the caller's, and the caller's only where it was heeded."""
    for said, told in (("auto", "medium"), ("high", "high")):
        reply = await draw(home.port, model="gpt", quality=said, background="opaque")
        assert (reply.json()["quality"], reply.json()["background"]) == (told, "opaque")
    reply = await draw(home.port, quality="high", background="opaque")
    assert not {"quality", "background"} & set(reply.json())
    [document] = completed(await draw(home.port, quality="high", background="opaque", stream=True))
    assert (document["quality"], document["background"]) == ("auto", "auto")


@pytest.mark.parametrize("fault", ["truncated_image", "cut", "badbase64", "notimage"])
async def test_bytes_of_a_picture_that_breaks_never_look_whole(start: Start, sandbox: Sandbox, fault: str) -> None:
    gateway = await start({"providers": sandbox_providers(sandbox.base_url), "models": models()})
    for format in ("png", "webp"):
        reply = await draw(gateway.port, f"image/{format}", size="256x256", prompt=f"x [[fault:{fault}]]")
        assert reply.status == 502 or not reply.complete
        if reply.status == 502:
            assert reply.header("x-should-retry") == "false"
