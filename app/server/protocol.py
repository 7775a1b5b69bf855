"""uvicorn's HTTP protocol with three copies of every upload less and one of every answer. It reads one request at a
time, bounds the bytes that wait behind it, reports when a client leaves or has received an answer, declines offers of
other protocols, and sends no chunks to HTTP/1.0. Knows no endpoint."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any, ClassVar

import httptools
from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT, FlowControl
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from app.errors import ApiError, InvalidRequest, Unavailable
from app.server.framing import END, Framing
from app.server.h2c import new_parser, resume_body
from app.server.progress import Progress
from app.server.sockets import count_descriptors, count_unacknowledged, reset_at_end
from app.server.write_buffer import Cork

EXTENSION = "image_gateway.connection"
GARBLED = "image_gateway.garbled"  # in a request's scope: its body breaks HTTP's framing, and no more of it will come
LARGE_PIECE = 16_384  # bytes: from here on a copy costs more than three small writes
LONGEST_HEAD = 65_536  # bytes; also of trailers, of bytes between two chunks, and of bytes behind a request
MOST_HEADERS = 256  # of a head: each costs several times its bytes
HEAD_SECONDS = 30.0
LINGER_SECONDS = 1.0  # between a refusal and the end of its connection: a reset would eat it

_FRAMING = {b"content-length", b"transfer-encoding"}
_CHECKED = _FRAMING | {b"host", b"expect"}


class Flow(FlowControl):
    """Read nothing while `full`, even if uvicorn asks for more."""

    full = False

    def resume_reading(self) -> None:
        if self.read_paused and not self.full:
            super().resume_reading()


class Protocol(HttpToolsProtocol):
    """Each scope carries the protocol of its connection under `extensions`.

    One request is read at a time. The bytes behind it are held until it is answered: parsed, they would take a hundred
    times the memory. Each piece for the parser ends where a request may end, so the parser never reads beyond one.
    """

    # Python keeps some thirty attributes of an instance compactly. More would cost each connection 1.3 KB.
    __slots__ = ("_cork", "_framing", "flow", "progress")
    flow: Flow
    turned_away: ClassVar[int] = 0  # connections for which no descriptor was left, since the last report
    cycle: Any  # uvicorn's, of the request that is read or answered; None between requests
    _over = False  # unreadable bytes have come: nothing after them is looked at
    _held = b""  # bytes that have come; all before `_at` are read
    _at = 0
    _is_reading = _is_in_body = False  # a request has begun and has not ended; its head is complete
    _is_past_parser = False  # the body comes in pieces of announced length, which do not go through the parser
    _overhead = 0  # bytes in a row that brought neither a head to its end nor any of a body
    _head_until: float | None = None  # the loop's time at which the head has to be complete
    _on_gone: Callable[[], None] | None = None
    _on_broken: Callable[[], None] | None = None
    _cut = _broken = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.flow = Flow(transport)
        self.progress = Progress(transport, self.loop, self.abort)
        self._framing = Framing()
        self._cork = Cork(transport, self.loop, self.close)
        left, reserved = count_descriptors(transport)
        if left > reserved:
            self._await_head()
            return
        Protocol.turned_away += 1
        if left > reserved // 2:
            self._refuse(_no_descriptors())
        else:
            self.abort()  # a refusal takes a descriptor for a moment

    def data_received(self, data: bytes) -> None:
        if self._over:
            return
        if len(data) < self._framing.left:  # nearly every byte of an upload
            self._framing.left -= len(data)
            self._is_past_parser = True
            self.on_body(data)
            return
        self._held = self._held[self._at :] + data if self._held else data
        self._at = 0
        if self._is_reading or self.is_between:
            self._advance()
        else:
            self._bound_held()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if not self._is_reading:  # keep nothing of it: what hangs on a request takes several times an idle connection
            self.cycle = self.scope = self.headers = None  # type: ignore[assignment]
        if self._held:
            self.loop.call_soon(self._read_on)

    def _read_on(self) -> None:
        if self._held and not self.transport.is_closing():
            self._advance()

    def _advance(self) -> None:
        """Read on, to the end of one request."""
        self._unset_keepalive_if_required()
        data, at, size = self._held, self._at, len(self._held)
        while at < size and not self._over and (self._is_reading or self.is_between):
            end = self._framing.find_end(data, at)
            if self._is_past_parser:
                self._end_body(data[at:end])
            else:
                self._feed(data if end - at == size else memoryview(data)[at:end])
            at = end
        if at < size and not self._over:
            self._held, self._at = data, at
        else:
            self._held, self._at = b"", 0
        if self._held or self.flow.full:
            self._bound_held()
        if self.timeout_keep_alive_task is None and self.is_between and not self._over:
            self._await_head()

    def _end_body(self, piece: bytes) -> None:
        """Take the last piece of a body that did not go through the parser. The next request needs a new one."""
        self._is_past_parser = False
        self.parser = new_parser(self)
        self.on_body(piece)
        self.on_message_complete()

    def _feed(self, piece: bytes | memoryview) -> None:
        self._overhead += len(piece)
        if self._overhead > LONGEST_HEAD and not self._is_in_body:
            self._refuse(_too_long())
            return
        try:
            try:
                self.parser.feed_data(piece)
            except httptools.HttpParserUpgrade:
                self._expect_body()
        except httptools.HttpParserError as error:
            fault = error.__context__
            self._refuse(fault if isinstance(fault, ApiError) else _unreadable())
        if self._overhead > LONGEST_HEAD and not self._over:
            self._refuse(_too_long())

    def _bound_held(self) -> None:
        """Pause the connection while too much is held. Refuse a head that is too long already."""
        self.flow.full = self.held_bytes > LONGEST_HEAD
        if not self.flow.full:
            self.flow.resume_reading()
        elif self._held.find(END, self._at, self._at + LONGEST_HEAD) < 0:
            self._refuse(_too_long())
        else:
            self.flow.pause_reading()

    def on_message_begin(self) -> None:
        """Begin a request. Raises ApiError if the parser reads beyond one request, which should never happen."""
        if not self.is_between:
            raise _unreadable()
        super().on_message_begin()
        self._is_reading, self._framing = True, Framing()
        self._head_until = self.loop.time() + HEAD_SECONDS
        self._cut = self._broken = False
        self._on_broken = None  # a client that asks again has received the answer
        self.scope["extensions"] = {EXTENSION: self}  # type: ignore[dict-item]

    def on_header(self, name: bytes, value: bytes) -> None:
        """Collect a header, and drop trailers (RFC 9110, 6.5.1). Raises ApiError."""
        if self._is_in_body:
            return
        name = name.lower()
        if name in _CHECKED:
            self._framing.check_header(name, value, self.parser.get_http_version())
            if name == b"expect":
                self.expect_100_continue = value.lower() == b"100-continue"
        if len(self.headers) == MOST_HEADERS:
            raise InvalidRequest(f"The head has more than {MOST_HEADERS} headers.", status=431, code="invalid_http")
        self.headers.append((name, value))

    def _await_head(self) -> None:
        """Close the connection as an idle one if no request comes, or no more of its head."""
        if self._head_until is None:
            self._head_until = self.loop.time() + HEAD_SECONDS
        self.timeout_keep_alive_task = self.loop.call_at(self._head_until, self.timeout_keep_alive_handler)

    @property
    def is_between(self) -> bool:
        """True if no request is being read or answered."""
        return self.cycle is None or bool(self.cycle.response_complete)

    @property
    def held_bytes(self) -> int:
        """The bytes that have come and are not read yet."""
        return len(self._held) - self._at

    @property
    def is_closing(self) -> bool:
        return self.transport.is_closing()

    @property
    def has_news(self) -> bool:
        """True if `receive` would return at once."""
        return bool(self.cycle.message_event.is_set())

    def watch(self, gone: Callable[[], None]) -> None:
        """Call `gone` as soon as the connection ends, or at once if it has ended."""
        self._on_gone = gone
        self.flow.resume_reading()
        if self.cycle.disconnected:
            gone()

    def unwatch(self, gone: Callable[[], None]) -> None:
        """Stop calling `gone`."""
        if self._on_gone == gone:  # and not the next request's, which may have been sent already
            self._on_gone = None

    def on_broken(self, tell: Callable[[], None]) -> None:
        """Call `tell` if the connection ends before the client has received everything: it was reset, or closed by a
        client that had not acknowledged all bytes."""
        self._on_broken = tell
        if self._broken:
            tell()

    def eof_received(self) -> None:
        self._cork.flush()
        whole = self.is_between and not self.transport.get_write_buffer_size()
        self._cut = not whole or count_unacknowledged(self.transport) > 0
        super().eof_received()
        self.progress.watch()  # as when it is closed, which follows

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._held = b""
        self.progress.stop()
        self._broken = exc is not None or self._cut or (self.cycle is not None and self.cycle.disconnected)
        gone, self._on_gone = self._on_gone, None
        if gone:
            gone()
        tell, self._on_broken = self._on_broken, None
        if tell and self._broken:
            tell()

    def _expect_body(self) -> None:
        """Read the body of a request that offers another protocol. Raises HttpParserError.

        Java's client and `curl --http2` offer HTTP/2 with each request. The offer is declined by an ordinary answer
        (RFC 9110, 7.8). httptools takes such a request for complete at the end of its head, so the body needs a new
        parser, and the cycle, which has not run yet, has to wait for it."""
        framing = [line for line in self.headers if line[0] in _FRAMING]
        if not framing:
            return
        if not self.cycle.keep_alive:
            framing.append((b"connection", b"close"))
        self.cycle.more_body = self._is_reading = self._is_in_body = True
        self.cycle.message_event.clear()
        self.parser = resume_body(self, framing)

    def _should_upgrade(self) -> bool:
        """Decline WebSockets too, even if a library for them is installed."""
        return False

    def _refuse(self, error: ApiError) -> None:
        """Reject unreadable bytes. Between requests: send `error` and close. In a body: set GARBLED for the endpoint.
        After a complete request: ignore them, so that its answer is not disturbed."""
        self._over, self._held, self._at, self.flow.full = True, b"", 0, False
        self.flow.resume_reading()  # to close a connection with unread bytes resets it
        if self.is_between:
            self._cork.write(_refusal(error))
            self._cork.flush()
            self.loop.call_later(LINGER_SECONDS, self.close)
            return
        self.cycle.keep_alive = False
        if self.cycle.more_body:
            self.cycle.scope[GARBLED], self.cycle.more_body = True, False
            self.cycle.message_event.set()

    def shutdown(self) -> None:
        self._cork.flush()
        super().shutdown()

    def on_headers_complete(self) -> None:
        """Begin the request. Raises ApiError."""
        self._framing.begin_body(self.parser.get_http_version())
        super().on_headers_complete()
        self._overhead, self._head_until = 0, None
        self._is_in_body = True
        self.cycle.transport = self._cork
        if self.scope["http_version"] != "1.1":
            self.cycle.keep_alive = self.cycle.waiting_for_100_continue = False
            self.cycle.send = _plain_send(self.cycle)

    def on_message_complete(self) -> None:
        self._is_reading = self._is_in_body = False
        super().on_message_complete()

    def on_body(self, body: bytes) -> None:
        """Pass a lone piece on as it is: uvicorn would copy it into a bytearray, and that again."""
        self._overhead = 0
        if self.cycle is not None and not self.cycle.body and not self.cycle.response_complete:
            self.cycle.body = body
            if len(body) > HIGH_WATER_LIMIT:  # else uvloop reads on, and each further piece would be joined to this one
                self.flow.pause_reading()
            self.cycle.message_event.set()
        else:
            super().on_body(body)

    def pause_writing(self) -> None:
        super().pause_writing()
        self.progress.watch()

    def resume_writing(self) -> None:
        super().resume_writing()
        if not self.transport.is_closing():
            self.progress.stop()

    def timeout_keep_alive_handler(self) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection once the client has taken everything."""
        if not self.transport.is_closing():
            self.transport.close()
            self.progress.watch()

    def write(self, piece: bytes) -> bool:
        """Write a piece of a chunked answer without a copy; uvicorn would join it to its length. Returns False if the
        answer has not begun or is not chunked: then `send` has to do it. Does not wait: see `drain`."""
        cycle = self.cycle
        if not piece:
            return True  # an empty chunk would end the answer
        if not cycle.chunked_encoding or not cycle.response_started or cycle.scope["method"] == "HEAD":
            return False
        if not cycle.disconnected:
            if len(piece) < LARGE_PIECE:
                self._cork.write(b"%x\r\n%b\r\n" % (len(piece), piece))
            else:
                self._cork.writelines((b"%x\r\n" % len(piece), piece, b"\r\n"))
        return True

    @property
    def is_full(self) -> bool:
        """True if more than enough waits for the client."""
        return bool(self.flow.write_paused) and not self.cycle.disconnected

    async def drain(self) -> None:
        """Wait while the connection is full."""
        await self.flow.drain()

    async def flush(self) -> bool:
        """Wait until the socket has taken everything. Returns False if the connection ended before."""
        self._cork.flush()
        transport = self.transport
        if transport.get_write_buffer_size():
            transport.set_write_buffer_limits(high=0)
            await self.flow.drain()
            if not transport.is_closing():
                transport.set_write_buffer_limits(high=HIGH_WATER_LIMIT)
        return not (self._cut or self._broken)

    def abort(self) -> None:
        """End the connection at once. The client counts as one that has not received its answer."""
        self._cut = True
        self.transport.abort()

    def reset(self) -> None:
        """Abort so that the client sees an error, and no orderly end."""
        reset_at_end(self.transport)
        self.abort()


