"""Read requests as multipart forms: edits and variations. Files go to spools as they come; parts may come in any
order."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Any

from python_multipart import MultipartParser
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartState

from app.api.requests.body import Body, Limits
from app.api.requests.part_headers import disposition, parameters
from app.api.requests.rules import invalid, missing, unknown, wrong_type
from app.api.requests.upload import Incoming
from app.api.requests.validation import RULES, Build, too_many
from app.codecs.search import contains
from app.errors import InvalidRequest, shortened
from app.images import ImageRequest, Operation, Upload
from app.storage.spool import Uploads

MAX_PARTS = 200

_PICTURE = re.compile(r"(image|mask|markup)(?:\[([0-9]{0,3})\])?")
_KINDS = {Operation.EDITS: ("image", "mask", "markup"), Operation.VARIATIONS: ("image",)}
_IMAGES = re.compile(r"images(?:\[[0-9]*\])?")
_SVG = re.compile(r"svg((?:\[[^\[\]]+\]){1,8})")


async def read_form(operation: Operation, body: Body, limits: Limits, uploads: Uploads, build: Build) -> ImageRequest:
    """Read a form. `build` makes the request of its fields. Raises ApiError, ClientGone."""
    form = _Form(body, limits, uploads, _KINDS[operation])
    try:
        async for data in body:
            form.feed(data)
            del data  # it is not held while the next piece is waited for
    except FormParserError as error:
        raise _malformed_form(str(error)) from error
    form.close()
    request = build(form.fields, textual=True, check_pictures=form.check)
    return replace(request, images=form.images(), mask=form.singles.get("mask"), markup=form.singles.get("markup"))


@dataclass(slots=True)
class _Part:
    """The part that is read now: a text, a picture, or neither if its bytes are not used."""

    name: str
    filename: str | None
    text: bytearray | None = None
    incoming: Incoming | None = None
    index: int | None = None  # the number in `image[3]`
    label: str = ""  # the field as OpenAI numbers it


class _Form:
    """Collect the parts that the parser finds. `check` raises the first fault of a picture, since other faults come
    before it."""

    def __init__(self, body: Body, limits: Limits, uploads: Uploads, kinds: tuple[str, ...]) -> None:
        self.fields: list[tuple[str, Any]] = []
        self._body = body
        self._limits = limits
        self._uploads = uploads
        self._kinds = kinds
        self._images: list[tuple[int, Upload]] = []
        self.singles: dict[str, Upload] = {}
        self._names: set[str] = set()
        self._svg: dict[str, Any] = {}
        self._fault: InvalidRequest | None = None
        self._pictures = self._parts = 0
        self._begun = self._complete = False
        self._headers: dict[bytes, bytes] = {}
        self._header, self._value = bytearray(), bytearray()
        self._part = _Part("", None)
        self._parser = MultipartParser(
            _boundary(body),
            {
                "on_part_begin": self._on_part_begin,
                "on_header_field": self._on_header_field,
                "on_header_value": self._on_header_value,
                "on_header_end": self._on_header_end,
                "on_headers_finished": self._on_headers_finished,
                "on_part_data": self._on_part_data,
                "on_part_end": self._on_part_end,
                "on_end": self._on_end,
            },
        )

    def feed(self, data: bytes) -> None:
        """Feed the parser. It takes or refuses text before the first boundary, depending on where the network cuts it;
        so refuse all of it here, except line ends."""
        if not self._begun:
            data = data.lstrip(b"\r\n")
            self._begun = bool(data)
        incoming = self._part.incoming
        if incoming is not None and self._is_inside(data):
            incoming.write(data)
        elif data:
            self._parser.write(data)

    def _is_inside(self, data: bytes) -> bool:
        """True if no boundary ends or begins in a piece of a part, so that the parser, which takes longer to see it,
        need not."""
        parser = self._parser
        boundary = parser.boundary  # with the line end before it
        is_between = parser.state != MultipartState.PART_DATA or parser.index
        may_begin = b"\r" in data[-len(boundary) :]
        return not (is_between or may_begin or contains(data, boundary))

    def close(self) -> None:
        if not self._complete:
            raise _malformed_form("it ends before the closing boundary" if self._parts else "it holds no parts")

    def check(self) -> None:
        """Raise InvalidRequest for the first fault among the pictures, or for a missing one."""
        if self._fault:
            raise self._fault
        if not self._images:
            raise missing("image", " Send it as a file of the form: 'image', or 'image[]' for several.")

    def images(self) -> tuple[Upload, ...]:
        """Return the images in the order of their numbers, if they have some, else as they came."""
        return tuple([upload for _, upload in sorted(self._images, key=lambda image: image[0])])

    # Callbacks of the parser.

    def _on_part_begin(self) -> None:
        self._parts += 1
        if self._parts > MAX_PARTS:
            raise _malformed_form(f"it has more than {MAX_PARTS} parts")
        self._headers = {}

    def _on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]

    def _on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _on_header_end(self) -> None:
        self._headers[bytes(self._header).lower()] = bytes(self._value)
        self._header, self._value = bytearray(), bytearray()

    def _on_headers_finished(self) -> None:
        encoding = self._headers.get(b"content-transfer-encoding", b"binary").strip().lower()
        if encoding not in (b"binary", b"8bit", b"7bit"):
            said = shortened(encoding.decode("latin-1"))
            raise _malformed_form(f"a part has the transfer encoding {said!r}; send its bytes as is")
        name, filename = disposition(self._headers.get(b"content-disposition", b""))
        if name is None:
            raise _malformed_form("a part has no name (header 'Content-Disposition: form-data; name=\"…\"')")
        self._part = part = _Part(name, filename)
        picture = _PICTURE.fullmatch(name)
        if picture and picture[1] not in self._kinds:
            picture = None
        if picture and filename is None:
            self._keep(_no_file(name, picture[1]))
        elif picture:
            self._begin_picture(part, picture[1], picture[2])
        elif filename is None and not _IMAGES.fullmatch(name):
            part.text = bytearray()
        elif name in RULES:
            raise _file_for_text(name)
        else:
            self._keep(_unexpected_file(name, self._kinds))

    def _on_part_data(self, data: bytes, start: int, end: int) -> None:
        part = self._part
        if part.incoming is not None:
            part.incoming.write(memoryview(data)[start:end])
        elif part.text is not None:
            self._body.hold(end - start)
            part.text += data[start:end]

    def _on_part_end(self) -> None:
        part = self._part
        if part.incoming is not None:
            self._end_picture(part, part.incoming)
        elif part.text is not None:
            self._end_text(part.name, part.text)
        self._part = _Part("", None)

    def _on_end(self) -> None:
        self._complete = True

    # Pictures.

    def _begin_picture(self, part: _Part, kind: str, index: str | None) -> None:
        self._refuse_repetition(part.name if kind == "image" and index else kind, kind == "image" and not index)
        if kind != "image":
            part.label = kind
            if index and int(index):
                raise unknown(part.name, f" One {kind!r} is taken.")
        else:
            if self._pictures == self._limits.images:
                raise too_many("image", self._limits.images)
            part.index = int(index) if index else None
            bare = index is None and not self._pictures
            part.label = "image" if bare else f"image[{self._pictures if part.index is None else part.index}]"
            self._pictures += 1
        part.incoming = Incoming(part.label, self._limits, self._uploads)

    def _end_picture(self, part: _Part, incoming: Incoming) -> None:
        try:
            upload = incoming.finish(part.filename or "upload", part.label)
        except InvalidRequest as fault:
            self._keep(fault)
            return
        if part.label.startswith("image"):
            self._images.append((-1 if part.index is None else part.index, upload))
        else:
            self.singles[part.label] = upload

    def _keep(self, fault: InvalidRequest) -> None:
        self._fault = self._fault or fault

    # Text.

    def _end_text(self, name: str, raw: bytearray) -> None:
        try:
            text = raw.decode()
        except UnicodeDecodeError as error:
            raise invalid(name, f"Invalid {shortened(name)!r}: its text is not UTF-8.") from error
        if "\0" in text:
            raise invalid(name, f"Invalid {shortened(name)!r}: it holds a NUL character.")
        self._refuse_repetition(name, "[]" in name)
        if nested := _SVG.fullmatch(name):
            self._nest(name, nested[1][1:-1].split("]["), text)
        else:
            self.fields.append((name, text))

    def _nest(self, name: str, keys: list[str], text: str) -> None:
        """Turn names like `svg[reasoning][effort]` into nested objects, as the SDKs' forms mean them."""
        if not self._svg:
            self.fields.append(("svg", self._svg))
        place = self._svg
        for key in keys[:-1]:
            place = place.setdefault(key, {})
            if not isinstance(place, dict):
                raise wrong_type(name, "an object", "")
        if keys[-1] in place:
            raise wrong_type(name, "an object", "")
        place[keys[-1]] = text

    def _refuse_repetition(self, name: str, may_repeat: bool) -> None:
        if name in self._names and not may_repeat:
            raise invalid(
                name,
                f"Duplicate parameter: {shortened(name)!r}. It takes one value and got several.",
                "duplicate_parameter",
            )
        self._names.add(name)


