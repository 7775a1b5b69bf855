"""A parser for the rest of a connection, where another one has read the head of a request and thinks it complete."""

from __future__ import annotations

import contextlib

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol


class _ResumedBody:
    """What a parser of `headless` calls: of the head that stands for the real one nobody hears."""

    def __init__(self, protocol: HttpToolsProtocol) -> None:
        self._protocol = protocol
        self._begun = False
        self.on_body = protocol.on_body
        self.on_message_complete = protocol.on_message_complete

    def on_message_begin(self) -> None:
        if self._begun:
            self._protocol.on_message_begin()

    def on_url(self, url: bytes) -> None:
        if self._begun:
            self._protocol.on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._begun:
            self._protocol.on_header(name, value)

    def on_headers_complete(self) -> None:
        if self._begun:
            self._protocol.on_headers_complete()
        self._begun = True


def headless(protocol: HttpToolsProtocol, framing: list[tuple[bytes, bytes]]) -> httptools.HttpRequestParser:
    """A parser that goes on with the body of a request whose head another one has read, and then with the requests that
    follow. Raises HttpParserError if no body can be framed so."""
    parser = httptools.HttpRequestParser(_ResumedBody(protocol))
    with contextlib.suppress(AttributeError):  # before httptools 0.6.3; as uvicorn sets up its own
        parser.set_dangerous_leniencies(lenient_data_after_close=True)
    parser.feed_data(b"POST / HTTP/1.1\r\n" + b"".join(b"%b: %b\r\n" % line for line in framing) + b"\r\n")
    return parser
