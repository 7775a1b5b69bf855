"""Calls of the Azure clients of the official Python SDK, and what came of each as JSON. Arguments: the gateway's
address, a key, and a model that draws, one that edits and one that varies."""

import asyncio
import base64
import inspect
import json
import sys
import warnings
from typing import Any

import openai
from openai import AsyncAzureOpenAI, AzureOpenAI

warnings.simplefilter("ignore", DeprecationWarning)  # of variations, by the newest SDK
address, key, draws, edits, varies = sys.argv[1:]
PROMPT, SIZE = "a fox", "256x256"


async def settled(value: Any) -> Any:
    return await value if inspect.isawaitable(value) else value


def picture(response: Any) -> bytes:
    return base64.b64decode(response.data[0].b64_json)


def kind(response: Any) -> str:
    return picture(response)[1:4].decode()


async def elements(stream: Any) -> list[Any]:
    return [each async for each in stream] if hasattr(stream, "__aiter__") else list(stream)


async def calls(client_class: Any) -> dict[str, Any]:
    said: dict[str, Any] = {"azure_endpoint": address, "api_key": key, "max_retries": 0}
    client = client_class(**said, api_version="2025-04-01-preview")
    fixed = client_class(**said, api_version="of no year", azure_deployment=draws)
    newer = client_class(base_url=f"{address}/openai/v1/", api_key=key, api_version="preview", max_retries=0)
    drawn = await settled(client.images.generate(model=draws, prompt=PROMPT, size=SIZE))
    image = picture(drawn)
    events = await settled(client.images.generate(model=draws, prompt=PROMPT, size=SIZE, stream=True))
    seen: dict[str, Any] = {
        "generates": kind(drawn),
        "edits": kind(await settled(client.images.edit(model=edits, prompt=PROMPT, image=image))),
        "varies": kind(await settled(client.images.create_variation(model=varies, image=image))),
        "streams": [event.type for event in await elements(events)],
        "lists": draws in [model.id for model in await elements(await settled(client.models.list()))],
        "retrieves": (await settled(client.models.retrieve(draws))).id,
        "generates_at_a_deployment": kind(await settled(fixed.images.generate(prompt=PROMPT, size=SIZE))),
        "generates_whatever_the_body_names": kind(
            await settled(fixed.images.generate(model="no such model", prompt=PROMPT, size=SIZE))
        ),
        "generates_at_v1": kind(await settled(newer.images.generate(model=draws, prompt=PROMPT, size=SIZE))),
    }
    try:
        await settled(client.images.generate(model="no such model", prompt=PROMPT))
    except openai.BadRequestError as error:
        seen["refuses"] = [error.status_code, error.param]
    try:
        message = {"role": "user", "content": "hello"}
        await settled(client.chat.completions.create(model=draws, messages=[message]))
    except openai.NotFoundError as error:
        seen["chats"] = error.message
    try:
        await settled(client_class(**said | {"api_key": "wrong"}, api_version="1").models.list())
    except openai.AuthenticationError as error:
        seen["wrong_key"] = error.code
    return seen


print(json.dumps({each.__name__: asyncio.run(calls(each)) for each in (AzureOpenAI, AsyncAzureOpenAI)}))  # noqa: T201
