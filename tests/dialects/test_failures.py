from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.dialects import ResponseHead
from app.dialects.failures import LONGEST_MESSAGE, from_document, from_status, scrub
from app.errors import Failure, UpstreamError


def failed(status: int, document: Any = None, **headers: str) -> UpstreamError:
    head = ResponseHead(status, {name.replace("_", "-"): value for name, value in headers.items()})
    return from_status(head, json.dumps(document).encode() if document is not None else b"")


# --- classes ---


@pytest.mark.parametrize(
    "code", ["insufficient_quota", "credit_balance_exhausted", "project_spend_limit_exceeded", "billing_not_active"]
)  # fmt: skip
@pytest.mark.parametrize("key", ["code", "type"])
@pytest.mark.parametrize("status", [400, 402, 403, 429])
def test_an_exhausted_quota_is_the_gateways_own_account_whatever_the_status(status: int, key: str, code: str) -> None:
    assert failed(status, {"error": {"message": "no", key: code}}).failure is Failure.CREDENTIAL


@pytest.mark.parametrize(
    "message",
    [
        "You exceeded your current quota, please check your plan and billing details. (insufficient_quota)",
        "Insufficient credit",
        "insufficient balance",
    ],
)
def test_a_429_that_puts_an_empty_account_into_words_is_the_account(message: str) -> None:
    assert failed(429, {"message": message, "status": "failed"}).failure is Failure.CREDENTIAL


@pytest.mark.parametrize(
    "message",
    [
        "Quota exceeded for quota metric 'requests per minute'. Rate limit reached.",
        "You exceeded your current quota of 60 requests per minute",
        "You exceeded your quota: 5 images/min",
        "You exceeded your quota (rate_limit)",
    ],
)
def test_a_rate_limit_that_is_called_a_quota_stays_a_rate_limit(message: str) -> None:
    assert failed(429, {"error": {"message": message}}).failure is Failure.RATE_LIMITED


@pytest.mark.parametrize(
    "message", ["Insufficient balance. Please top up.", "Insufficient credits for this request (price per hour 0.4)"]
)
def test_an_empty_account_is_one_whatever_else_is_said(message: str) -> None:
    assert failed(429, {"error": {"message": message}}, retry_after="1").failure is Failure.CREDENTIAL


def test_what_is_over_in_a_told_time_is_a_rate_limit_unless_a_code_says_that_it_is_the_account() -> None:
    document = {"error": {"message": "You exceeded your current quota"}}
    assert failed(429, document, retry_after="2").failure is Failure.RATE_LIMITED
    assert failed(429, document, retry_after="0").failure is Failure.CREDENTIAL
    document["error"]["code"] = "insufficient_quota"
    assert failed(429, document, retry_after="2").failure is Failure.CREDENTIAL


@pytest.mark.parametrize(
    "error",
    [
        {"code": "moderation_blocked", "message": "x"},
        {"code": "content_policy_violation", "message": "x"},
        {"code": "contentFilter", "message": "x"},
        {"type": "content_filter", "message": "x"},
    ],
)
@pytest.mark.parametrize("status", [400, 403, 405, 422, 500, 503])
def test_a_code_of_moderation_is_a_refusal_of_the_request_whatever_the_status(
    status: int, error: dict[str, str]
) -> None:
    assert failed(status, {"error": error}).failure is Failure.REFUSED


@pytest.mark.parametrize("message", ["Your request was rejected by the safety system.", "NSFW content detected"])
@pytest.mark.parametrize("status", [400, 403, 405, 422])
def test_so_is_moderation_put_into_words_where_the_request_is_blamed(status: int, message: str) -> None:
    assert failed(status, {"error": {"message": message}}).failure is Failure.REFUSED


@pytest.mark.parametrize(
    "message",
    ["Moderation service is temporarily unavailable", "failed to draw 'nsfw lady'", "content filter timed out"],
)
def test_a_server_that_fails_over_its_moderation_blames_no_caller(message: str) -> None:
    for status in (500, 502, 503):
        assert failed(status, {"error": {"message": message}}).failure is Failure.UNAVAILABLE
    for status in (504, 520, 522, 524):
        assert failed(status, {"error": {"message": message}}).failure is Failure.UNCERTAIN


@pytest.mark.parametrize("status", [408, 504])
def test_who_timed_out_over_its_moderation_has_perhaps_drawn(status: int) -> None:
    assert failed(status, {"error": {"message": "m", "type": "content_filter"}}).failure is Failure.UNCERTAIN