def _unreadable() -> ApiError:
    return InvalidRequest("This is no HTTP request that can be read.", code="invalid_http")


def _too_long() -> ApiError:
    return InvalidRequest(f"The head is longer than {LONGEST_HEAD} bytes.", status=431, code="invalid_http")


def _no_descriptors() -> ApiError:
    message = "The gateway has as many connections open as it can. Try again in a moment."
    return Unavailable(message, code="server_is_overloaded", retry_after=5)


def _refusal(error: ApiError) -> bytes:
    body = json.dumps(error.envelope()).encode()
    head = b"content-type: application/json\r\ncontent-length: %d\r\nconnection: close\r\n" % len(body)
    if error.retry_after is not None:
        head += b"retry-after: %d\r\n" % error.retry_after
    return STATUS_LINE[error.status] + head + b"\r\n" + body


def _plain_send(cycle: Any) -> Any:
    """Return a `send` for HTTP/1.0, which knows no chunks (RFC 9112, 6.1): an answer of unknown length ends with the
    connection. uvicorn checks each piece against the announced length, so that is set to the piece's."""
    send, announced = cycle.send, True

    async def send_plainly(message: Any) -> None:
        nonlocal announced
        if message["type"] == "http.response.start":
            announced = any(name.lower() == b"content-length" for name, _ in message.get("headers", ()))
            if not announced:
                cycle.chunked_encoding = False
        elif not announced:
            cycle.expected_content_length = len(message.get("body", b""))
        await send(message)

    return send_plainly
