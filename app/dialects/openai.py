"""The OpenAI Images API as an upstream: JSON or multipart out, JSON or server-sent events back."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from itertools import groupby
from typing import Any

from app.catalog.deployments import Deployment
from app.catalog.profiles import Profile
from app.codecs.json_tap import JsonTap, StringBegins, StringEnds
from app.codecs.sse import EventBegins, EventEnds, SseReader
from app.dialects import Decoder, Ingredient, ResponseHead, UpstreamRequest
from app.dialects.failures import ends_stream, failed_event, from_document, from_event, from_status
from app.dialects.json_answers import ByFirstByte, behind, image_ends, unreadable, usage_of
from app.dialects.json_requests import json_object
from app.dialects.usage import add_up
from app.errors import Failure, UpstreamError
from app.events import Done, Event, ImageBegins, ImageData
from app.images import ImageRequest, Operation, Upload

profile = Profile(extra="pass")


def encode(request: ImageRequest, deployment: Deployment, nonce: str) -> UpstreamRequest:
    fields = list(_fields(request, deployment))
    path = f"/images/{request.operation}"
    if request.operation is Operation.GENERATIONS:
        return UpstreamRequest(path, "application/json", (json_object(dict(fields), request.extra),))
    fields += ((name, json.loads(raw)) for name, raw in request.extra)
    boundary = f"image-gateway-{nonce}"
    form = _form(fields, _files(request, deployment.profile), boundary)
    return UpstreamRequest(path, f"multipart/form-data; boundary={boundary}", tuple(form))


def decoder(request: ImageRequest, head: ResponseHead) -> Decoder:
    return ByFirstByte(request.n, partial(EventAnswer, request.n))


error = from_status


# --- out ---


def _fields(request: ImageRequest, deployment: Deployment) -> Iterator[tuple[str, Any]]:
    can = deployment.profile
    yield "model", deployment.model
    if request.prompt is not None:
        yield can.spelling("prompt", "prompt"), request.prompt
    if request.n != 1:
        yield can.spelling("n", "n"), request.n
    named = can.parameters or {}
    if request.size is not None and "width" in named and "height" in named:
        yield named["width"], request.size.width
        yield named["height"], request.size.height
    elif request.size is not None:
        yield can.spelling("size", "size"), str(request.size)
    if request.response_format is not None:
        yield "response_format", request.response_format
    if request.stream:
        yield "stream", True
        if request.partial_images:
            yield "partial_images", request.partial_images
    for name, value in request.parameters.items():
        yield can.spelling(name, request.spelt.get(name, name)), value


def _files(request: ImageRequest, can: Profile) -> Iterator[tuple[str, Upload]]:
    name = can.image_field or ("image" if len(request.images) == 1 else "image[]")
    for upload in request.images:
        yield name, upload
    if request.mask is not None:
        yield can.mask_field, request.mask
    if request.markup is not None:
        yield "markup", request.markup


def _form(
    fields: Iterable[tuple[str, Any]], files: Iterable[tuple[str, Upload]], boundary: str
) -> Iterator[Ingredient]:
    text = b"".join(
        f'--{boundary}\r\nContent-Disposition: form-data; name="{_quote(name)}"\r\n\r\n{value}\r\n'.encode()
        for field, nested in fields
        for name, value in flatten(field, nested)
    )
    for name, upload in files:
        disposition = f'form-data; name="{name}"; filename="{_quote(upload.filename)}"'
        head = f"--{boundary}\r\nContent-Disposition: {disposition}\r\nContent-Type: {upload.media_type}\r\n\r\n"
        yield text + head.encode()
        yield upload.blob
        text = b"\r\n"
    yield text + f"--{boundary}--\r\n".encode()


def flatten(name: str, value: Any) -> Iterator[tuple[str, str]]:
    """Yield a JSON value as form fields, nested as the official SDKs nest: `a[b]`, `list[]`; null is left out."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from flatten(f"{name}[{key}]", inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from flatten(f"{name}[]", inner)
    elif isinstance(value, bool):
        yield name, "true" if value else "false"
    elif value is not None:
        yield name, str(value)


