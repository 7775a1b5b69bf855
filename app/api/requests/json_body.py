"""Read requests in JSON: generations, and edits whose images are data URLs or addresses. Holds no image while it
reads."""

from __future__ import annotations

import asyncio
import json
import math
import re
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from typing import Any

from app.api.requests.body import TEXT_BYTES, Body, Limits, text_too_large
from app.api.requests.image_url import ImageUrl
from app.api.requests.rules import invalid, missing, unknown, wrong_type
from app.api.requests.upload import judge
from app.api.requests.validation import Build, too_many
from app.codecs.json_tap import MAX_DEPTH, MOST_STRINGS, JsonTap, JsonTapError, StringBegins, StringEnds, reason
from app.errors import InvalidRequest, shortened
from app.images import ImageRequest, Upload
from app.storage.spool import Uploads

Fetch = Callable[[str, str], Awaitable[Upload]]  # of an address, and the place where it stands
Path = tuple[str | int, ...]

MOST_FIELDS = 200  # as many as a form has parts: each is looked at by itself
FETCHING_SECONDS = 600.0  # for all images of a request that are `https:` addresses

_PICTURES = ("images", "mask", "markup")
_NUL = re.compile(r"(?<!\\)(?:\\\\)*\\u0000")  # in JSON: behind backslashes that stand for themselves
_ESCAPES = re.compile(rb"\\u(?:0000|[dD][89a-fA-F])")  # of NUL, and of half a surrogate pair


async def read_generation(body: Body, build: Build) -> ImageRequest:
    """Read a generation. `build` makes the request of its fields. Raises ApiError, ClientGone."""
    raw = await body.text()
    if raw.count(b"[") + raw.count(b"{") > MAX_DEPTH:
        _refuse_structure(raw)
    fields = _parse(raw)
    if _ESCAPES.search(raw):
        _check_values(fields)
    return build(fields.items())


async def read_edit(body: Body, limits: Limits, uploads: Uploads, fetch: Fetch | None, build: Build) -> ImageRequest:
    """Read an edit. `fetch` gets the images that are `https:` addresses; None: they are refused. `build`
    makes the request of its fields. Raises ApiError, ClientGone."""
    fields, sources = await _read_document(body, limits, uploads)
    _check_values(fields)
    found: dict[str, Upload | str] = {}
    request = build(
        [(name, value) for name, value in fields.items() if name not in _PICTURES],
        check_pictures=lambda: found.update(_pictures(fields, sources, limits, is_remote=fetch is not None)),
    )
    pictures: dict[str, Upload] = {}
    try:
        async with asyncio.timeout(FETCHING_SECONDS):
            for place, picture in found.items():
                if isinstance(picture, Upload):
                    pictures[place] = picture
                elif fetch:
                    pictures[place] = await fetch(picture, f"{place}.image_url")
                    judge(pictures[place], f"{place}.image_url", limits)
    except TimeoutError:
        message = f"The images did not all arrive from their addresses within {FETCHING_SECONDS:g} seconds."
        raise invalid("images", f"{message} Send them as data URLs.", "invalid_image_url") from None
    mask, markup = pictures.pop("mask", None), pictures.pop("markup", None)
    return replace(request, images=tuple(pictures.values()), mask=mask, markup=markup)


def _pictures(
    fields: dict[str, Any], sources: dict[Path, ImageUrl], limits: Limits, *, is_remote: bool
) -> Iterator[tuple[str, Upload | str]]:
    """Yield the `images`, the `mask` and the `markup` of an edit by their place ("images[0]"): pictures, or, if
    `is_remote`, addresses too. Raises InvalidRequest."""
    for name in ("image", "image[]"):
        if fields.get(name) is not None:
            remedy = " An edit in JSON takes 'images', an array of objects with an 'image_url' each."
            raise unknown(name, remedy)
    images = fields.get("images")
    if images is None:
        raise missing("images", " It is an array of objects with an 'image_url' each.")
    if type(images) is not list:
        raise wrong_type("images", "an array of objects", images)
    if not images:
        raise invalid("images", "Invalid 'images': empty array. Expected at least one image.", "empty_array")
    if len(images) > limits.images:
        raise too_many("images", limits.images)
    items: dict[Path, Any] = {("images", index): item for index, item in enumerate(images)}
    items |= {(name,): fields[name] for name in ("mask", "markup") if fields.get(name) is not None}
    for path, item in items.items():
        place = f"images[{path[1]}]" if path[1:] else str(path[0])
        _check_shape(place, item)
        source = sources[*path, "image_url"]
        if source.address is None:
            yield place, source.finish()
        elif is_remote:
            yield place, source.address
        else:
            raise invalid(
                f"{place}.image_url",
                "Images are not fetched from addresses: the setting 'server.remote_images' is off. Send the image as a "
                "data URL ('data:image/png;base64,…'), or as a file of a multipart form.",
            )


def _check_shape(place: str, item: Any) -> None:
    if type(item) is not dict:
        raise wrong_type(place, "an object with an 'image_url'", item)
    item = {key: value for key, value in item.items() if value is not None}
    if "file_id" in item:
        raise invalid(
            f"{place}.file_id",
            "Images cannot be named by 'file_id' here, for this server keeps no uploaded files. Send the image "
            "itself: as a data URL in 'image_url', or as a file of a multipart form.",
        )
    for key in item:
        if key != "image_url":
            raise unknown(f"{place}.{key}")
    if "image_url" not in item:
        raise missing(f"{place}.image_url")
    if type(item["image_url"]) is not str:
        raise wrong_type(f"{place}.image_url", "a string", item["image_url"])