def _boundary(body: Body) -> bytes:
    boundary = parameters(body.content_type.encode("latin-1")).get(b"boundary")
    if not boundary:
        raise _malformed_form("the header 'Content-Type' names no boundary. Let the HTTP client write that header")
    if len(boundary) > 200:
        raise _malformed_form("the boundary in the header 'Content-Type' is longer than 200 bytes")
    return boundary


def _no_file(name: str, kind: str) -> InvalidRequest:
    """Return the error for text where a file is expected, and its usual cause."""
    error = wrong_type(name, "one of an array of files or file" if kind == "image" else "a file", "")
    remedy = f"Send the picture as a file of the form; with curl, an '@' stands before its path: -F {kind}=@{kind}.png"
    return invalid(name, f"{error.message} {remedy}", "invalid_type")


def _file_for_text(name: str) -> InvalidRequest:
    message = f"Invalid type for {name!r}: expected text, but got a file instead. Send it without a filename"
    return invalid(name, f"{message}; with curl, text from a file is -F '{name}=<FILE'.", "invalid_type")


def _unexpected_file(name: str, kinds: tuple[str, ...]) -> InvalidRequest:
    """Return the error for a file where none is allowed, and for the JSON field `images`."""
    if _IMAGES.fullmatch(name):
        return unknown(name, " A multipart form takes 'image' or 'image[]'.")
    taken = "'image', 'image[]' and 'mask'" if "mask" in kinds else "'image'"
    return invalid(
        name,
        f"Invalid type for {shortened(name)!r}: got a file. Files are taken as {taken} here; text must come in parts "
        "without a filename.",
        "invalid_type",
    )


def _malformed_form(reason: str) -> InvalidRequest:
    return InvalidRequest(f"The multipart form could not be read: {reason}.", code="invalid_multipart")
