"""Check and measure pictures while their base64 text passes. Holds a head and a tail, never the picture."""

from __future__ import annotations

import binascii
import math

import pybase64

from app.errors import Failure, UpstreamError
from app.events import Event, ImageBegins, ImageData, ImageEnds, ImageLink
from app.images import Size
from app.imaging.formats import HeaderSearch, dimensions, format_name, has_alpha, media_type
from app.imaging.parts import JPEG, PNG, WEBP

_WHITE = b" \t\r\n"
_ALPHABET = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/="
_OF_AN_IMAGE = (ImageBegins, ImageData, ImageLink, ImageEnds)
_HEAD = 32  # bytes that hold the format, and all of a WebP's header
_TAIL = 256  # some encoders pad after the end marker
PARTIALS = 16  # of each image asked for; callers can ask for three
LONGEST = 256 * 1_048_576  # bytes; several times the largest picture, so it is a fault that never ends


class Inspector:
    """Inspects each event of an answer: cleans the pieces, and replaces the stated facts of an image by the real ones.

    `seed` was sent for the first image: an upstream that took it need not repeat it. `most` is the number of images
    that were asked for: further ones are skipped, and so are partial images without end.
    """

    def __init__(self, seed: int | None = None, most: float = math.inf) -> None:
        self._picture = Picture()
        self._seed = seed
        self._most = most
        self._index = self._partials = 0
        self._unwanted = False

    def __call__(self, event: Event) -> Event | None:
        """Return the event to push on; None: skip it. Raises UpstreamError (UNCERTAIN) at the piece that shows that a
        picture is broken."""
        if type(event) is ImageBegins:
            if self._picture.begun:
                self._picture = Picture()
            self._index = event.index
            self._partials += event.partial is not None
            too_many = event.partial is not None and self._partials > PARTIALS * self._most
            self._unwanted = event.index >= self._most or too_many
        if self._unwanted and type(event) in _OF_AN_IMAGE:
            return None
        if type(event) is ImageData:
            clean = self._picture.piece(event.base64)
            return event if clean is event.base64 else ImageData(clean) if clean else None
        if type(event) is ImageEnds and self._picture.begun:
            self._picture.end()
            seed = self._seed if event.seed is None and self._index == 0 else event.seed
            facts = {**event.facts, **self._picture.facts()}
            return ImageEnds(event.revised_prompt, seed, event.usage, facts, self._picture.alpha)
        return event

    def missing_before(self, event: Event) -> ImageData | None:
        """Return what is to be pushed before an event: the padding, at the end of an image whose host leaves it out.
        Strict decoders, as Python's, refuse a text without it. Raises UpstreamError as `__call__` does."""
        if type(event) is not ImageEnds or self._unwanted:
            return None
        padding = self._picture.complete()
        return ImageData(padding) if padding else None

    def text(self, piece: bytes) -> ImageData | None:
        """Return a piece of an answer as the event to push on, as `__call__` would, if it is only more text of the
        present image; else None."""
        return ImageData(piece) if not self._unwanted and self._picture.takes(piece) else None


