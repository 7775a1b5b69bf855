from __future__ import annotations

import base64
import json
from dataclasses import replace
from typing import Any

import pytest

from app.catalog.profiles import Profile
from app.dialects import Base64, ResponseHead, nebula_block
from app.errors import Failure, UpstreamError
from app.events import Done, ImageBegins, ImageData, ImageEnds
from app.images import ImageRequest, Operation, Size
from tests.dialects.asking import NONCE, asked, decoded, deployed, rendered, upload

EDITS = Operation.EDITS
PROFILE = nebula_block.profile


def body(request: ImageRequest, profile: Profile = PROFILE) -> bytes:
    sent = nebula_block.encode(request, deployed("nebula_block", profile), NONCE)
    assert (sent.method, sent.target, sent.content_type) == ("POST", "/images/generation", "application/json")
    return rendered(sent.body)


def fields(request: ImageRequest, profile: Profile = PROFILE) -> dict[str, Any]:
    found = json.loads(body(request, profile))
    assert isinstance(found, dict)
    return found


# --- out ---


def test_the_least_is_the_model_and_the_prompt() -> None:
    assert body(asked()) == b'{"model":"its-name-there","prompt":"a cat"}'


def test_parameters_go_by_its_own_names() -> None:
    parameters = {"steps": 4, "guidance": 3.5, "seed": 0, "negative_prompt": "dogs"}
    request = asked(size=Size(640, 480), parameters=parameters, spelt={"steps": "num_inference_steps"})
    assert fields(request) == {
        "model": "its-name-there", "prompt": "a cat", "width": 640, "height": 480,
        "num_steps": 4, "guidance_scale": 3.5, "seed": 0, "negative_prompt": "dogs",
    }  # fmt: skip


def test_what_it_does_not_know_is_not_sent() -> None:
    request = asked(n=3, response_format="b64_json", stream=True, partial_images=2)
    assert fields(request) == {"model": "its-name-there", "prompt": "a cat"}


def test_the_profile_spells_anew() -> None:
    names = {"prompt": "text", "width": "w", "height": "h", "steps": "count"}
    request = asked(size=Size(8, 16), parameters={"steps": 4})
    assert fields(request, replace(PROFILE, parameters=names)) == {
        "model": "its-name-there", "text": "a cat", "w": 8, "h": 16, "count": 4,
    }  # fmt: skip


def test_extra_fields_come_last_as_they_are() -> None:
    assert fields(asked(extra=(("num_images", 2), ("x", {"y": [None]}))))["x"] == {"y": [None]}


@pytest.mark.parametrize("length", [0, 1, 2, 3, 4, 1000])
def test_pictures_are_sent_as_bare_base64(length: int) -> None:
    picture, mask = b"\xff\xd8\xff" * 400, b"\x89PNG" * 300
    request = asked(EDITS, images=(upload(picture[:length]),), mask=upload(mask[:length]))
    assert fields(request) == {
        "model": "its-name-there",
        "prompt": "a cat",
        "image": base64.b64encode(picture[:length]).decode(),
        "mask": base64.b64encode(mask[:length]).decode(),
    }


def test_pictures_are_read_only_while_they_are_sent() -> None:
    picture = upload(b"x" * 99)
    sent = nebula_block.encode(asked(EDITS, images=(picture,)), deployed("nebula_block", PROFILE), NONCE)
    assert Base64(picture.blob) in sent.body


def test_the_profile_names_the_pictures() -> None:
    profile = replace(PROFILE, image_field='input_"image', mask_field="mask_image")
    found = fields(asked(EDITS, mask=upload(b"m")), profile)
    assert list(found)[2:] == ['input_"image', "mask_image"]


def test_a_prompt_cannot_break_out_of_its_text() -> None:
    prompt = 'a "cat"\\ \n\u2028 \u00e9 \U0001f600 {"model":"other"}'
    assert fields(asked(EDITS, prompt=prompt))["prompt"] == prompt


# --- back ---


def test_a_good_answer_is_its_image() -> None:
    answer = {
        "model": "m", "object": "list", "data": [{"timings": {"inference": 13.37}, "index": 0, "b64_json": "AAAA"}],
        "message": "Image generated successfully", "status": "success",
    }  # fmt: skip
    assert decoded(nebula_block, json.dumps(answer).encode()) == [
        ImageBegins(0),
        ImageData(b"AAAA"),
        ImageEnds(),
        Done(),
    ]


@pytest.mark.parametrize(
    "answer",
    [
        {"data": None, "message": "Out of memory", "status": "failed"},
        {"data": [], "message": "Out of memory", "status": "failed"},
        {"data": [{"b64_json": "AAAA"}], "message": "Out of memory", "status": "failed"},
        {"status": "error", "message": "Out of memory"},
    ],
)
def test_a_status_of_failure_under_a_200_is_a_failure(answer: dict[str, Any]) -> None:
    with pytest.raises(UpstreamError) as caught:
        decoded(nebula_block, json.dumps(answer).encode())
    assert (caught.value.failure, caught.value.message) == (Failure.FAILED, "Out of memory")


def test_an_error_is_read_in_its_shape() -> None:
    error = nebula_block.error(ResponseHead(422, {}), b'{"data":null,"message":"width is odd","status":"failed"}')
    assert (error.failure, error.status, error.message) == (Failure.REFUSED, 422, "width is odd")
