"""Decoders that the dialects share: a JSON answer with pictures under `data[].b64_json` or `data[].url`, and the
choice between JSON and events by what the body begins with, and small documents without pictures. Knows no provider."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from itertools import islice
from typing import Any
from urllib.parse import unquote_to_bytes

from app.codecs.json_tap import JsonTap, StringBegins, StringEnds
from app.dialects import Decoder, Exchange
from app.dialects.failures import from_document
from app.errors import Failure, UpstreamError
from app.events import Done, Event, ImageBegins, ImageData, ImageEnds, ImageLink

FACTS = ("background", "output_format", "quality", "safety_identifier", "size")
LARGEST_DOCUMENT = 1_048_576  # bytes
LONGEST_LINK = 65_536  # bytes
LONGEST_REVISION = 32_000  # characters: as long as a prompt may be
_LONGEST_WORD = 256  # characters
_LARGEST_COUNT = 2**53
_LARGEST_SEED = 2**64
_MOST_COUNTS = 16  # that one part of a usage holds
_DATA_URL = re.compile(rb"data:[^,]{0,256};base64,(?=.)", re.IGNORECASE | re.DOTALL)


def unreadable(reason: object) -> UpstreamError:
    return UpstreamError(Failure.UNCERTAIN, f"the answer cannot be read: {reason}")


class JsonAnswer:
    """`{"data": [{"b64_json": …, "revised_prompt": …, "seed": …} | {"url": …}], "usage": …}`, in any order of keys.

    What the document states of its images (see `FACTS`) before the end of the first one is said of each of them.
    `most` is how many images were asked for: those beyond are passed over, since the others were drawn and paid for.
    """

    done = False  # only its end shows that nothing contradicts it

    def __init__(self, most: int) -> None:
        self._tap = JsonTap(frozenset({"b64_json", "url"}), error=unreadable)
        self._most = most
        self._told = 0  # entries of `data` that have been passed on whole
        self._open = False  # some of the entry `_told` has been passed on ...
        self._from_url = False  # ... from its `url`
        self._passing = False  # we are inside a picture's text
        self._address: UrlText | None = None  # we are inside of
        self._link: str | None = None  # of the entry `_told`, if it has one and nothing of it has been passed on
        self._last: StringBegins | None = None  # the last string of an entry that was asked for
        self._common: Mapping[str, str] = {}  # facts of each image

    @property
    def is_in_text(self) -> bool:
        return self._open and self._passing and self._tap.is_in_string

    def feed(self, data: bytes) -> Iterable[Event]:
        return self._events(self._tap.feed(data))

    def close(self) -> Iterable[Event]:
        document = self._tap.close()
        delivered = bool(self._told or self._open or self._link)
        if failure := from_document(document, delivered=delivered):
            raise failure.alone()  # this frame holds the other one
        if not delivered:
            raise UpstreamError(Failure.UNCERTAIN, "the answer holds no image, and no reason")
        usage = usage_of(document)
        data = document.get("data")
        entries = data[: self._most] if isinstance(data, list) else []
        facts: dict[str, Any] = facts_of(document)
        if not self._told:
            self._common = facts
        events: list[Event] = []
        for entry in entries[self._told :]:
            events += self._end(entry, usage if self._told == len(entries) - 1 else None)
        if self._open or self._told > len(entries):
            raise unreadable("'data' comes twice")
        if isinstance(document.get("svg_usage"), dict):
            facts = {**facts, "svg_usage": _counts(document["svg_usage"])}
        return [*events, Done(usage, facts)]

    def _events(self, found: Iterable[Any]) -> Iterator[Event]:
        for item in found:
            if type(item) is bytes:
                text = item if self._passing else self._address.feed(item) if self._address else b""
                if text:
                    if not self._open:  # only now, since an empty text is no image
                        self._open, self._from_url = True, not self._passing
                        yield ImageBegins(self._told)
                    yield ImageData(text)
            elif type(item) is StringBegins:
                match item.path:
                    case ("data", int(index), "b64_json" | "url" as key):
                        yield from self._string(index, key, item)
            elif type(item) is StringEnds:
                if self._address and (rest := self._address.close()):
                    yield ImageData(rest)
                elif self._address:
                    self._link = self._address.link or self._link
                self._passing, self._address = False, None

    def _string(self, index: int, key: str, begins: StringBegins) -> Iterator[Event]:
        if index < self._told:
            raise unreadable("'data' comes twice")
        if index >= self._most:
            return
        while self._told < index:
            if not self._told:
                self._common = facts_of(self._tap.document_so_far(begins))
            yield from self._end(self._entry(self._told, begins), None)
        self._last = begins
        if key == "url" and not self._open:
            self._address = UrlText()
        elif key == "b64_json" and not self._open:
            self._passing = True
        elif key == "b64_json" and not self._from_url:
            raise unreadable("an image comes twice")

    def _entry(self, index: int, until: StringBegins) -> Any:
        """Return the entry `index`, which ended before `until`; None if it has no string that could be its image."""
        last = self._last
        return self._tap.holder(last, until) if last is not None and last.path[1] == index else None

    def _end(self, entry: Any, usage: Mapping[str, Any] | None) -> Iterator[Event]:
        """Yield the rest of the entry `_told`: its end, or all of it if it is only a link. Raises UpstreamError if it
        is neither: an answer with a piece missing must not look whole."""
        if not self._open and self._link:
            yield ImageBegins(self._told)
            yield ImageLink(self._link)
            self._open = True
        if not self._open:
            raise UpstreamError(Failure.UNCERTAIN, f"image {self._told + 1} of the answer is missing")
        self._told += 1
        self._open, self._link = False, None
        ends = image_ends(entry if isinstance(entry, dict) else {}, usage)
        yield replace(ends, facts={**self._common, **ends.facts})


class UrlText:
    """The text under `url`, while it passes: a link, or, as a data URL, the image itself."""

    def __init__(self) -> None:
        self._text = bytearray()  # of a link, or of what may become one
        self._is_image = False
        self._tail = b""  # the beginning of a character that is spelt %2B

    def feed(self, text: bytes) -> bytes:
        """Return the part that is base64 text of an image. Raises UpstreamError for a link without end."""
        if not self._is_image:
            self._text += text
            prefix = _DATA_URL.match(self._text)
            if prefix is None:
                if len(self._text) > LONGEST_LINK:
                    raise unreadable(f"a link is longer than {LONGEST_LINK} bytes")
                return b""
            self._is_image, text = True, bytes(self._text[prefix.end() :])
        text = self._tail + text
        cut = text.rfind(b"%", max(0, len(text) - 2))
        self._tail = text[cut:] if cut >= 0 else b""
        return unquote_to_bytes(text[:cut] if cut >= 0 else text)

    def close(self) -> bytes:
        """Return the rest of an image's text."""
        return self._tail

    @property
    def link(self) -> str | None:
        return None if self._is_image else self._text.decode(errors="replace")


