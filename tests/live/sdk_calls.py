"""Calls of the official Python SDK, and what came of each as JSON: run in the environment of any of its generations.

Usage: sdk_calls.py BASE_URL KEY PREFIX FOLDER, where FOLDER holds photo.png, photo.jpg and mask.png. Each call's
X-Request-Id is PREFIX and its name, so that the gateway's log tells how many requests it became.
"""

import asyncio
import base64
import io
import json
import struct
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import openai

GPT, SCHNELL, SDXL = "gpt-image-2", "black-forest-labs/FLUX.1-schnell", "stabilityai/stable-diffusion-xl-base-1.0"
KONTEXT, REDUX = "black-forest-labs/FLUX.1-Kontext-dev", "black-forest-labs/FLUX.1-Redux-dev"


def kind(text: str | None) -> str:
    """Format and size of a picture."""
    data = base64.b64decode(text or "", validate=True)
    if data.startswith(b"\x89PNG") and data.endswith(b"IEND\xaeB`\x82"):
        return "png {}x{}".format(*struct.unpack(">II", data[16:24]))
    return {b"\xff\xd8": "jpeg", b"RI": "webp"}.get(data[:2], "unknown")


def images(response: Any) -> dict[str, Any]:
    usage = response.usage
    return {
        "images": [kind(image.b64_json) for image in response.data],
        "created": isinstance(response.created, int) and response.created > 1_000_000_000,
        "usage": usage and all(isinstance(n, int) for n in (usage.total_tokens, usage.input_tokens)),
    }


def seen(event: Any) -> list[Any]:
    return [event.type, getattr(event, "partial_image_index", None), kind(event.b64_json)]


def models(page: Any) -> dict[str, Any]:
    return {"slash": SCHNELL in [model.id for model in page.data], "object": page.data[0].object}


