"""Read the string under `image_url` in pieces: decode a data URL or bare base64, keep an address. Knows no JSON."""

from __future__ import annotations

import contextlib
import re

import pybase64

from app.api.requests.body import Limits
from app.api.requests.rules import invalid
from app.api.requests.upload import Incoming
from app.errors import InvalidRequest, shortened
from app.images import Upload
from app.storage.spool import Uploads

_LONGEST_PREFIX = 1024  # bytes of a data URL before its comma
_LONGEST_ADDRESS = 8192
_SCHEME = re.compile(rb"([A-Za-z][A-Za-z0-9+.-]{0,31}):")
_ADDRESS = re.compile(rb"[\x21-\x7e]+")
_LINE_ENDS = b"\r\n\t"  # no spaces: a form may have made one from a "+"
_SPACES = 8  # bytes of an image for each byte of white space; lines of 76 characters have 28
_REMEDY = "Send the bytes of the picture in base64, alone or as 'data:image/png;base64,…'"
_DECIDED = 33  # bytes in which the scheme must have ended


class ImageUrl:
    """Feed it the string and end it; then it has an `address`, or finishes into a picture. Raises ApiError."""

    def __init__(self, name: str, limits: Limits, uploads: Uploads) -> None:
        self.address: str | None = None
        self._name = name
        self._limits = limits
        self._uploads = uploads
        self._head: bytes | None = b""  # until the kind of string is known
        self._incoming: Incoming | None = None
        self._begun = False
        self._carry = b""  # text that does not fill a group of four yet
        self._padded = False
        self._spaces = 0  # bytes of white space

    def feed(self, data: bytes) -> None:
        if self._head is None:
            self._decode(data)
            return
        self._head += data
        if len(self._head) >= _DECIDED:
            self._decide(self._head)

    def end(self) -> None:
        """End the string."""
        if self._head is not None:
            self._decide(self._head, whole=True)
        rest = self._plain(self._carry)
        if len(rest) % 4:
            raise self._invalid(f"its base64 text is cut, or lacks the '=' at its end. {_REMEDY}")
        if not self._take(rest):
            raise self._not_base64()

    def finish(self) -> Upload:
        if self._incoming is None:
            raise self._invalid(f"it is empty. {_REMEDY}")
        return self._incoming.finish(None, self._name)

    def _decide(self, head: bytes, whole: bool = False) -> None:
        scheme = _SCHEME.match(head)
        match scheme[1].lower() if scheme else None:
            case None:
                self._begin(head)
            case b"data":
                self._decide_data(head, whole)
            case b"https":
                self._decide_address(head, whole)
            case other:
                reason = f"the scheme {other.decode()!r} is not taken, only 'data' and 'https' are"
                raise self._invalid(f"{reason}. {_REMEDY}")

    def _decide_data(self, head: bytes, whole: bool) -> None:
        prefix, comma, _ = head[: _LONGEST_PREFIX + 1].partition(b",")
        if not comma:
            if whole or len(head) > _LONGEST_PREFIX:
                raise self._invalid(f"it is a data URL without a comma. {_REMEDY}")
            return
        if not prefix.lower().endswith(b";base64"):
            raise self._invalid(f"it is a data URL that is not base64: it lacks ';base64' before the comma. {_REMEDY}")
        self._begin(head[len(prefix) + 1 :])

    def _decide_address(self, head: bytes, whole: bool) -> None:
        if len(head) > _LONGEST_ADDRESS:
            raise self._invalid(f"the address is longer than {_LONGEST_ADDRESS} bytes. {_REMEDY}")
        if whole:
            if not _ADDRESS.fullmatch(head):
                raise self._invalid("the address holds white space or characters that must be percent-encoded")
            self._head = None
            self.address = head.decode()

    def _begin(self, data: bytes) -> None:
        self._head = None
        self._incoming = Incoming(self._name, self._limits, self._uploads)
        self._decode(data)

    def _decode(self, data: bytes) -> None:
        if not self._begun:
            text = data.lstrip(b" \t\r\n")
            self._count_spaces(data, text)
            data, self._begun = text, bool(text)
        if self._carry:
            data = self._carry + data
        cut = len(data) & ~3
        if self._take(memoryview(data)[:cut]):
            self._carry = data[cut:]
        else:
            self._decode_spelt(data)

    def _decode_spelt(self, data: bytes) -> None:
        """Decode base64 that has line breaks, or "%2B" for "+": RFC 2397, section 2."""
        end = data.rindex(b"%") if b"%" in data[-2:] else len(data)  # an escape may be cut
        text = self._plain(data[:end])
        cut = len(text) & ~3
        if b"%" in text or not self._take(text[:cut]):
            raise self._not_base64()
        self._carry = text[cut:] + data[end:]

    def _plain(self, text: bytes) -> bytes:
        """Remove percent-escapes and line ends. A malformed escape stays, and is no base64."""
        if b"%" in text and b"\\" not in text:
            with contextlib.suppress(UnicodeDecodeError):  # Python's own escapes are read in C, a URL's are not
                text = text.replace(b"%", b"\\x").decode("unicode_escape").encode("latin-1")
        plain = text.translate(None, _LINE_ENDS)
        self._count_spaces(text, plain)
        return plain

    def _count_spaces(self, text: bytes, rest: bytes) -> None:
        """Bound the white space: it costs a caller little to send and brings no picture."""
        self._spaces += len(text) - len(rest)
        if self._spaces > self._limits.upload_bytes // _SPACES:
            raise self._invalid("it holds more white space than the line ends of an image take; leave that out")

    def _take(self, text: bytes | memoryview) -> bool:
        """Decode one piece of base64. Returns False, and takes nothing, if it is none or follows padding."""
        if not text:
            return True
        try:
            decoded = pybase64.b64decode(text, validate=True)
        except ValueError:
            return False
        if self._padded:
            return False
        self._padded = text[-1] == 0x3D  # "=": nothing may follow
        if self._incoming is not None:
            self._incoming.write(decoded)
        return True

    def _not_base64(self) -> InvalidRequest:
        return self._invalid(
            f"it is no base64 text. {_REMEDY}: in the standard alphabet ('+' and '/', not '-' and '_'), padded with "
            "'=', without spaces. A path cannot be read from here"
        )

    def _invalid(self, reason: str) -> InvalidRequest:
        return invalid(self._name, f"Invalid {shortened(self._name)!r}: {reason}.")