async def _read_document(body: Body, limits: Limits, uploads: Uploads) -> tuple[dict[str, Any], dict[Path, ImageUrl]]:
    """Return the document with an empty string for each image, and the strings by path."""
    tap = JsonTap(frozenset({"image_url"}), max_skeleton=TEXT_BYTES, decoder=_LENIENT)
    sources: dict[Path, ImageUrl] = {}
    elsewhere: dict[Path, bytearray] = {}  # strings of that name which are no image of ours: they go back
    source: ImageUrl | bytearray = bytearray()
    kept = 0  # bytes of the rest
    try:
        async for data in body:
            events = tap.feed(data)
            if tap.kept > kept:
                body.hold(tap.kept - kept)
                kept = tap.kept
            for event in events:
                if isinstance(event, StringBegins):
                    name = _name(event.path, limits)
                    if name:
                        source = sources[event.path] = ImageUrl(name, limits, uploads)
                    else:
                        source = elsewhere[event.path] = bytearray()
                elif isinstance(event, StringEnds):
                    if isinstance(source, ImageUrl):
                        source.end()
                elif isinstance(source, ImageUrl):
                    source.feed(event)
                else:
                    body.hold(len(event))
                    source += event
            if tap.left_out:
                raise unparsable(f"it has more than {MOST_STRINGS} strings under 'image_url'")
            del data  # it is not held while the next piece is waited for
        fields = tap.close()
    except JsonTapError as error:
        raise text_too_large() if str(error).startswith("JSON holds more") else unparsable(str(error)) from error
    fields = _members(fields)
    for path, text in elsewhere.items():
        _put_back(fields, path, text)
    return fields, sources


def _name(path: Path, limits: Limits) -> str | None:
    """Return the name of the image at `path` for messages; None if no image is expected there."""
    match path:
        case ("images", int(index), "image_url"):
            if index >= limits.images:
                raise too_many("images", limits.images)
            return f"images[{index}].image_url"
        case ("mask" | "markup", "image_url"):
            return f"{path[0]}.image_url"
    return None


def _put_back(fields: dict[str, Any], path: Path, text: bytearray) -> None:
    place: Any = fields
    try:
        for step in path[:-1]:
            place = place[step]
        if place[path[-1]] == "":
            place[path[-1]] = text.decode()
    except UnicodeDecodeError as error:
        raise unparsable("it is not UTF-8") from error
    except (KeyError, IndexError, TypeError):
        return  # a later value under the same key has taken its place


def unparsable(reason: str) -> InvalidRequest:
    return InvalidRequest(
        f"The body of the request could not be parsed as JSON: {reason}. Send one JSON object in UTF-8, for example "
        '{"model": "…", "prompt": "…"}.'
    )


def _not_an_object(value: Any) -> InvalidRequest:
    return InvalidRequest(
        wrong_type("body", "an object", value).message
        + ' Send one JSON object, for example {"model": "…", "prompt": "…"}.',
        code="invalid_type",
    )


def _parse(raw: bytes) -> dict[str, Any]:
    if not raw.strip():
        raise unparsable("it is empty")
    try:
        text = raw.removeprefix(b"\xef\xbb\xbf").decode()
        try:
            fields = _STRICT.decode(text)
        except _NotFiniteError:
            fields = _LENIENT.decode(text)
            _check_values(_members(fields))  # to tell which field holds it
    except UnicodeDecodeError as error:
        raise unparsable(f"it is not UTF-8 (byte {error.start})") from error
    except ValueError as error:
        raise unparsable(reason(error)) from error
    return _members(fields)


def _members(document: Any) -> dict[str, Any]:
    """Return the fields. Raises InvalidRequest unless `document` is an object of no more than MOST_FIELDS."""
    if type(document) is not dict:
        raise _not_an_object(document)
    if len(document) > MOST_FIELDS:
        message = f"The request has {len(document)} fields, and at most {MOST_FIELDS} are taken. Leave some out."
        raise InvalidRequest(message, code="invalid_value")
    return document


def _refuse_structure(raw: bytes) -> None:
    """Refuse a document that nests too deep, or holds too many objects and arrays, before they are built: each takes a
    hundred times the bytes that spell it. The document is written again for a provider, from deeper in the stack."""
    try:
        JsonTap(frozenset(), max_skeleton=TEXT_BYTES).feed(raw)
    except JsonTapError as error:
        raise unparsable(str(error)) from error


def _check_values(fields: dict[str, Any]) -> None:
    """Refuse text that JSON's escapes can spell and UTF-8 cannot hold: half a surrogate pair, and NUL. Refuse numbers
    that JSON cannot spell: a provider could not read them."""
    for name, value in fields.items():
        try:
            text = json.dumps([name, value], ensure_ascii=False, allow_nan=False)
        except ValueError as error:
            raise _unfit(name, "NaN, Infinity or a number too large, which is no JSON") from error
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise _unfit(name, "half of a surrogate pair, which is no text") from error
        if _NUL.search(text):
            raise _unfit(name, "a NUL character, which is no text")


def _unfit(name: str, what: str) -> InvalidRequest:
    name = name.encode("ascii", "replace").decode()
    return invalid(name, f"Invalid {shortened(name)!r}: it holds {what}.")


class _NotFiniteError(ValueError):
    """A number is NaN, infinite, or so large that it would be read as infinite."""


def _refuse_constant(name: str) -> None:
    raise _NotFiniteError(name)


def _finite(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise _NotFiniteError(text)
    return value


_STRICT = json.JSONDecoder(parse_constant=_refuse_constant, parse_float=_finite)
_LENIENT = json.JSONDecoder()
