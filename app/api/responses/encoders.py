"""Encode events into OpenAI's JSON answer, server-sent events, or one image's bytes. Pure; knows no connection."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from app.api.responses.bill import Bill
from app.codecs.base64 import Base64Carry
from app.errors import ApiError
from app.events import Done, Event, ImageBegins, ImageData, ImageEnds, ImageLink, Served
from app.images import ImageRequest, Operation
from app.imaging.formats import media_type

STREAM_NAMES = {
    Operation.GENERATIONS: "image_generation",
    Operation.EDITS: "image_edit",
    Operation.VARIATIONS: "image_variation",
}
_ENOUGH_FOR_TYPE = 64  # bytes
_ENCODER = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))
_NOT_KNOWN = {"size": "auto", "output_format": "unknown"}  # events, which must say something


def compact(value: Any) -> str:
    """Write JSON in UTF-8. Half a surrogate pair, which an upstream's escapes can spell and UTF-8 cannot, becomes
    "?"."""
    text = _ENCODER.encode(value)
    return text if text.isascii() else text.encode(errors="replace").decode()


def _members(value: Mapping[str, Any]) -> str:
    """Return the inside of a JSON object, with a comma before it unless it is empty."""
    return "," + compact(value)[1:-1] if value else ""


class JsonEncoder:
    """Encode `{"created": …, "data": [{"b64_json": …}], …}`; facts about all pictures follow them. Partial images are
    left out."""

    content_type = b"application/json"

    def __init__(self, request: ImageRequest, created: int, bill: Bill | None = None) -> None:
        self._bill = bill
        self._asked = request.echoed
        self._facts: dict[str, Any] = {}
        self._served: dict[str, Any] = {}
        self._before = f'{{"created":{created},"data":['  # text before the next image
        self._in_text = self._partial = False

    def comment(self) -> bytes:
        """Return white space, which JSON allows before the document; nothing once that has begun."""
        return b"" if self._before == "," else b" "

    def encode(self, event: Event) -> bytes:
        if type(event) is ImageData:
            if self._in_text:
                return event.base64
            return b"" if self._partial else self._begun('"b64_json":"', text=True) + event.base64
        if isinstance(event, ImageBegins):
            self._partial = event.partial is not None
        elif isinstance(event, Served):
            self._asked = without(self._asked, event.dropped)
        elif isinstance(event, Done):
            return self._end(event)
        elif not self._partial and isinstance(event, ImageLink):
            return self._begun(f'"url":{compact(event.url)}', text=False)
        elif not self._partial and isinstance(event, ImageEnds):
            return self._image_end(event)
        return b""

    def _begun(self, opening: str, *, text: bool) -> bytes:
        before, self._before, self._in_text = self._before, ",", text
        return (before + "{" + opening).encode()

    def _image_end(self, event: ImageEnds) -> bytes:
        self._facts.update(event.facts)
        if _lacks_transparency(self._asked, event):
            self._asked = without(self._asked, ("background",))
        quote, self._in_text = '"' if self._in_text else "", False
        return (quote + _members(about(event)) + "}").encode()

    def tell(self, served: Served) -> None:
        """Put the facts of the headers at the answer's end, since the headers left without them."""
        self._served = asdict(served)

    def _end(self, event: Done) -> bytes:
        told: dict[str, Any] = {**self._asked, **event.facts, **self._facts}
        if event.usage:
            told["usage"] = event.usage
        if self._served:
            cost = self._bill.members(self._bill.total()) if self._bill else {}
            told["gateway"] = self._served | cost
        return ("]" + _members({name: value for name, value in told.items() if value is not None}) + "}").encode()


class RawEncoder:
    """Encode one image's bytes. The first bytes show its type: `content_type` is known once `encode` has returned
    some."""

    def __init__(self) -> None:
        self.content_type = b"application/octet-stream"
        self._groups = Base64Carry()
        self._held: bytes | None = b""  # until the type is known
        self._partial = False

    def encode(self, event: Event) -> bytes:
        if isinstance(event, ImageBegins):
            self._partial = event.partial is not None
        elif isinstance(event, ImageData) and not self._partial:
            data = self._groups.decode(event.base64)
            if self._held is None:
                return data
            self._held += data
            if len(self._held) >= _ENOUGH_FOR_TYPE:
                return self._release_held(self._held)
        elif isinstance(event, ImageEnds) and not self._partial and self._held:
            return self._release_held(self._held)
        return b""

    def _release_held(self, held: bytes) -> bytes:
        self._held = None
        self.content_type = (media_type(held) or "application/octet-stream").encode()
        return held


