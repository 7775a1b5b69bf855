from __future__ import annotations

import base64
import json
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import pytest

from app.catalog.profiles import Profile
from app.dialects import Base64, Credential, Exchange, JobDialect, ResponseHead, UpstreamRequest, bfl
from app.errors import Failure, UpstreamError
from app.events import Done, ImageBegins, ImageData, ImageEnds, ImageLink
from app.images import ImageRequest, Operation, Size
from tests.dialects.asking import GOOD, NONCE, Told, asked, decoded, deployed, rendered, told, upload

EDITS = Operation.EDITS
PROFILE = bfl.profile
ADDRESS = "https://api.eu1.bfl.ai/v1/get_result?id=7"
SUBMITTED = {"id": "7", "polling_url": ADDRESS, "cost": 3, "input_mp": 0, "output_mp": 1}
KEY = Credential(header="x-key", scheme="")
SAMPLE = "https://delivery-eu1.bfl.ai/results/7/sample.jpeg?se=1&sig=s"
PENDING = {"id": "7", "status": "Pending", "result": None, "progress": 0.4, "details": None, "preview": None}
READY = {**PENDING, "status": "Ready", "result": {"sample": SAMPLE, "prompt": "a cat", "seed": 42, "duration": 3.2}}


def encoded(request: ImageRequest, profile: Profile = PROFILE, model: str = "flux-2-pro") -> UpstreamRequest:
    return bfl.encode(request, deployed("bfl", profile, model), NONCE)


def fields(request: ImageRequest, profile: Profile = PROFILE) -> dict[str, Any]:
    found = json.loads(rendered(encoded(request, profile).body))
    assert isinstance(found, dict)
    return found


def submitted(document: Any = SUBMITTED, request: ImageRequest | None = None) -> Exchange:
    [exchange] = decoded(bfl, json.dumps(document).encode(), request)
    assert isinstance(exchange, Exchange)
    return exchange


def answered(document: Any, exchange: Exchange | None = None) -> list[Told]:
    """What a status answer tells."""
    text = document if isinstance(document, bytes) else json.dumps(document).encode()
    asked_with = exchange or submitted()
    at_once = told(asked_with.decoder(GOOD), [text])
    assert told(asked_with.decoder(GOOD), (text[at : at + 1] for at in range(len(text)))) == at_once
    return at_once


def failure(document: Any) -> UpstreamError:
    with pytest.raises(UpstreamError) as caught:
        answered(document)
    return caught.value


# --- out ---


def test_the_model_is_in_the_path_and_the_least_is_the_prompt() -> None:
    sent = encoded(asked())
    assert (sent.method, sent.target, sent.content_type) == ("POST", "/flux-2-pro", "application/json")
    assert rendered(sent.body) == b'{"prompt":"a cat"}'
    assert sent.credential == KEY


def test_a_model_cannot_lead_out_of_its_path() -> None:
    assert encoded(asked(), model="a/b c?d#e%2F").target == "/a/b%20c%3Fd%23e%252F"


def test_parameters_go_by_its_own_names() -> None:
    parameters = {"steps": 4, "guidance": 3.5, "seed": 0, "output_format": "png"}
    request = asked(size=Size(640, 480), parameters=parameters, spelt={"steps": "num_inference_steps"})
    names = dict.fromkeys(("width", "height")) | {name: name for name in ("steps", "guidance", "seed", "output_format")}
    profile = replace(PROFILE, parameters={name: spelt or name for name, spelt in names.items()})
    assert fields(request, profile) == {"prompt": "a cat", "width": 640, "height": 480, **parameters}


def test_what_it_does_not_know_is_not_sent() -> None:
    request = asked(n=3, response_format="b64_json", stream=True, partial_images=2)
    assert fields(request) == {"prompt": "a cat"}


def test_the_profile_spells_anew() -> None:
    request = asked(size=Size(8, 16), parameters={"seed": 4})
    names = {"prompt": "text", "width": "w", "height": "h", "seed": "start"}
    assert fields(request, replace(PROFILE, parameters=names)) == {"text": "a cat", "w": 8, "h": 16, "start": 4}


@pytest.mark.parametrize("length", [0, 1, 2, 3, 1000])
def test_pictures_are_bare_base64_under_numbered_names(length: int) -> None:
    data = [bytes([number]) * length for number in range(3)]
    assert fields(asked(EDITS, images=tuple(map(upload, data)))) == {
        "prompt": "a cat",
        "input_image": base64.b64encode(data[0]).decode(),
        "input_image_2": base64.b64encode(data[1]).decode(),
        "input_image_3": base64.b64encode(data[2]).decode(),
    }