def _quote(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', "%22").replace("\r", "%0D").replace("\n", "%0A")


# --- back ---

_DONE = b"[DONE]"
LONGEST_COMPLAINT = 65_536
# Of one stream, which has a few partial images and signs of life for each image.
MOST_EVENTS = 4096
MOST_BESIDE = 4 * 1_048_576  # bytes beside the pictures
LARGEST_BESIDE = 1_048_576  # of one event
FEW_ITEMS = 8  # of a piece: an event or two


class EventAnswer:
    """`image_generation.partial_image`, `….completed`, and errors in mid-stream. Other events are passed over.

    It is done with `[DONE]`, or with `most` images: some hosts keep the line open, or break it off, all the same.
    """

    is_in_text = False  # a line may end inside it

    def __init__(self, most: int) -> None:
        self.done = False
        self._most = most
        self._sse = SseReader(error=unreadable)
        self._event: StreamedImage | ErrorEvent | None = None
        self._finished = self._partials = 0  # images, and partial images of the next one
        self._usages: list[Mapping[str, Any]] = []
        self._events_left, self._beside_left = MOST_EVENTS, MOST_BESIDE
        self._asides = 0  # events without a picture ...
        self._reason: UpstreamError | None = None  # ... and why the first of them has none

    def feed(self, data: bytes) -> Iterable[Event]:
        return () if self.done else self._events(self._sse.feed(data))

    def close(self) -> Iterable[Event]:
        events = [] if self.done else list(self._events(self._sse.close()))
        if not self._finished:
            # One event alone, without a picture or a name, is an ordinary answer in an event's clothes.
            alone = self._reason if self._asides == 1 and not self._partials else None
            raise alone or UpstreamError(Failure.UNCERTAIN, "the events ended without an image, and without a reason")
        return [*events, Done(add_up(self._usages) or None)]

    def _events(self, found: list[Any]) -> Iterator[Event]:
        for item in found if len(found) <= FEW_ITEMS else _join(found):
            if self.done:
                return
            if type(item) is bytes:
                if self._event is not None:
                    yield from self._event.feed(item)
                    self.done = self._event.ends
            elif type(item) is EventBegins:
                self._event = self._begun(item.name)
            elif type(item) is EventEnds and self._event is not None:
                yield from self._event.close(item.name)
                self._note(self._event)
                self._event = None

    def _begun(self, name: str | None) -> StreamedImage | ErrorEvent:
        self._events_left -= 1
        if self._events_left < 0:
            raise unreadable(f"the stream has more than {MOST_EVENTS} events")
        if name and ends_stream(name):
            return ErrorEvent(name)
        return StreamedImage(self._finished, name, self._partials, min(LARGEST_BESIDE, self._beside_left))

    def _note(self, event: StreamedImage | ErrorEvent) -> None:
        self._partials += event.is_partial
        self._beside_left -= event.beside
        if event.aside is not None:
            self._asides += 1
            if self._asides == 1:
                self._reason = from_document(event.aside)
        if event.finished:
            self._finished, self._partials = self._finished + 1, 0
            self.done = self._finished == self._most
            if event.usage:
                self._usages.append(event.usage)


def _join(found: Iterable[Any]) -> Iterator[Any]:
    """Join data that comes in many short lines into one piece: each piece costs all the way to the caller."""
    for kind, items in groupby(found, type):
        if kind is bytes:
            yield b"".join(items)
        else:
            yield from items


class ErrorEvent:
    """An event that is called an error from its start. Its data may be plain text."""

    ends = finished = is_partial = False
    usage = aside = None
    beside = 0

    def __init__(self, name: str) -> None:
        self._name = name
        self._text = b""

    def feed(self, data: bytes) -> Iterable[Event]:
        self._text += data[: LONGEST_COMPLAINT - len(self._text)]
        return ()

    def close(self, name: str | None) -> Iterable[Event]:
        try:
            said = json.loads(self._text)
        except (ValueError, RecursionError):
            said = self._text.decode(errors="replace")
        raise from_event(said, name or self._name)


class StreamedImage:
    """One event's data: JSON with the picture under `b64_json`, or its address under `url`.

    `event:`, `type` or `partial_image_index` marks a partial image, in any order. The marks before the picture decide:
    the official order has one there. The rest must not contradict them.
    """

    def __init__(self, index: int, name: str | None, partials: int, room: int) -> None:
        """`room`: bytes that it may hold beside its picture."""
        self._tap = JsonTap(frozenset({"b64_json"}), max_skeleton=room, error=unreadable)
        self._index, self._name = index, name or ""
        self._partials = partials  # that came before it: its own index, where that comes after the picture, as usual
        self._passing = self._begun = self._skip = self.finished = self.is_partial = False
        self.ends = False  # it is the word that all events have come
        self._head: bytes | None = b""  # how the data begins, as long as it may become `[DONE]`; then None
        self._string: StringBegins | None = None  # the picture's
        self.usage: Mapping[str, Any] | None = None
        self.aside: Mapping[str, Any] | None = None  # its text, if it has no picture; empty if it has a name

    def feed(self, data: bytes) -> Iterator[Event]:
        if self._head is not None:
            data = self._without_done(self._head + data)
        if self._skip or not data:
            return
        for item in self._tap.feed(data):
            if type(item) is bytes:
                if self._passing:
                    if not self._begun and self._string:  # only now, since an empty text is no image
                        yield self._begin(self._tap.document_so_far(self._string))
                    yield ImageData(item)
            elif type(item) is StringBegins and item.path == ("b64_json",):
                if self._begun:
                    raise unreadable("an image comes twice")
                self._passing, self._string = True, item
            elif type(item) is StringEnds:
                self._passing = False

    def close(self, name: str | None) -> Iterator[Event]:
        """End the event. `name`: that of the last `event:` line, the one that counts."""
        if self._skip or self._head == b"":  # a sign of life without data
            return
        self._name = name or ""
        if self._head:
            self._tap.feed(self._head)
        document = self._tap.close()
        if not isinstance(document, dict):
            return
        if failure := failed_event(document, self._name):
            raise failure.alone()  # this frame holds the other one
        if not self._begun and isinstance(address := document.get("url"), str) and address:
            yield self._begin(document)
            yield behind(address)
        if self._begun:
            if self.is_partial != (self._partial(document) is not None):
                raise unreadable("an event says only after its picture whether it is a partial one")
            self.finished = not self.is_partial
            self.usage = usage_of(document)
            yield image_ends(document, self.usage)
        elif document:
            self.aside = {} if self._name not in ("", "message") or document.get("type") else document

    @property
    def beside(self) -> int:
        """The bytes that it holds beside its picture."""
        return self._tap.kept

    def _without_done(self, head: bytes) -> bytes:
        """Return the beginning of the data, once it is known not to be `[DONE]`."""
        head = head.lstrip()
        self._skip = self.ends = head.startswith(_DONE)
        self._head = head if _DONE.startswith(head) and not self._skip else None
        return b"" if self._skip or self._head is not None else head

    def _begin(self, said: Mapping[str, Any]) -> ImageBegins:
        partial = self._partial(said)
        self._begun, self.is_partial = True, partial is not None
        return ImageBegins(self._index, partial)

    def _partial(self, so_far: Mapping[str, Any]) -> int | None:
        kind = str(so_far.get("type") or self._name)
        index = so_far.get("partial_image_index")
        if kind.endswith("partial_image") or (not kind and index is not None):
            return index if isinstance(index, int) and 0 <= index < MOST_EVENTS else self._partials
        return None
