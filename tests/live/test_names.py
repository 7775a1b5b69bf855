"""The names of models as clients send them, with the official SDK: hard-coded ones, none at all, and misspelt ones."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import openai
import pytest

from app.sandbox.server import Sandbox
from tests.live.house import FILL, KONTEXT, SCHNELL, file_of, marked, plain
from tests.live.loops import in_thread
from tests.live.servers import Config, Gateway, sandbox_providers, serving
from tests.live.wire import ask, edit, post, request

pytestmark = pytest.mark.anyio

KEY = "a-key-of-some-team"
PICTURE = ("fox.png", file_of(plain((64, 64))))
KNOWN = {  # the names that clients hard-code, and the form of the answer that they then expect
    "gpt-image-1": "b64_json",
    "gpt-image-1.5": "b64_json",
    "gpt-image-1-mini": "b64_json",
    "dall-e-2": "url",
    "dall-e-3": "url",
}


def client(gateway: Gateway, key: str = KEY) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(base_url=f"{gateway.url}/v1", api_key=key, max_retries=0)


async def vary(sdk: openai.AsyncOpenAI, **options: Any) -> Any:
    with pytest.warns(DeprecationWarning):  # the SDK's own: OpenAI has given variations up
        return await sdk.images.create_variation(**options)


def form_of(answer: Any) -> str:
    """The one form in which the answer has its images."""
    [form] = {"url" if image.url else "b64_json" for image in answer.data}
    return form


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """A gateway with no configuration at all."""
    with in_thread(lambda: serving({}, tmp_path_factory.mktemp("bare"))) as running:
        yield running


@pytest.fixture(scope="module")
def named(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """A gateway with aliases over the models of its presets, and keys that may use some of them."""

    def key(name: str, *models: str, **more: str) -> Config:
        return {"name": name, "key": f"{name}-{KEY}", "models": models or ["*"], **more}

    def config(base_url: str) -> Config:
        providers = sandbox_providers(base_url)
        del providers["openai"], providers["bfl"]
        return {
            "providers": providers,
            "aliases": {
                "gpt-image-1": KONTEXT,
                "dall-e-*": {"model": SCHNELL, "default_response_format": "url"},
                "linked": {"model": "gpt-image-1", "default_response_format": "url"},
            },
            "default_model": {"generations": "dall-e-3", "edits": KONTEXT},
            "keys": [
                key("all"),
                key("base64", default_response_format="b64_json"),
                key("alias", "gpt-image-1"),
                key("second", "dall-e-2"),
                key("target", SCHNELL),
            ],
        }

    @asynccontextmanager
    async def both() -> AsyncIterator[Gateway]:
        async with Sandbox() as sandbox, serving(config(sandbox.base_url), tmp_path_factory.mktemp("named")) as running:
            yield running

    with in_thread(both) as running:
        yield running


# --- the sandbox ---


@pytest.mark.parametrize("model", KNOWN)
async def test_the_sandbox_draws_under_the_usual_names(bare: Gateway, model: str) -> None:
    async with client(bare) as sdk:
        drawn = await sdk.images.generate(model=model, prompt="a fox", size="1024x1024")
        assert form_of(drawn) == KNOWN[model]
        other = await sdk.images.generate(model=model, prompt="a fox", response_format="b64_json")
        assert form_of(other) == "b64_json"


@pytest.mark.parametrize("model", ["gpt-image-1", "gpt-image-1.5", "gpt-image-1-mini", "dall-e-2"])
async def test_the_sandbox_edits_under_the_names_that_did(bare: Gateway, model: str) -> None:
    async with client(bare) as sdk:
        mask = ("mask.png", marked((64, 64)))
        edited = await sdk.images.edit(model=model, image=PICTURE, mask=mask, prompt="a hat")
        assert form_of(edited) == KNOWN[model]


async def test_the_sandbox_varies_with_the_options_of_dall_e(bare: Gateway) -> None:
    async with client(bare) as sdk:
        varied = await vary(sdk, model="dall-e-2", image=PICTURE, n=2, size="256x256")
        assert (form_of(varied), len(varied.data or ())) == ("url", 2)
        drawn = await sdk.images.generate(
            model="dall-e-3", prompt="a fox", quality="hd", style="vivid", size="1792x1024", user="me"
        )
        assert form_of(drawn) == "url"


async def test_a_stream_under_such_a_name_has_base64(bare: Gateway) -> None:
    async with client(bare) as sdk:
        stream = await sdk.images.generate(model="dall-e-3", prompt="a fox", stream=True)
        assert [event.type async for event in stream] == ["image_generation.completed"]


async def test_aliases_are_listed_with_the_model_that_they_stand_for(bare: Gateway) -> None:
    async with client(bare) as sdk:
        models: list[Any] = [model async for model in sdk.models.list()]
        listed = {model.id: model.capabilities["alias_of"] for model in models}
        assert {name: listed[name] for name in KNOWN} == {
            **dict.fromkeys(("gpt-image-1", "gpt-image-1.5", "gpt-image-1-mini"), "gpt-image-2"),
            "dall-e-2": KONTEXT,
            "dall-e-3": SCHNELL,
        }
        assert listed["gpt-image-2"] is None
        assert (await sdk.models.retrieve("dall-e-3")).id == "dall-e-3"


async def test_the_sandbox_needs_no_model(bare: Gateway) -> None:
    reply = await post(bare.port, "/v1/images/generations", {"prompt": "a fox"})
    assert (reply.status, reply.header("x-gateway-model")) == (200, KONTEXT)
    for fields in ([], [("model", "")]):
        for operation, prompt in (("edits", [("prompt", "a hat")]), ("variations", [])):
            reply = await edit(bare.port, *fields, *prompt, ("image", PICTURE), path=f"/v1/images/{operation}")
            assert reply.status == 200, reply.body
    assert (await bare.request_lines(5))[-1]["model"] == KONTEXT


# --- a configuration ---


async def names(gateway: Gateway, key: str) -> set[str]:
    async with client(gateway, f"{key}-{KEY}") as sdk:
        return {model.id async for model in sdk.models.list()}


async def test_keys_see_the_aliases_that_they_may_use(named: Gateway) -> None:
    assert {"gpt-image-1", "linked", KONTEXT, SCHNELL, FILL} <= await names(named, "all")
    assert await names(named, "alias") == {"gpt-image-1"}
    assert await names(named, "target") == {SCHNELL}
    assert await names(named, "second") == set(), "a glob is no id"


@pytest.mark.parametrize(
    ("key", "model", "status"),
    [
        ("alias", "gpt-image-1", 200),
        ("alias", KONTEXT, 400),
        ("alias", "linked", 400),
        ("second", "dall-e-2", 200),
        ("second", "dall-e-3", 400),
        ("target", "dall-e-2", 200),
        ("target", "gpt-image-1", 400),
    ],
)
async def test_a_key_may_use_an_alias_by_its_name_or_by_its_models(
    named: Gateway, key: str, model: str, status: int
) -> None:
    async with client(named, f"{key}-{KEY}") as sdk:
        if status == 200:
            await sdk.images.generate(model=model, prompt="a fox", size="64x64")
            assert (await sdk.models.retrieve(model)).id == model
            return
        with pytest.raises(openai.BadRequestError, match="does not exist") as refused:
            await sdk.images.generate(model=model, prompt="a fox")
        assert (refused.value.param, refused.value.code) == ("model", "invalid_value")
        with pytest.raises(openai.NotFoundError):
            await sdk.models.retrieve(model)


async def test_the_form_is_the_requests_the_keys_the_aliases_the_models_and_the_servers(named: Gateway) -> None:
    for key, model, asked, form in (
        ("all", SCHNELL, None, "b64_json"),
        ("all", "dall-e-2", None, "url"),
        ("all", "linked", None, "url"),
        ("all", "gpt-image-1", None, "b64_json"),
        ("base64", "dall-e-2", None, "b64_json"),
        ("base64", "dall-e-2", "url", "url"),
    ):
        async with client(named, f"{key}-{KEY}") as sdk:
            more: Any = {"response_format": asked} if asked else {}
            assert form_of(await sdk.images.generate(model=model, prompt="a fox", size="64x64", **more)) == form


async def test_the_default_model_is_that_of_the_operation_and_of_the_keys_own(named: Gateway) -> None:
    async with client(named, f"all-{KEY}") as sdk:
        assert form_of(await sdk.images.generate(prompt="a fox", size="64x64")) == "url", "as dall-e-3 answers"
        assert form_of(await sdk.images.edit(image=PICTURE, prompt="a hat")) == "b64_json"
        with pytest.raises(openai.BadRequestError, match="Missing required parameter: 'model'"):
            await vary(sdk, image=PICTURE)
        with pytest.raises(openai.BadRequestError, match="Invalid 'model': empty string"):
            await vary(sdk, image=PICTURE, model="")
    async with client(named, f"alias-{KEY}") as sdk:
        with pytest.raises(openai.BadRequestError, match="Missing required parameter: 'model'"):
            await sdk.images.generate(prompt="a fox")


async def test_the_model_that_was_meant_is_named_if_the_key_may_use_it(named: Gateway) -> None:
    async with client(named, f"all-{KEY}") as sdk:
        for wrong in ("flux.1-SCHNELL", "FLUX.1-schnel", "someone/FLUX.1-schnell"):
            with pytest.raises(openai.BadRequestError, match=f"Did you mean '{SCHNELL}'"):
                await sdk.images.generate(model=wrong, prompt="a fox")
        with pytest.raises(openai.BadRequestError, match=r"knows no parameter 'sede'; did you mean 'seed'\?"):
            await sdk.images.generate(model=SCHNELL, prompt="a fox", extra_body={"sede": 1})
        with pytest.raises(openai.BadRequestError, match="did you mean 'size'") as refused:
            await sdk.images.generate(model=SCHNELL, prompt="a fox", extra_body={"aspect_ratio": "16:9"})
        assert (refused.value.param, refused.value.code) == ("aspect_ratio", "unknown_parameter")
    async with client(named, f"alias-{KEY}") as sdk:
        with pytest.raises(openai.BadRequestError) as hidden:
            await sdk.images.generate(model="FLUX.1-schnel", prompt="a fox")
        assert "Did you mean" not in hidden.value.message


async def test_aliases_may_stay_off_the_list(named: Gateway, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("unlisted")
    async with serving({"server": {"list_aliases": False}}, folder) as gateway, client(gateway) as sdk:
        listed = {model.id async for model in sdk.models.list()}
        assert "gpt-image-2" in listed and not listed & KNOWN.keys()
        assert (await ask(gateway.port, request("GET", "/v1/models/dall-e-3"))).status == 200