class Calls:
    """Each method is a call; `generate` and the like are shorthands."""

    def __init__(self, client: Any, later: Any, folder: Path, prefix: str) -> None:
        self.client, self.later, self.folder, self.prefix = client, later, folder, prefix
        self.photo = (folder / "photo.png").read_bytes()

    def of(self, name: str, **more: Any) -> dict[str, Any]:
        return {"prompt": f"a fox, {self.prefix}{name}", "extra_headers": self._headers(name), **more}

    def _headers(self, name: str) -> dict[str, str]:
        return {"X-Request-Id": self.prefix + name}

    def generate(self, name: str, **more: Any) -> Any:
        return self.client.images.generate(**self.of(name, **{"model": SCHNELL, "size": "64x64", **more}))

    def edit(self, name: str, image: Any, **more: Any) -> Any:
        return self.client.images.edit(**self.of(name, image=image, **{"model": GPT, **more}))

    def stream(self, events: Any) -> list[Any]:
        with events:
            return [seen(event) for event in events]

    # What must work.

    def generates(self) -> Any:
        return images(self.generate("generates"))

    def generates_in_base64(self) -> Any:
        return images(self.generate("generates_in_base64", response_format="b64_json"))

    def generates_several(self) -> Any:
        return images(self.generate("generates_several", model=GPT, n=2))

    def generates_without_what_is_none(self) -> Any:
        nothing: dict[str, Any] = dict.fromkeys(("n", "quality", "background", "style", "user", "stream"))
        return images(self.generate("generates_without_what_is_none", **nothing))

    def generates_with_an_extra_body(self) -> Any:
        extra = {"seed": 7, "guidance": 3.5, "steps": 4, "width": 64, "height": 128}
        return images(self.generate("generates_with_an_extra_body", size=openai.NOT_GIVEN, extra_body=extra))

    def generates_with_a_negative_prompt(self) -> Any:
        extra = {"negative_prompt": "dogs", "num_inference_steps": 4}
        return images(self.generate("generates_with_a_negative_prompt", model=SDXL, extra_body=extra))

    def generates_with_an_extra_query(self) -> Any:
        return images(self.generate("generates_with_an_extra_query", extra_query={"api-version": "1"}))

    def edits_bytes(self) -> Any:
        return images(self.edit("edits_bytes", self.photo))

    def edits_a_bytesio(self) -> Any:
        return images(self.edit("edits_a_bytesio", io.BytesIO(self.photo)))

    def edits_a_path(self) -> Any:
        return images(self.edit("edits_a_path", self.folder / "photo.jpg"))

    def edits_a_tuple(self) -> Any:
        return images(self.edit("edits_a_tuple", ("ein Föto.png", self.photo, "image/png")))

    def edits_an_open_file(self) -> Any:
        with (self.folder / "photo.png").open("rb") as file:
            return images(self.edit("edits_an_open_file", file, output_format="jpeg", size="64x64"))

    def edits_a_list_of_one(self) -> Any:
        return images(self.edit("edits_a_list_of_one", [self.photo]))

    def edits_a_list_of_three(self) -> Any:
        return images(self.edit("edits_a_list_of_three", [self.photo, self.folder / "photo.jpg", self.photo]))

    def edits_with_a_mask(self) -> Any:
        return images(self.edit("edits_with_a_mask", self.photo, mask=(self.folder / "mask.png").read_bytes()))

    def edits_with_an_extra_body(self) -> Any:
        name = "edits_with_an_extra_body"
        return images(self.edit(name, self.photo, model=KONTEXT, extra_body={"guidance": 3.5, "seed": None}))

    def edits_in_json(self) -> Any:
        url = "data:image/png;base64," + base64.b64encode(self.photo).decode()
        body = {"model": GPT, "prompt": "a fox", "images": [{"image_url": url}]}
        response = self.client.post("/images/edits", body=body, cast_to=object)
        return [kind(image["b64_json"]) for image in response["data"]]

    def varies(self) -> Any:
        given = {**self.of("varies", image=self.photo, model=REDUX)}
        del given["prompt"]
        return images(self.client.images.create_variation(**given))

    def streams(self) -> Any:
        return self.stream(self.generate("streams", model=GPT, stream=True))

    def streams_partial_images(self) -> Any:
        return self.stream(self.generate("streams_partial_images", model=GPT, stream=True, partial_images=2))

    def streams_from_a_json_upstream(self) -> Any:
        return self.stream(self.generate("streams_from_a_json_upstream", stream=True))

    def streams_an_edit(self) -> Any:
        return self.stream(self.edit("streams_an_edit", self.photo, stream=True, partial_images=1))

    def lists_models(self) -> Any:
        return models(self.client.models.list())

    def retrieves_a_model_with_a_slash(self) -> Any:
        model = self.client.models.retrieve(SCHNELL)
        return [model.id, model.object, model.owned_by]

    def gives_a_raw_response(self) -> Any:
        name = "gives_a_raw_response"
        given = self.of(name, model=SCHNELL, size="64x64")
        raw = self.client.images.with_raw_response.generate(**given)
        told = raw.headers
        return {
            "provider": told["x-gateway-provider"],
            "attempts": told["x-gateway-attempts"],
            "id": raw.request_id if hasattr(raw, "request_id") else told["x-request-id"],
            "processing": told["openai-processing-ms"].isdigit(),
            "images": images(raw.parse())["images"],
        }

    def gives_a_streaming_response(self) -> Any:
        given = self.of("gives_a_streaming_response", model=SCHNELL, size="64x64")
        with self.client.images.with_streaming_response.generate(**given) as response:
            document = json.loads(b"".join(response.iter_bytes()))
        return [kind(image["b64_json"]) for image in document["data"]]

    def tells_the_request_id(self) -> Any:
        return self.generate("tells_the_request_id")._request_id

    def works_with_an_organisation(self) -> Any:
        client = self.client.with_options(organization="org-1", project="proj-1")
        return models(client.models.list())

    # The same, later.

    async def generates_later(self) -> Any:
        return images(await self.later.images.generate(**self.of("generates_later", model=SCHNELL, size="64x64")))

    async def edits_later(self) -> Any:
        mask = (self.folder / "mask.png").read_bytes()
        given = self.of("edits_later", model=GPT, image=[self.photo], mask=mask)
        return images(await self.later.images.edit(**given))

    async def streams_later(self) -> Any:
        given = self.of("streams_later", model=GPT, size="64x64", stream=True, partial_images=1)
        async with await self.later.images.generate(**given) as events:
            return [seen(event) async for event in events]

    async def lists_models_later(self) -> Any:
        return models(await self.later.models.list())

    async def generates_side_by_side(self) -> Any:
        given = self.of("generates_side_by_side", model=SCHNELL, size="64x64")
        responses = await asyncio.gather(*(self.later.images.generate(**given) for _ in range(8)))
        return [image for response in responses for image in images(response)["images"]]

    # What must fail, and how.

    def refuses_a_size(self) -> Any:
        return images(self.generate("refuses_a_size", size="bogus"))

    def refuses_what_no_deployment_can(self) -> Any:
        return images(self.generate("refuses_what_no_deployment_can", model=SDXL, extra_body={"seed": 1}))

    def refuses_an_unknown_model(self) -> Any:
        return images(self.generate("refuses_an_unknown_model", model="nope"))

    def refuses_a_file_that_is_no_picture(self) -> Any:
        return images(self.edit("refuses_a_file_that_is_no_picture", b"not a picture"))

    def refuses_a_wrong_key(self) -> Any:
        given = self.of("refuses_a_wrong_key", model=SCHNELL)
        return images(self.client.with_options(api_key="sk-wrong-key-0000").images.generate(**given))

    def finds_no_such_model(self) -> Any:
        return self.client.models.retrieve("nope/nope", extra_headers=self._headers("finds_no_such_model")).id

    def finds_no_such_path(self) -> Any:
        options = {"headers": self._headers("finds_no_such_path")}
        return self.client.post("/nope", body={}, options=options, cast_to=object)

    def is_limited_by_the_upstream(self) -> Any:
        return images(self.generate("is_limited_by_the_upstream", model="limited"))

    def finds_the_upstream_busy(self) -> Any:
        return images(self.generate("finds_the_upstream_busy", model="busy"))

    def finds_the_upstream_silent(self) -> Any:
        return images(self.generate("finds_the_upstream_silent", model="silent"))

    def finds_the_account_refused(self) -> Any:
        return images(self.generate("finds_the_account_refused", model="locked"))

    def is_moderated(self) -> Any:
        return images(self.generate("is_moderated", model="strict"))

    def finds_the_answer_garbled(self) -> Any:
        return images(self.generate("finds_the_answer_garbled", model="garbled"))

    def finds_a_streams_upstream_busy(self) -> Any:
        return self.stream(self.generate("finds_a_streams_upstream_busy", model="busy", stream=True))

    def sees_the_picture_break(self) -> Any:
        return images(self.generate("sees_the_picture_break", model="broken"))

    def sees_the_stream_fail(self) -> Any:
        events = self.generate("sees_the_stream_fail", model="failing", stream=True, partial_images=1)
        return self.stream(events)

    def sees_the_streams_picture_break(self) -> Any:
        return self.stream(self.generate("sees_the_streams_picture_break", model="broken", stream=True))


