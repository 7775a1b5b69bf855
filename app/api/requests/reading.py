"""Read a request by its Content-Type: JSON or a form. Raises ApiError and ClientGone only."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from starlette.types import Receive, Scope

from app.api.requests import validation
from app.api.requests.body import Body, Limits
from app.api.requests.json_body import Fetch, read_edit, read_generation
from app.api.requests.multipart import read_form
from app.errors import InvalidRequest, shortened
from app.images import ImageRequest, Operation
from app.storage.spool import Uploads

_FORM, _JSON = "multipart/form-data", "application/json"
_TAKEN = {Operation.GENERATIONS: (_JSON,), Operation.EDITS: (_FORM, _JSON), Operation.VARIATIONS: (_FORM,)}
_REMEDIES = {_FORM: "a form with the images as files", _JSON: "JSON with the header 'Content-Type: application/json'"}


async def read_request(
    operation: Operation,
    scope: Scope,
    receive: Receive,
    limits: Limits,
    uploads: Uploads,
    fetch: Fetch | None = None,
    default_model: Callable[[], str | None] = lambda: None,
) -> ImageRequest:
    """Return the request as a value. Its pictures lie in `uploads`: close them after the last attempt.

    `fetch` gets an image that is an `https:` address; without it such images are refused. `default_model` gives the
    model of a request that names none. Raises ApiError, and ClientGone when the client disconnects before its request
    is complete.
    """
    body = Body(scope, receive, limits, uploads)
    door = body.media_type
    if door.startswith("application/") and door.endswith("+json"):
        door = _JSON
    if door not in _TAKEN[operation]:
        raise _unsupported_type(operation, body)
    path_model = scope.get("path_params", {}).get("model")
    build = partial(validation.build, operation, path_model=path_model, default_model=default_model)
    if door == _FORM:
        return await read_form(operation, body, limits, uploads, build)
    if operation is Operation.GENERATIONS:
        return await read_generation(body, build)
    return await read_edit(body, limits, uploads, fetch, build)


def _unsupported_type(operation: Operation, body: Body) -> InvalidRequest:
    taken = " or ".join(map(repr, _TAKEN[operation]))
    if body.content_type:
        kind, header = shortened(body.media_type), shortened(body.content_type, 128)
        said = f"Unsupported content type: {kind!r}. The header says 'Content-Type: {header}', and"
    else:
        said = "Unsupported content type: the header 'Content-Type' is missing, and"
    remedy = " or ".join(_REMEDIES[door] for door in _TAKEN[operation])
    message = f"{said} images/{operation} takes {taken} only. Send {remedy}."
    return InvalidRequest(message, code="unsupported_content_type")