class Picture:
    """Feed it the text piece by piece; `piece` gives back what is to be passed on. Raises UpstreamError (UNCERTAIN)."""

    def __init__(self) -> None:
        self.media_type: str | None = None
        self.size: Size | None = None
        self.alpha: bool | None = None  # whether anything in it can be transparent; None: not known
        self.length = 0  # bytes of the picture so far
        self.begun = False  # some text has come
        self._carry = b""  # of the text: what does not fill a group of four yet
        self._prefix: bytes | None = b""  # of the text, until it is known whether it is a data URL; then None
        self._padded = False
        self._head: bytearray | None = bytearray()  # until it is long enough to show what it is
        self._search: HeaderSearch | None = None  # while more of a PNG or JPEG may show more
        self._tail = b""
        self._riff = 0  # the length that a WebP states

    def facts(self) -> dict[str, str | None]:
        """Return the facts as OpenAI's answers name them; None if the bytes do not tell."""
        return {"output_format": format_name(self.media_type), "size": str(self.size) if self.size else None}

    def piece(self, text: bytes) -> bytes:
        self.begun = True
        if self._prefix is not None:
            text = self._drop_prefix(text)
        if not text:
            return text
        try:
            self._take(text)
        except binascii.Error:
            clean = text.translate(None, _WHITE)
            if len(clean) == len(text):
                raise _fault("is not base64") from None
            return self.piece(clean) if clean else b""
        return text

    def takes(self, text: bytes) -> bool:
        """Take a piece that can be passed on as it is, from the second on. Returns False, and takes nothing, if it is
        something else."""
        if self._prefix is not None or not text or text[-1] not in _ALPHABET:
            return False
        try:
            self._take(text)
        except binascii.Error:
            return False
        return True

    def complete(self) -> bytes:
        """Return the padding that the text lacks, and take it; nothing where the text may as well have been cut: only
        some formats show their end."""
        if len(self._carry) < 2:
            return b""
        padding = b"=" * (4 - len(self._carry))
        kind = self.media_type if self._head is None else media_type(bytes(self._head))
        if kind not in (PNG, JPEG, WEBP):
            return b""
        try:
            self._take(padding)
        except binascii.Error:
            return b""
        return padding

    def end(self) -> None:
        """Note that the text is complete. Raises if the picture is not."""
        if self._prefix:
            raise _fault("is no more than the beginning of a data URL")
        if self._carry:
            raise _fault("is cut: its base64 ends in the middle of a group")
        self._look(final=True)
        if not self.length:
            raise _fault("is empty")
        self._check_tail()

    def _drop_prefix(self, text: bytes) -> bytes:
        """Drop `data:image/png;base64,`, which some hosts send."""
        text = ((self._prefix or b"") + text).lstrip(_WHITE)
        if text[:5] != b"data:"[: len(text)]:
            self._prefix = None
            return text
        head, comma, rest = text.partition(b",")
        if comma:
            self._prefix = None
            return rest
        if len(head) > 256:
            raise _fault("begins with a data URL that does not end")
        self._prefix = text
        return b""

    def _take(self, text: bytes) -> None:
        """Take all or nothing, so that a refused piece can be cleaned and given again."""
        if self._padded:
            raise binascii.Error("text after the padding")
        group = self._carry + text[: -len(self._carry) % 4] if self._carry else b""
        if group and len(group) < 4:
            self._carry = _only_base64(group)
            return
        rest = memoryview(text)[len(group) - len(self._carry) :]
        whole = len(rest) & ~3
        carry = _only_base64(bytes(rest[whole:]))
        first = pybase64.b64decode(group, validate=True) if group else b""
        decoded = pybase64.b64decode(rest[:whole], validate=True)
        self._padded = (rest[whole - 1 : whole] if whole else group[3:]) == b"="
        if (group[3:] == b"=" and rest) or (self._padded and whole < len(rest)):
            raise binascii.Error("text after the padding")
        self._carry = carry
        for data in filter(None, (first, decoded)):
            self._note(data)

    def _note(self, data: bytes) -> None:
        self.length += len(data)
        if self.length > LONGEST:
            raise _fault(f"is longer than {LONGEST // 1_048_576} MiB")
        self._tail = data[-_TAIL:] if len(data) >= _TAIL else (self._tail + data)[-_TAIL:]
        if self._head is not None:
            self._head += data
            self._look(final=False)
        elif self._search is not None:
            self._go_on(self._search, data)

    def _look(self, *, final: bool) -> None:
        if self._head is None or (len(self._head) < _HEAD and not final):
            return
        head, self._head = bytes(self._head), None
        self.media_type = media_type(head)
        self._riff = int.from_bytes(head[4:8], "little") if self.media_type == WEBP else 0
        if self.media_type == "text/html" or (self.media_type is None and head.lstrip()[:1] in (b"<", b"{", b"[")):
            raise _fault("is no picture but text")
        if self.media_type in (PNG, JPEG):
            self._search = HeaderSearch(self.media_type)
            self._go_on(self._search, head)
        else:
            self.size, self.alpha = dimensions(head), has_alpha(head)

    def _go_on(self, search: HeaderSearch, data: bytes) -> None:
        search.feed(data)
        self.size, self.alpha = search.size, search.alpha
        if search.over:
            self._search = None

    def _check_tail(self) -> None:
        end = {PNG: b"IEND\xaeB`\x82", JPEG: b"\xff\xd9"}.get(self.media_type or "", b"")
        if end not in self._tail or (self.media_type == WEBP and self.length < self._riff + 8):
            raise _fault("is cut: the end of the picture is missing")


def _only_base64(text: bytes) -> bytes:
    """Check the text that waits for the rest of its group: it is passed on before it is decoded."""
    if text.translate(None, _ALPHABET):
        raise binascii.Error("not base64")
    return text


def _fault(how: str) -> UpstreamError:
    return UpstreamError(Failure.UNCERTAIN, f"the image {how}")