def outcome(call: Callable[[], Any]) -> dict[str, Any]:
    try:
        return {"value": call()}
    except openai.APIError as error:
        told = {name: getattr(error, name, None) for name in ("code", "param", "type", "request_id")}
        body = error.body if isinstance(error.body, dict) else {}
        status, details = getattr(error, "status_code", None), body.get("moderation_details")
        return {"raised": type(error).__name__, "status": status, **told, "details": details}
    except Exception as error:
        return {"raised": f"{type(error).__module__}.{type(error).__name__}", "said": str(error)}


async def main(base_url: str, key: str, prefix: str, folder: str) -> None:
    given: dict[str, Any] = {"base_url": base_url, "api_key": key, "timeout": 20}
    report = {}
    async with openai.AsyncOpenAI(**given) as later:
        with openai.OpenAI(**given) as client:
            calls = Calls(client, later, Path(folder), prefix)
            names = [
                name for name in vars(Calls) if name[0] != "_" and name not in ("of", "generate", "edit", "stream")
            ]
            for name in names:
                call = getattr(calls, name)
                if asyncio.iscoroutinefunction(call):
                    result = await call()
                    report[name] = {"value": result}
                else:
                    report[name] = await asyncio.to_thread(outcome, call)
    print(json.dumps({"version": openai.__version__, "calls": report}))  # noqa: T201


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