def test_details_of_a_moderation_are_kept() -> None:
    details = {"moderation_stage": "input", "categories": ["violence"]}
    error = failed(400, {"error": {"code": "moderation_blocked", "message": "x", "moderation_details": details}})
    assert error.details == {"moderation_details": details}


@pytest.mark.parametrize("status", [408, 504, 522, 524])
def test_a_timeout_of_theirs_is_a_timeout(status: int) -> None:
    assert failed(status).timed_out


@pytest.mark.parametrize("status", [300, 301, 302, 307, 308])
def test_a_redirect_blames_no_caller(status: int) -> None:
    error = failed(status)
    assert error.failure is Failure.UNAVAILABLE
    assert str(status) in error.message and "base_url" in error.message


# --- words ---


@pytest.mark.parametrize(
    ("document", "message", "type", "code", "param"),
    [
        ({"error": {"message": "m", "type": "t", "code": "c", "param": "p"}}, "m", "t", "c", "p"),
        ({"error": {"message": "m", "code": 400}}, "m", None, "400", None),
        ({"error": {"message": "m", "code": "", "type": None, "param": True}}, "m", None, None, None),
        ({"error": "m", "code": "c"}, "m", None, "c", None),
        ({"code": "c", "error": {"message": "m"}}, "m", None, None, None),
        ({"detail": "m"}, "m", None, None, None),
        (
            {"detail": [{"loc": ["body", "size"], "msg": "too big"}, {"loc": ["body", 0], "msg": "b"}]},
            "body.size: too big; body.0: b", None, None, None,
        ),
        ({"detail": {"error": "m"}}, "m", None, None, None),
        ({"errors": ["a", "b", "a"]}, "a; b", None, None, None),
        ({"message": " m "}, "m", None, None, None),
        ({"message": "outer", "error": {}}, "outer", None, None, None),
        ({"message": "outer", "error": ""}, "outer", None, None, None),
        ({"error": {"error": {"error": {"error": {"error": "deep"}}}}}, "status 400", None, None, None),
        ({"unknown": "shape"}, "status 400", None, None, None),
        (["list"], "status 400", None, None, None),
    ],
)  # fmt: skip
def test_words_are_found_in_every_shape(
    document: Any, message: str, type: str | None, code: str | None, param: str | None
) -> None:
    error = failed(400, document)
    assert (error.message, error.type, error.code, error.param) == (message, type, code, param)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["error", "detail", "message", "msg", "errors", "loc", "code", "type", "status", "data"]),
            inner,
        )
    ),
    max_leaves=12,
)


@given(json_values, st.sampled_from([200, 400, 403, 429, 500, 504]))
def test_no_document_makes_the_reader_fail(document: Any, status: int) -> None:
    assert failed(status, document).message
    found = from_document(document)
    assert found is None or found.message


# --- secrets ---

HASH = "88dc28d0f030c55ed4ab77ed8faf098196cb1c05df778539800c9f1243fe6b4b"


@pytest.mark.parametrize(
    ("said", "left"),
    [
        ("Incorrect API key provided: sk-proj-abcdefGHIJ_1234.", "Incorrect API key provided: […]."),
        ("key ak_0123456789abcdef is wrong", "key […] is wrong"),
        (f"Invalid proxy server token passed. key={HASH}, not found in db.", "Invalid proxy server token passed. "
         "key=[…], not found in db."),
        (f"token_{HASH}", "token_[…]"),
        ("Authorization: Bearer abc.DEF-123 refused", "Authorization: […] refused"),
        ("authorization: bearer abc.DEF-123 refused", "authorization: […] refused"),
        ("jwt eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2ln here", "jwt […] here"),
        ("image: " + "iVBORw0KGgo/" * 20 + "== is bad", "image: […] is bad"),
        ("Send it as Bearer auth. Size 1024x1024, seed 4294967295, at least 655360 pixels.", None),
        ("model black-forest-labs/FLUX.1-schnell, request 0b5e4a3e-7f0c-4ac5-8d8b-2c8f5f9f4a11", None),
    ],
)  # fmt: skip
def test_what_looks_like_a_credential_or_a_picture_is_not_told(said: str, left: str | None) -> None:
    assert scrub(said) == (said if left is None else left)


def test_neither_code_nor_type_nor_param_tells_a_secret() -> None:
    error = failed(400, {"error": {"message": "m", "type": HASH, "code": "sk-abcdef123456", "param": "A" * 500}})
    assert (error.type, error.code, error.param) == ("[…]", "[…]", "[…]")


def test_a_long_message_is_shortened() -> None:
    message = failed(500, {"message": "word " * 5000}).message
    assert len(message) == LONGEST_MESSAGE + 1
    assert message.endswith("…")


