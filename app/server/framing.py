"""Where the body of a request ends, by what its head says (RFC 9112, 6)."""

from __future__ import annotations

from app.errors import InvalidRequest
from app.server.chunks import Chunks

END = b"\r\n\r\n"  # of each head and of each body in chunks


class Framing:
    """The framing of one request. It is told the headers that matter, and then follows the body from piece to piece.

    `left`: bytes of a body of announced length that are still to come.
    """

    __slots__ = ("_chunks", "_hosts", "_is_chunked", "_length", "left")

    def __init__(self) -> None:
        self.left = 0
        self._length = 0
        self._hosts = 0
        self._is_chunked = False
        self._chunks: Chunks | None = None  # up to the last one

    def check_header(self, name: bytes, value: bytes, version: str) -> None:
        """Note a header, whose name is in lower case, if it matters. Raises ApiError. The parser itself refuses lengths
        that are no numbers or contradict each other."""
        if name == b"host":
            self._hosts += 1
        elif name == b"content-length":
            self._length = int(value)
        elif name == b"transfer-encoding":
            if (coding := value.strip().lower()) != b"chunked":
                message = "The only Transfer-Encoding that is understood is 'chunked'."
                status = 501 if coding.endswith(b"chunked") else 400  # RFC 9112, 6.1 and 6.3
                raise InvalidRequest(message, status=status, code="invalid_http")
            if version != "1.1":
                raise InvalidRequest("HTTP/1.0 knows no Transfer-Encoding. Send a Content-Length.", code="invalid_http")
            self._is_chunked = True

    def begin_body(self, version: str) -> None:
        """Note that the head is complete. Raises ApiError."""
        if self._hosts != 1 and (self._hosts or version != "1.0"):
            raise InvalidRequest("A request has one header 'Host'.", code="invalid_http")
        self.left = self._length
        self._chunks = Chunks() if self._is_chunked else None

    def find_end(self, data: bytes, at: int) -> int:
        """Return where in `data`, from `at`, the request may end; the end of `data` if it cannot end there. What is
        before that counts as read."""
        if self.left:
            end = min(at + self.left, len(data))
            self.left -= end - at
            return end
        if self._chunks is not None:
            end = self._chunks.find_end(data, at)
            if self._chunks.is_over:
                self._chunks = None
            if end > at:
                return end
        if at < len(END) and data[at] in b"\r\n" and not data[:at].strip(b"\r\n"):
            return at + 1  # the network may have cut the end in two
        found = data.find(END, at)
        return len(data) if found < 0 else found + len(END)