def test_fill_has_names_of_its_own() -> None:
    profile = replace(PROFILE, image_field="image", mask_field="mask", max_images=1)
    request = asked(EDITS, images=(upload(b"p"),), mask=upload(b"m"))
    assert fields(request, profile) == {"prompt": "a cat", "image": "cA==", "mask": "bQ=="}


def test_pictures_are_read_only_while_they_are_sent() -> None:
    picture = upload(b"x" * 99)
    assert Base64(picture.blob) in encoded(asked(EDITS, images=(picture,))).body


def test_a_prompt_cannot_break_out_of_its_text() -> None:
    prompt = 'a "cat"\\ \n\u2028 \u00e9 \U0001f600 {"width":1}'
    assert fields(asked(EDITS, prompt=prompt))["prompt"] == prompt


# --- the job ---


def test_a_submit_is_followed_by_a_status_call_at_the_address_that_it_names() -> None:
    exchange = submitted()
    assert exchange.request == UpstreamRequest(ADDRESS, method="GET", credential=KEY)
    assert (exchange.after, exchange.is_repeatable) == (0.5, True)
    assert exchange.job == {"polling_url": ADDRESS, "id": "7"}
    assert json.loads(json.dumps(exchange.job)) == exchange.job


@pytest.mark.parametrize(
    "address", [None, "", 7, "/v1/get_result?id=7", "ftp://api.bfl.ai/7", "https://api.bfl.ai/\n", "https://", "\ud800",
                "https://api.bfl.ai/é", "https://api.bfl.ai/" + "x" * 2000],
)  # fmt: skip
def test_a_submit_without_an_address_is_perhaps_paid(address: Any) -> None:
    with pytest.raises(UpstreamError) as caught:
        submitted({**SUBMITTED, "polling_url": address})
    assert caught.value.failure is Failure.UNCERTAIN


def test_a_submit_may_be_moderated_at_once() -> None:
    with pytest.raises(UpstreamError) as caught:
        submitted({"id": "7", "status": "Request Moderated", "details": {"Moderation Reasons": ["Violence"]}})
    assert caught.value.failure is Failure.REFUSED


@pytest.mark.parametrize("document", [PENDING, {"status": "pending"}, {"state": "Pending"}, {"status": "Queued"}])
def test_a_pending_job_is_asked_for_again_in_growing_pauses(document: Any) -> None:
    exchange, pauses = submitted(), []
    for _ in range(12):
        [following] = answered(document, exchange)
        assert isinstance(following, Exchange)
        assert (following.request, following.is_repeatable, following.job) == (exchange.request, True, None)
        exchange = following
        pauses.append(exchange.after)
    assert pauses[:2] == [0.625, 0.78125]
    assert pauses == sorted(pauses) and pauses[-1] == 2.0


@pytest.mark.parametrize("document", [READY, {**READY, "status": None, "state": "Ready"}])
def test_a_job_that_is_ready_is_its_image_behind_a_link(document: Any) -> None:
    assert answered(document) == [ImageBegins(0), ImageLink(SAMPLE), ImageEnds(seed=42), Done()]


def test_a_prompt_that_was_rewritten_is_told() -> None:
    result = {"sample": SAMPLE, "prompt": "a cat that flies"}
    [_, _, ends, _] = answered({**READY, "result": result})
    assert ends == ImageEnds(revised_prompt="a cat that flies")


def test_an_image_in_the_place_of_its_link_is_taken() -> None:
    result = {"sample": "data:image/jpeg;base64,AAAA"}
    assert answered({**READY, "result": result})[1] == ImageData(b"AAAA")


def test_a_job_is_taken_up_again() -> None:
    assert isinstance(bfl, JobDialect)
    exchange = submitted()
    assert exchange.job is not None
    again = bfl.resume(exchange.job, asked(prompt=None))
    assert (again.request, again.after, again.is_repeatable, again.job) == (exchange.request, 0.0, True, None)
    assert answered(READY, again) == [ImageBegins(0), ImageLink(SAMPLE), ImageEnds(seed=42), Done()]
    [following] = answered(PENDING, again)
    assert isinstance(following, Exchange)
    assert following.after == 0.5


# --- the job's bad ends ---


