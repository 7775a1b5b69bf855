"""A parser for the rest of a connection, for a request whose head another parser has read and takes for complete."""

from __future__ import annotations

import contextlib

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol


class _ResumedBody:
    """Parser callbacks: ignore the synthetic head that starts the parser, and forward everything after it."""

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


def resume_body(protocol: HttpToolsProtocol, framing: list[tuple[bytes, bytes]]) -> httptools.HttpRequestParser:
    """Return a parser for the body of a request and for the requests behind it. `framing` holds the headers that frame
    the body. Raises HttpParserError if they frame none."""
    parser = new_parser(_ResumedBody(protocol))
    parser.feed_data(b"POST / HTTP/1.1\r\n" + b"".join(b"%b: %b\r\n" % line for line in framing) + b"\r\n")
    return parser


def new_parser(callbacks: object) -> httptools.HttpRequestParser:
    """Return a parser as uvicorn sets up its own."""
    parser = httptools.HttpRequestParser(callbacks)
    with contextlib.suppress(AttributeError):  # before httptools 0.6.3
        parser.set_dangerous_leniencies(lenient_data_after_close=True)
    return parser