# --- how long to wait ---

DATE = "Wed, 21 Oct 2026 07:28:00 GMT"


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry_after": "7"}, 7.0),
        ({"retry_after": " 7 "}, 7.0),
        ({"retry_after": "0"}, 0.0),
        ({"retry_after": "1.5"}, 1.5),
        ({"retry_after_ms": "1500"}, 1.5),
        ({"retry_after_ms": "250.5", "retry_after": "9"}, 0.2505),
        ({"retry_after_ms": "soon", "retry_after": "9"}, 9.0),
        ({"retry_after_ms": "-1", "retry_after": "9"}, 9.0),
        ({"retry_after": "-5"}, None),
        ({"retry_after": ""}, None),
        ({"retry_after": "1.2.3"}, None),
        ({"retry_after": "."}, None),
        ({"retry_after": "inf"}, None),
        ({"retry_after": "nan"}, None),
        ({"retry_after": "9" * 400}, None),
        ({"retry_after": "٣"}, None),
        ({"retry_after": "Wed, 21 Oct 2026 07:28:30 GMT", "date": DATE}, 30.0),
        ({"retry_after": "Wednesday, 21-Oct-26 07:28:30 GMT", "date": DATE}, 30.0),
        ({"retry_after": "Wed Oct 21 07:28:30 2026", "date": DATE}, 30.0),
        ({"retry_after": "Wed, 21 Oct 2026 07:28:30 -0000", "date": DATE}, 30.0),
        ({"retry_after": "Wed, 21 Oct 2026 07:27:00 GMT", "date": DATE}, 0.0),
        ({"retry_after": "Wed, 21 Oct 2026 07:28:30 GMT"}, None),
        ({"retry_after": "Wed, 99 Oct 2026 07:28:30 GMT", "date": DATE}, None),
    ],
)
def test_the_time_to_wait_is_read_in_every_form(headers: dict[str, str], seconds: float | None) -> None:
    assert failed(429, **headers).retry_after == seconds


@given(st.text(st.characters(codec="latin-1"), max_size=40), st.text(st.characters(codec="latin-1"), max_size=12))
def test_no_header_makes_a_wait_that_is_no_number_of_seconds(said: str, ms: str) -> None:
    wait = failed(429, retry_after=said, retry_after_ms=ms, date=DATE).retry_after
    assert wait is None or (wait >= 0 and math.isfinite(wait))


# --- failures under a 200 ---


@pytest.mark.parametrize(
    "document",
    [
        {"data": []}, {"error": None, "data": []}, {"status": "success"}, {"status": "Completed"}, {"status": 200},
        {"success": True}, {"detail": None}, {"error": ""}, {"message": "Image generated successfully"},
    ],
)  # fmt: skip
def test_what_says_nothing_bad_is_no_failure(document: dict[str, Any]) -> None:
    assert from_document(document) is None
    assert from_document(document, delivered=True) is None


WAITING = ["queued", "pending", "in_progress", "IN_QUEUE", "processing", "Loading the model", "no_error"]


@pytest.mark.parametrize("status", WAITING)
@pytest.mark.parametrize("more", [{}, {"id": "1", "message": "hello"}, {"detail": "soon"}, {"code": 202}])
def test_a_status_that_promises_an_image_is_none_and_perhaps_paid(status: str, more: dict[str, Any]) -> None:
    found = from_document({"status": status, **more})
    assert found is not None
    assert (found.failure, found.message) == (Failure.UNCERTAIN, f"it says {status!r} instead of giving the image")


@pytest.mark.parametrize("status", [*WAITING, "finished", "SUCCEEDED"])
def test_beside_its_images_a_status_that_is_no_word_of_failure_counts_for_nothing(status: str) -> None:
    assert from_document({"status": status}, delivered=True) is None


@pytest.mark.parametrize(
    "status",
    ["failed", "FAILURE", "error", "cancelled", "Canceled", "rejected", "blocked", "expired", "timeout", "timed_out",
     "job-failed", "image_generation.failed", "Failed: out of memory"],
)  # fmt: skip
@pytest.mark.parametrize("delivered", [False, True])
def test_a_status_that_is_a_word_of_failure_is_one(status: str, delivered: bool) -> None:
    found = from_document({"status": status, "message": "m"}, delivered=delivered)
    assert found is not None
    assert (found.failure, found.message) == (Failure.FAILED, "m")