def behind(address: str) -> ImageLink | ImageData:
    """Return the link that a whole `url` is, or the image in it."""
    whole = UrlText()
    text = whole.feed(address.encode(errors="replace"))
    return ImageLink(address) if whole.link is not None else ImageData(text + whole.close())


def image_ends(entry: Mapping[str, Any], usage: Mapping[str, Any] | None) -> ImageEnds:
    revised, seed = entry.get("revised_prompt"), entry.get("seed")
    return ImageEnds(
        revised_prompt=revised[:LONGEST_REVISION] if isinstance(revised, str) and revised else None,
        seed=seed if _is_count(seed, _LARGEST_SEED) else None,
        usage=usage,
        facts=facts_of(entry),
    )


def facts_of(said: Mapping[str, Any]) -> dict[str, str]:
    """Return the facts that the provider states of an image, as far as they are words."""
    return {key: said[key] for key in FACTS if key in said and _is_word(said[key])}


def usage_of(document: Mapping[str, Any]) -> dict[str, Any] | None:
    """Translate the upstream's usage into OpenAI's shape; None if it gives none."""
    said = document.get("usage")
    if not isinstance(said, dict):
        return None
    taken = _count(said, "input_tokens", "prompt_tokens")
    total = _count(said, "total_tokens")
    made = _count(said, "output_tokens", "completion_tokens")
    if taken is None and total is None and made is None:
        return None
    if made is None:
        made = max(0, (total or 0) - (taken or 0))
    if taken is None:
        taken = max(0, (total or 0) - made)
    usage: dict[str, Any] = {
        "total_tokens": taken + made if total is None else total,
        "input_tokens": taken,
        "output_tokens": made,
        "input_tokens_details": _details(said.get("input_tokens_details") or said.get("prompt_tokens_details"), taken),
    }
    if isinstance(said.get("output_tokens_details"), dict):
        usage["output_tokens_details"] = _counts(said["output_tokens_details"])
    return usage


