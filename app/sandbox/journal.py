"""The sandbox's memory: drawings made, the last requests seen, the last pictures handed out. All bounded.

Knows nothing of providers but their names.
"""

from __future__ import annotations

import binascii
import hashlib
from collections import OrderedDict, deque

import pybase64

from app.sandbox.incoming import FilePart, Incoming, file_part

REQUESTS_KEPT = 200
PICTURES_KEPT = 64
LONGEST_TEXT = 1000  # characters of a JSON string that are kept as they came
PICTURE_FIELDS = ("image", "mask", *(f"input_image{number}" for number in ("", *(f"_{n}" for n in range(2, 11)))))


class Journal:
    """Counts of drawings per provider, and the newest upstream requests."""

    def __init__(self, providers: tuple[str, ...]) -> None:
        self.drawings: dict[str, int] = dict.fromkeys(providers, 0)
        self._requests: deque[dict[str, object]] = deque(maxlen=REQUESTS_KEPT)

    def drew(self, provider: str, pictures: int) -> None:
        self.drawings[provider] += pictures

    def saw(self, provider: str, entry: dict[str, object]) -> None:
        self._requests.append({"provider": provider, **entry})

    def last(self, count: int) -> list[dict[str, object]]:
        """Return the newest `count` requests, oldest first."""
        return list(self._requests)[-count:] if count > 0 else []

    def clear(self) -> None:
        self.drawings = dict.fromkeys(self.drawings, 0)
        self._requests.clear()


class Gallery:
    """The newest pictures handed out as an address: number and ending to media type and bytes."""

    def __init__(self) -> None:
        self._pictures: OrderedDict[str, tuple[str, bytes]] = OrderedDict()
        self._next = 1

    def hang(self, data: bytes, ending: str, media_type: str) -> str:
        """Keep a picture. Returns its name."""
        name = f"{self._next}.{ending}"
        self._next += 1
        self._pictures[name] = (media_type, data)
        if len(self._pictures) > PICTURES_KEPT:
            self._pictures.popitem(last=False)
        return name

    def get(self, name: str) -> tuple[str, bytes] | None:
        return self._pictures.get(name)


def described(incoming: Incoming) -> dict[str, object]:
    """Return a request as the journal shows it: files and long texts by length and digest instead of content."""
    form = None
    if incoming.fields is not None:
        form = [
            described_file(value) if isinstance(value, FilePart) else {"name": name, "value": value}
            for name, value in incoming.fields
        ]
    fields = None
    if incoming.json is not None:
        fields = {name: _described_value(name, value) for name, value in incoming.json.items()}
    return {
        "path": incoming.path,
        "headers": incoming.headers,
        "json": fields,
        "form": form,
        "problem": incoming.problem,
    }


def described_file(part: FilePart) -> dict[str, object]:
    facts = part.facts
    return {
        "name": part.name,
        "filename": part.filename,
        "content_type": part.content_type,
        "size": len(part.data),
        "sha256": part.sha256,
        "format": facts and facts.format,
        "width": facts and facts.width,
        "height": facts and facts.height,
        "mode": facts and facts.mode,
    }


def _described_value(name: str, value: object) -> object:
    if not isinstance(value, str):
        return value
    if name in PICTURE_FIELDS:
        try:
            data = pybase64.b64decode(value, validate=True)
        except (binascii.Error, ValueError):
            return {"invalid_base64": value[:LONGEST_TEXT]}
        return {**described_file(file_part(name, None, None, data)), "base64_length": len(value)}
    if len(value) <= LONGEST_TEXT:
        return value
    digest = hashlib.sha256(value.encode(errors="surrogatepass")).hexdigest()
    return {"start": value[:LONGEST_TEXT], "length": len(value), "sha256": digest}