@pytest.mark.parametrize(
    "document",
    [
        {"detail": "high"}, {"message": "cheap today"}, {"error": {"code": 0, "message": "success"}},
        {"error": {"code": "ok"}}, {"error": {"message": "OK"}}, {"error": {"code": None, "message": ""}},
        {"error": "none"}, {"error": "Success"}, {"error": 0}, {"errors": []}, {"code": 400},
    ],
)  # fmt: skip
def test_beside_images_only_a_real_error_counts(document: dict[str, Any]) -> None:
    assert from_document(document, delivered=True) is None


@pytest.mark.parametrize("error", ["m", {"message": "m"}, {"code": 5, "message": "m"}, {"type": "t", "message": "m"}])
def test_a_real_error_counts_beside_images_as_well(error: Any) -> None:
    found = from_document({"error": error}, delivered=True)
    assert found is not None
    assert (found.failure, found.message) == (Failure.FAILED, "m")


@pytest.mark.parametrize(
    ("document", "failure", "code"),
    [
        ({"message": "m: model overloaded"}, Failure.FAILED, None),
        ({"code": 50001, "msg": "m"}, Failure.FAILED, "50001"),
        ({"errors": [{"message": "m", "code": "c"}]}, Failure.FAILED, "c"),
        ({"errors": ["m"], "data": None}, Failure.FAILED, None),
        ({"data": [], "images": [], "message": "m"}, Failure.FAILED, None),
        ({"data": [{"error": {"message": "m", "code": "c"}}]}, Failure.FAILED, "c"),
        ({"data": [None, {"error": "m"}], "status": "completed"}, Failure.FAILED, None),
        ({"data": [{"error": {"message": "m", "code": "content_policy_violation"}}]}, Failure.REFUSED,
         "content_policy_violation"),
        ({"code": "content_policy_violation", "message": "m: blocked"}, Failure.REFUSED, "content_policy_violation"),
        ({"code": 400, "message": "m", "data": None}, Failure.REFUSED, "400"),
        ({"errors": [{"message": "m", "code": "moderation_blocked"}]}, Failure.REFUSED, "moderation_blocked"),
    ],
)  # fmt: skip
def test_what_is_said_instead_of_an_image_is_the_reason(
    document: dict[str, Any], failure: Failure, code: str | None
) -> None:
    found = from_document(document)
    assert found is not None
    assert (found.failure, found.code) == (failure, code)
    assert found.message.startswith("m")


@pytest.mark.parametrize(
    "document",
    [
        {"message": "Request queued"}, {"message": "Your image was submitted."}, {"message": "none"},
        {"message": "error while processing"}, {"message": "Request accepted. 0 errors"}, {"message": "Job enqueued"},
        {"data": [{"b64": "AAAA"}], "message": "m"}, {"id": "abc", "message": "m"}, {"job": {"id": "x"}, "msg": "m"},
        {"code": 0, "message": "m"}, {"status": 202, "message": "m"}, {"success": True, "message": "m"},
        {"message": "m", "data": {"b64_json": ""}}, {"message": "m", "images": [""]}, {"message": "m", "task_id": "7"},
        {"error": {"code": 0, "message": "m"}}, {"error": "none", "data": []},
    ],
)  # fmt: skip
def test_words_beside_which_an_image_may_have_been_drawn_are_no_reason(document: dict[str, Any]) -> None:
    assert from_document(document) is None


@pytest.mark.parametrize(
    ("document", "failure", "status"),
    [
        ({"status": "failed", "message": "m"}, Failure.FAILED, None),
        ({"status": "error", "message": "m"}, Failure.FAILED, None),
        ({"success": False, "message": "m"}, Failure.FAILED, None),
        ({"detail": "m"}, Failure.FAILED, None),
        ({"error": "m"}, Failure.FAILED, None),
        ({"error": {"message": "m", "code": "server_error"}}, Failure.FAILED, None),
        ({"error": {"message": "m", "code": 422}}, Failure.REFUSED, 400),
        ({"error": {"message": "m", "code": "invalid_prompt"}}, Failure.REFUSED, 400),
        ({"error": {"message": "m", "code": "moderation_blocked"}}, Failure.REFUSED, 400),
        ({"status": "failed", "message": "m: flagged as NSFW"}, Failure.REFUSED, 400),
        ({"error": {"message": "m", "code": "insufficient_quota"}}, Failure.CREDENTIAL, None),
    ],
)
def test_what_says_that_it_failed_is_a_failure(document: dict[str, Any], failure: Failure, status: int | None) -> None:
    found = from_document(document)
    assert found is not None
    assert (found.failure, found.status) == (failure, status)
    assert found.message.startswith("m")