class SseEncoder:
    """Encode `…partial_image` and `…completed` events. `event:` stands first, as at OpenAI. If an event breaks off
    inside its image, a second `event:` line, which replaces the first by the rules of server-sent events, makes it an
    error."""

    content_type = b"text/event-stream; charset=utf-8"

    def __init__(self, request: ImageRequest, created: int, bill: Bill | None = None) -> None:
        self._bill = bill
        self._name = STREAM_NAMES[request.operation]
        self._created = created
        self._asked = {"size": str(request.size or "auto"), "quality": "auto", "background": "auto"}
        self._said = request.echoed
        self._served: dict[str, Any] = {}
        self._image = ImageBegins(0)
        self._in_text = False
        self.inside = False  # an event has begun and not ended

    def encode(self, event: Event) -> bytes:
        if type(event) is ImageData:
            return event.base64 if self._in_text else self._begun('"b64_json":"', text=True) + event.base64
        match event:
            case Served():
                self._served = asdict(event)
                self._said = without(self._said, event.dropped)
            case ImageBegins():
                self._image = event
            case ImageLink():
                return self._begun(f'"url":{compact(event.url)}', text=False)
            case ImageEnds():
                return self._image_end(event)
        return b""

    def awaits_cost(self, image: ImageEnds) -> bool:
        """True if the cost of a finished image is not known yet, and the next event may bring it."""
        return self._bill is not None and self._image.partial is None and self._bill.is_open(self._image.index, image)

    def comment(self) -> bytes:
        """Return a comment; nothing inside an event."""
        return b"" if self.inside else b": keep-alive\n\n"

    def error(self, error: ApiError) -> bytes:
        """End the stream with an error that both official SDKs raise."""
        body = _members({"type": "error", **error.envelope()})[1:]
        if self.inside:
            return f"{self._quote()},{body}}}\nevent: error\n\n".encode()
        return f"event: error\ndata: {{{body}}}\n\n".encode()

    @property
    def _type(self) -> str:
        return f"{self._name}.{'completed' if self._image.partial is None else 'partial_image'}"

    def _begun(self, opening: str, *, text: bool) -> bytes:
        self.inside, self._in_text = True, text
        return f"event: {self._type}\ndata: {{{opening}".encode()

    def _quote(self) -> str:
        return '"' if self._in_text else ""

    def _image_end(self, event: ImageEnds) -> bytes:
        facts = {
            "type": self._type,
            "created_at": self._created,
            **self._asked,
            **self._said,
            **({"background": "opaque"} if _lacks_transparency(self._said, event) else {}),
            "output_format": "png",
            **event.facts,
        }
        facts |= {name: _NOT_KNOWN.get(name) for name, value in facts.items() if value is None}
        if self._image.partial is not None:
            facts |= {"partial_image_index": self._image.partial, "index": self._image.index}
        else:
            cost = self._bill.members(self._bill.of_image(self._image.index, event)) if self._bill else {}
            facts |= {"index": self._image.index, **about(event), "gateway": self._served | cost}
            if event.usage:
                facts["usage"] = event.usage
        text = self._quote() + _members(facts) + "}\n\n"
        self.inside = self._in_text = False
        return text.encode()


def without(asked: dict[str, Any], dropped: Sequence[str]) -> dict[str, Any]:
    """Return the facts without the parameters that the deployment did not honour."""
    return {name: value for name, value in asked.items() if name not in dropped}


def _lacks_transparency(asked: Mapping[str, Any], event: ImageEnds) -> bool:
    """True if the caller asked for a transparent background and the picture has none."""
    return event.alpha is False and asked.get("background") == "transparent"


def about(event: ImageEnds) -> dict[str, Any]:
    """Return the facts of one image."""
    said = {"revised_prompt": event.revised_prompt, "seed": event.seed}
    return {name: value for name, value in said.items() if value is not None}
