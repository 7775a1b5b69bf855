"""The dialect of Black Forest Labs, which draws in jobs: submit with JSON, ask for the job's status at the address that
the answer names, fetch the image behind a link. Field names are data, as the profile says."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from functools import partial
from itertools import chain, count
from typing import Any
from urllib.parse import quote

from app.catalog.deployments import Deployment
from app.catalog.profiles import Profile
from app.dialects import Credential, Decoder, Exchange, ResponseHead, UpstreamRequest
from app.dialects.failures import ErrorText, from_document, from_status, from_text, parse_json, scrub
from app.dialects.json_answers import LONGEST_LINK, SmallDocument, behind, image_ends
from app.dialects.json_requests import object_with_pictures
from app.errors import Failure, UpstreamError
from app.events import Done, Event, ImageBegins
from app.images import ImageRequest, Operation

FIRST_PAUSE, LONGEST_PAUSE, PAUSE_GROWTH = 0.5, 2.0, 1.25  # seconds between two status calls
_CREDENTIAL = Credential(header="x-key", scheme="")
_ADDRESS = re.compile(r"https?://[!-~]{1,2000}")

profile = Profile(
    operations=frozenset((Operation.GENERATIONS, Operation.EDITS)),
    parameters={"width": "width", "height": "height", "seed": "seed", "output_format": "output_format"},
    max_n=1,
    max_images=8,
    image_field="input_image",
    mask="white",
    output_formats=("jpeg", "png"),
    results=("url",),
    streaming=False,
    extra="refuse",
)


def encode(request: ImageRequest, deployment: Deployment, nonce: str) -> UpstreamRequest:
    field = deployment.profile.image_field or "input_image"
    names = chain([field], (f"{field}_{number}" for number in count(2)))
    body = object_with_pictures({}, request, deployment.profile, names)
    return UpstreamRequest(f"/{quote(deployment.model)}", "application/json", body, credential=_CREDENTIAL)


def decoder(request: ImageRequest, head: ResponseHead) -> Decoder:
    """Read the answer to a submit: it names the job, and the address of its status."""

    def read(document: Mapping[str, Any]) -> Iterable[Event | Exchange]:
        address, name = document.get("polling_url"), document.get("id")
        if not isinstance(address, str) or not _ADDRESS.fullmatch(address):
            nothing = UpstreamError(Failure.UNCERTAIN, "the answer names no address of a job")
            raise _moderation(document) or from_document(document) or nothing
        job = {"polling_url": address, "id": name if isinstance(name, str) else None}
        return [_status_call(address, request.prompt, FIRST_PAUSE, job)]

    return SmallDocument(read)


def error(head: ResponseHead, body: bytes) -> UpstreamError:
    """Read any of the vendor's shapes; in `{"error": "a_code", "message": "…"}` the error is a code."""
    document = parse_json(body)
    if isinstance(document, dict) and all(isinstance(document.get(name), str) for name in ("error", "message")):
        body = json.dumps({"error": {"code": document["error"], "message": document["message"]}}).encode()
    return from_status(head, body)


def resume(job: Mapping[str, Any], request: ImageRequest) -> Exchange:
    return _status_call(job["polling_url"], request.prompt, 0.0)


def _status_call(address: str, prompt: str | None, after: float, job: Mapping[str, Any] | None = None) -> Exchange:
    """Return the exchange that asks for a job's status. `prompt`: None if it is no longer known. `after`: the seconds
    of pause before the call."""
    sent = UpstreamRequest(address, method="GET", credential=_CREDENTIAL)
    read = partial(_read_status, address, prompt, after)
    return Exchange(sent, lambda _: SmallDocument(read), error, after, is_repeatable=True, job=job)


def _read_status(
    address: str, prompt: str | None, after: float, document: Mapping[str, Any]
) -> Iterable[Event | Exchange]:
    """Read the answer to a status call. Raises UpstreamError: final where the job has ended, since another call would
    say the same."""
    match _status(document):
        case "pending" | "queued" | "processing":  # only the first is documented
            return [_status_call(address, prompt, min(LONGEST_PAUSE, max(FIRST_PAUSE, after * PAUSE_GROWTH)))]
        case "ready":
            return _picture(document.get("result"), prompt)
        case "error" | "failed":
            reasons = (document.get(name) for name in ("error", "message", "details"))
            failure = from_text(ErrorText({"error": next(filter(None, reasons), None)}))
        case "":
            raise UpstreamError(Failure.UNCERTAIN, "the answer to a status call has no status")
        case word:
            said = f"the job is said to be {scrub(word)!r}"
            failure = _moderation(document) or UpstreamError(Failure.UNCERTAIN, said)
    failure.is_final = True
    raise failure


def _picture(result: Any, prompt: str | None) -> list[Event | Exchange]:
    said = result if isinstance(result, dict) else {}
    sample, revised = said.get("sample"), said.get("prompt")
    if not isinstance(sample, str) or not 0 < len(sample) <= LONGEST_LINK:
        raise UpstreamError(Failure.UNCERTAIN, "the job is ready, and its result has no link", is_final=True)
    if prompt is None or revised == prompt:
        revised = None
    ends = image_ends({"seed": said.get("seed"), "revised_prompt": revised}, None)
    return [ImageBegins(0), behind(sample), ends, Done()]


def _status(document: Mapping[str, Any]) -> str:
    """Return the job's status, in lower case. It stands under `status` or `state`."""
    words = (document.get("status"), document.get("state"))
    return next((word.strip().lower() for word in words if isinstance(word, str) and word.strip()), "")


def _moderation(document: Mapping[str, Any]) -> UpstreamError | None:
    """Return the refusal of a request ("Request Moderated": nothing was drawn) or of its image ("Content Moderated":
    perhaps charged). None if the document says neither."""
    withheld = {"request moderated": "request", "content moderated": "image"}.get(_status(document))
    if withheld is None:
        return None
    details = document.get("details")
    reasons = details.get("Moderation Reasons") if isinstance(details, dict) else None
    listed = ", ".join(each for each in reasons if isinstance(each, str)) if isinstance(reasons, list) else ""
    message = f"The provider's moderation refused the {withheld}" + (f": {listed}" if listed else "")
    said = {"message": message, "code": "content_policy_violation", "moderation_details": details}
    return from_text(ErrorText({"error": said}))