def _count(said: Mapping[str, Any], *names: str) -> int | None:
    return next((said[name] for name in names if _is_count(said.get(name))), None)


def _counts(said: Mapping[str, Any]) -> dict[str, Any]:
    """Return the first few counts and words: they are kept with the images, and passed on as they are."""
    short = ((name, value) for name, value in said.items() if _is_word(name) and (_is_count(value) or _is_word(value)))
    return dict(islice(short, _MOST_COUNTS))


def _is_word(value: Any) -> bool:
    return isinstance(value, str) and len(value) <= _LONGEST_WORD


def _is_count(value: Any, largest: int = _LARGEST_COUNT) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) <= largest


def _details(said: Any, taken: int) -> dict[str, int]:
    """Split the input's tokens. Those that the upstream does not count as images count as text."""
    said = said if isinstance(said, dict) else {}
    image, text = _count(said, "image_tokens") or 0, _count(said, "text_tokens")
    return {"text_tokens": max(0, taken - image) if text is None else text, "image_tokens": image}


class ByFirstByte:
    """Waits for the first byte that is not white space and lets it choose the decoder: labels have been seen to lie.

    `most` is how many images were asked for; `events` makes the decoder of a stream, if there may be one.
    """

    def __init__(self, most: int, events: Callable[[], Decoder] | None = None) -> None:
        self._most = most
        self._chosen: Decoder | None = None
        self._events = events
        self._blank = 0

    @property
    def done(self) -> bool:
        return self._chosen is not None and self._chosen.done

    @property
    def is_in_text(self) -> bool:
        return self._chosen is not None and self._chosen.is_in_text

    def feed(self, data: bytes) -> Iterable[Event]:
        if self._chosen is not None:
            return self._chosen.feed(data)
        text = data.lstrip(b" \t\r\n\xef\xbb\xbf")
        if not text:
            self._blank += len(data)
            if self._blank > 1_048_576:
                raise unreadable("nothing but white space")
            return ()
        self._chosen = self._choose(text)
        return self._chosen.feed(text)

    def close(self) -> Iterable[Event | Exchange]:
        if self._chosen is None:
            raise UpstreamError(Failure.UNCERTAIN, "the answer is empty")
        return self._chosen.close()

    def _choose(self, text: bytes) -> Decoder:
        if text[:1] == b"{":
            return JsonAnswer(self._most)
        if self._events and text[:1] in (b":", b"e", b"d", b"i", b"r"):
            return self._events()
        kind = "HTML" if text[:1] == b"<" else "neither JSON nor events"
        raise unreadable(f"it is {kind}")


class SmallDocument:
    """A JSON object without pictures, such as the answer to a submit or to a status call. `read` makes the events and
    the next exchange of it. Raises UpstreamError (UNCERTAIN) for an answer that is no JSON object, or is over
    `LARGEST_DOCUMENT`."""

    done = is_in_text = False

    def __init__(self, read: Callable[[Mapping[str, Any]], Iterable[Event | Exchange]]) -> None:
        self._read = read
        self._text = bytearray()

    def feed(self, data: bytes) -> Iterable[Event]:
        self._text += data
        if len(self._text) > LARGEST_DOCUMENT:
            raise unreadable(f"it is longer than {LARGEST_DOCUMENT} bytes")
        return ()

    def close(self) -> Iterable[Event | Exchange]:
        try:
            document = json.loads(self._text)
        except (ValueError, RecursionError):
            raise unreadable("it is no JSON") from None
        if not isinstance(document, dict):
            raise unreadable("it is JSON, but no object")
        return self._read(document)