@pytest.mark.parametrize(("status", "what"), [("Request Moderated", "the request"), ("Content Moderated", "the image")])
@pytest.mark.parametrize("key", ["status", "state"])
def test_moderation_is_a_refusal_with_its_reasons(status: str, what: str, key: str) -> None:
    details = {"Moderation Reasons": ["Violence", "Derivative Works Filter"]}
    error = failure({key: status, "result": None, "details": details})
    assert (error.failure, error.code, error.status) == (Failure.REFUSED, "content_policy_violation", 400)
    assert error.is_final
    assert error.message == f"The provider's moderation refused {what}: Violence, Derivative Works Filter"
    assert error.details == {"moderation_details": details}


@pytest.mark.parametrize(
    "details", [None, {}, [], "x", {"Moderation Reasons": None}, {"Moderation Reasons": [7, None]}]
)
def test_moderation_needs_no_reasons(details: Any) -> None:
    error = failure({"status": "Content Moderated", "details": details})
    assert (error.failure, error.message) == (Failure.REFUSED, "The provider's moderation refused the image")


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({"status": "Error", "details": {"error": "Out of memory"}}, "Out of memory"),
        ({"status": "Error", "error": "Out of memory"}, "Out of memory"),
        ({"status": "Failed", "message": "Out of memory"}, "Out of memory"),
        ({"state": "error", "details": "Out of memory"}, "Out of memory"),
        ({"status": "Error", "result": None, "details": None}, "the answer says that it failed, without a reason"),
    ],
)
def test_a_job_that_failed_is_a_failure_by_the_providers_word(document: Any, message: str) -> None:
    error = failure(document)
    assert (error.failure, error.message, error.is_final) == (Failure.FAILED, message, True)


@pytest.mark.parametrize("word", ["Task not found", "Expired", "Sleeping", "Content Filtered"])
def test_a_job_that_is_not_found_and_an_unknown_word_are_perhaps_paid_and_end_it(word: str) -> None:
    error = failure({"id": "7", "status": word})
    assert (error.failure, error.is_final) == (Failure.UNCERTAIN, True)
    assert word.lower() in error.message


@pytest.mark.parametrize(
    "result", [None, [], {}, {"sample": None}, {"sample": ""}, {"sample": 7}, {"sample": "x" * 70_000}]
)
def test_a_job_that_is_ready_without_a_link_is_perhaps_paid_and_ends_it(result: Any) -> None:
    error = failure({**READY, "result": result})
    assert (error.failure, error.is_final) == (Failure.UNCERTAIN, True)


@pytest.mark.parametrize(
    "document", [{}, {"status": None}, {"status": " "}, {"detail": "?"}, b"", b"<html>", b"[]", b"{"]
)
def test_an_answer_without_a_status_says_nothing_about_the_job(document: Any) -> None:
    error = failure(document)
    assert (error.failure, error.is_final) == (Failure.UNCERTAIN, False)


# --- statuses ---


@pytest.mark.parametrize(
    ("status", "document", "failure", "message", "code"),
    [
        (422, {"detail": [{"loc": ["body", "width"], "msg": "odd", "type": "v"}]}, Failure.REFUSED, "body.width: odd",
         None),
        (403, {"detail": "Not authenticated"}, Failure.CREDENTIAL, "Not authenticated", None),
        (402, {"message": "No credits"}, Failure.CREDENTIAL, "No credits", None),
        (429, {"error": "rate_limit", "message": "Slow down", "retry_after": 5}, Failure.RATE_LIMITED, "Slow down",
         "rate_limit"),
        (400, {"error": "content_moderated", "message": "No", "details": {}}, Failure.REFUSED, "No",
         "content_moderated"),
        (503, {"error": "overloaded"}, Failure.UNAVAILABLE, "overloaded", None),
    ],
)  # fmt: skip
@pytest.mark.parametrize("is_status_call", [False, True])
def test_an_error_is_read_in_each_of_its_shapes(
    status: int, document: Any, failure: Failure, message: str, code: str | None, is_status_call: bool
) -> None:
    read = submitted().error if is_status_call else bfl.error
    error = read(ResponseHead(status, {"retry-after": "7"}), json.dumps(document).encode())
    assert (error.failure, error.message, error.code, error.status) == (failure, message, code, status)
    assert error.retry_after == 7
    assert not error.is_final


@pytest.mark.parametrize("pieces", [[b"<html>"], [b'"text"'], [b"[" * 70_000]])
def test_an_error_without_readable_words_is_one_all_the_same(pieces: Iterable[bytes]) -> None:
    assert bfl.error(ResponseHead(500, {}), b"".join(pieces)).failure is Failure.UNAVAILABLE
