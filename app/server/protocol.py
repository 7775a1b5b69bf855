"""uvicorn's HTTP protocol with two copies of every upload less and one of every answer; it tells when a client leaves
and when it has an answer, declines offers of other protocols, and sends HTTP/1.0 no chunks. Knows no request."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import resource
import socket
import struct
import termios
from array import array
from collections.abc import Callable, Iterator
from typing import Any

import httptools
from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT, FlowControl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from app.server.h2c import headless
from app.server.write_buffer import Cork

EXTENSION = "image_gateway.connection"
GARBLED = "image_gateway.garbled"  # in a request's scope: its body breaks HTTP's framing, and no more of it will come
LARGE_PIECE = 16_384  # bytes: from here on a copy costs more than three small writes
LONGEST_HEAD = 65_536  # bytes; also of trailers, and of what stands between two chunks
HEAD_SECONDS = 30.0
TELLING_SECONDS = 1.0  # between a refusal and the end of its connection: a reset would eat it
SLICE = 4096  # bytes that are parsed at once outside of a body: so many requests at most wait in the pipeline
MOST_BEHIND = 64  # requests that may follow a body within the block that ends it
STALLED_SECONDS = 60.0  # without the client taking a byte of what is sent: then the connection ends
RESERVED_FILES = 64  # descriptors that no connection may take, but for files and providers; an eighth of few
READ_AHEAD = 262_144  # bytes, what uvloop reads at once: to pause after each such piece would cost two system calls


class Flow(FlowControl):
    """Reading stays paused while bytes wait behind a request, whichever part of the server asks for more."""

    is_held = False

    def resume_reading(self) -> None:
        if not self.is_held:
            super().resume_reading()


class Protocol(HttpToolsProtocol):
    """Each scope carries the protocol of its connection under `extensions`."""

    _over = False  # what cannot be read has come: nothing after it is looked at
    _barren = 0  # bytes in a row that brought neither a head to its end nor any of a body
    _head_until: float | None = None  # the loop's time at which the head that is being read has to be complete
    _when_gone: Callable[[], None] | None = None
    _when_broken: Callable[[], None] | None = None
    _cut = _broken = False
    _unread = b""  # what came behind a request that waits for its turn
    _head_read = False
    _hosts = 0
    _fault: tuple[bytes, str] | None = None  # what is wrong with a head: the status and the message
    _stalled: asyncio.TimerHandle | None = None
    _unsent = 0  # bytes, when the client was last seen to take some

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._cork = Cork(transport, self.loop)
        self.flow = self._flow = Flow(transport)
        if _is_last_but_few(transport):
            self._refuse(b"503 Service Unavailable", _NO_DESCRIPTORS, code="server_is_overloaded", retry_after=5)
            return
        self._await_head()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._head_until = self.loop.time() + HEAD_SECONDS
        self._head_read, self._hosts, self._fault = False, 0, None
        self._when_broken, self._cut, self._broken = None, False, False  # who asks for more has had the last answer
        self.scope["extensions"] = {EXTENSION: self}  # type: ignore[dict-item]

    def data_received(self, data: bytes) -> None:
        """As uvicorn's, but with at most one slice parsed ahead of the request that is being answered: the rest stays
        as bytes, and nothing more is read until the answer has left."""
        if self._over:
            return
        self._unset_keepalive_if_required()
        if self._unread:
            data, self._unread = self._unread + data, b""
        while data and not self._over:
            if self.pipeline:
                self._unread, self._flow.is_held = bytes(data), True
                self.flow.pause_reading()
                return
            cycle: Any = self.cycle
            piece = data if cycle is not None and cycle.more_body else data[:SLICE]
            self._parse(piece)
            data = data[len(piece) :]

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.transport.is_closing():
            if self.transport.get_write_buffer_size():
                self.loop.call_later(STALLED_SECONDS, self.transport.abort)
        elif self._unread and not self.pipeline:
            data, self._unread, self._flow.is_held = self._unread, b"", False
            self.data_received(data)
            self.flow.resume_reading()

    def _parse(self, data: bytes) -> None:
        """Feed the parser. What follows the head of a request that offers another protocol is read as its body."""
        self._barren += len(data)
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as offer:
            self._go_on(memoryview(data)[offer.args[0] :])
        except httptools.HttpParserError:
            status, message = self._fault or (b"400 Bad Request", _UNREADABLE)
            self._refuse(status, message)
        if self._barren > LONGEST_HEAD and not self._over:
            self._refuse(b"431 Request Header Fields Too Large", f"The head is longer than {LONGEST_HEAD} bytes.")
        elif self._between and self.timeout_keep_alive_task is None:
            self._await_head()

    def _await_head(self) -> None:
        """A connection on which no request comes, or no more of its head, is closed as an idle one is."""
        now = self.loop.time()
        if self._head_until is None or self._head_until <= now:  # it could not come while another was answered
            self._head_until = now + HEAD_SECONDS
        self.timeout_keep_alive_task = self.loop.call_at(self._head_until, self.timeout_keep_alive_handler)

    @property
    def _between(self) -> bool:
        """No request is being read or answered."""
        cycle: Any = self.cycle
        return cycle is None or bool(cycle.response_complete)

    @property
    def unread_bytes(self) -> int:
        """What has come and waits behind the requests that are being answered."""
        return len(self._unread)

    @property
    def closing(self) -> bool:
        return self.transport.is_closing()

    @property
    def has_news(self) -> bool:
        """Whether `receive` would return at once."""
        cycle: Any = self.cycle
        return bool(cycle.message_event.is_set())

    @contextlib.contextmanager
    def watched(self, gone: Callable[[], None]) -> Iterator[None]:
        """Inside, `gone` is called as soon as the connection has ended, be it before."""
        cycle: Any = self.cycle
        self._when_gone = gone
        self.flow.resume_reading()
        if cycle.disconnected:
            gone()
        try:
            yield
        finally:
            if self._when_gone is gone:  # and not the next request's, which may have been sent already
                self._when_gone = None

    def when_broken(self, tell: Callable[[], None]) -> None:
        """`tell` is called if the connection ends before the client has had all that was sent, as far as can be known:
        it was reset, or closed by a client that had not acknowledged everything."""
        self._when_broken = tell
        if self._broken:
            tell()

    def eof_received(self) -> None:
        self._cork.flush()
        whole = self._between and not self.transport.get_write_buffer_size()
        self._cut = not whole or _unacknowledged(self.transport)
        super().eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        cycle: Any = self.cycle
        self._broken = exc is not None or self._cut or (cycle is not None and cycle.disconnected)
        gone, self._when_gone = self._when_gone, None
        if gone:
            gone()
        tell, self._when_broken = self._when_broken, None
        if tell and self._broken:
            tell()

    def _go_on(self, rest: memoryview) -> None:
        """Java's client and `curl --http2` offer HTTP/2 with each request. Nothing else is spoken here, so the request
        is answered as it is (RFC 9110, 7.8)."""
        while True:
            try:
                self._expect_body()
                self.parser.feed_data(rest)
            except httptools.HttpParserUpgrade as offer:
                rest = rest[offer.args[0] :]
            except httptools.HttpParserError:
                status, message = self._fault or (b"400 Bad Request", _UNREADABLE)
                self._refuse(status, message)
                return
            else:
                return

    def _expect_body(self) -> None:
        """httptools takes the request for complete: its body needs a new parser, told how long it is, and the cycle,
        which has not run yet, has to wait for it."""
        framing = [line for line in self.headers if line[0] in (b"content-length", b"transfer-encoding")]
        if not framing:
            return
        cycle: Any = self.cycle
        if not cycle.keep_alive:
            framing.append((b"connection", b"close"))
        cycle.more_body = True
        cycle.message_event.clear()
        self.parser = headless(self, framing)

    def _should_upgrade(self) -> bool:
        """Not to WebSockets either, should a library for them be installed."""
        return False

    def _refuse(
        self, status: bytes, message: str, *, code: str = "invalid_http", retry_after: int | None = None
    ) -> None:
        """Between requests, with a word. In the middle of a body the application is told that it is garbled, and what
        follows a request that is being answered must not disturb that."""
        self._over = True
        cycle: Any = self.cycle
        if self._between:
            self._cork.flush()
            self.transport.write(_refusal(status, message, code, retry_after))
            self.loop.call_later(TELLING_SECONDS, self._close)
            return
        cycle.keep_alive = False
        if cycle.more_body:
            cycle.scope[GARBLED], cycle.more_body = True, False
            cycle.message_event.set()

    def shutdown(self) -> None:
        self._cork.flush()
        super().shutdown()

    def on_header(self, name: bytes, value: bytes) -> None:
        """Note a line of the head. Those behind it are trailers, which must not pass for headers (RFC 9110, 6.5.1)."""
        if self._head_read:
            return
        name = name.lower()
        if name == b"host":
            self._hosts += 1
        elif name == b"transfer-encoding" and b"," in value:  # a single one that is not `chunked` cannot be framed
            self._fault = b"400 Bad Request", "The only transfer coding that is understood is 'chunked'."
        elif name == b"expect" and value.lower() == b"100-continue":
            self.expect_100_continue = True
        self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        if len(self.pipeline) > MOST_BEHIND + SLICE // 16:
            self._over = True  # they came with the end of a body; these few are answered, and the rest is not
            self.pipeline[0][0].keep_alive = False
        if self._over:
            return
        self._head_read = True
        if self._hosts > 1 or (not self._hosts and self.parser.get_http_version() == "1.1"):
            self._fault = b"400 Bad Request", "A request has one 'Host' header, no more and no fewer (RFC 9112, 3.2)."
        if self._fault:
            raise ValueError(self._fault)  # httptools gives it back as an HttpParserError
        self._barren, self._head_until = 0, None
        super().on_headers_complete()
        cycle: Any = self.cycle
        cycle.transport = self._cork
        if self.scope["http_version"] != "1.1":
            cycle.keep_alive = cycle.waiting_for_100_continue = False
            cycle.send = _unchunked(cycle)

    def on_body(self, body: bytes) -> None:
        """uvicorn collects pieces in a bytearray and copies that again; a lone piece is handed on as it is."""
        self._barren = 0
        cycle: Any = self.cycle
        if cycle is not None and not cycle.body and not cycle.response_complete:
            cycle.body = body
            if len(body) > READ_AHEAD:
                self.flow.pause_reading()
            cycle.message_event.set()
        else:
            super().on_body(body)

    def on_message_complete(self) -> None:
        if not self._over:
            super().on_message_complete()

    def pause_writing(self) -> None:
        super().pause_writing()
        if self._stalled is None:
            self._unsent = _waiting(self.transport)
            self._stalled = self.loop.call_later(STALLED_SECONDS, self._look_for_progress)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._stalled:
            self._stalled.cancel()
            self._stalled = None

    def _look_for_progress(self) -> None:
        """End the connection of a client that has taken nothing for a whole period. Its run goes on."""
        self._stalled = None
        unsent = _waiting(self.transport)
        if unsent >= self._unsent:
            self.abort()
        elif self.flow.write_paused:
            self._unsent = unsent
            self._stalled = self.loop.call_later(STALLED_SECONDS, self._look_for_progress)

    def timeout_keep_alive_handler(self) -> None:
        self._close()

    def _close(self) -> None:
        """Once all that was sent has left; without that, when a client has taken nothing for too long."""
        if not self.transport.is_closing():
            self.transport.close()
            if self.transport.get_write_buffer_size():
                self.loop.call_later(STALLED_SECONDS, self.transport.abort)

    async def write(self, piece: bytes) -> bool:
        """A piece of a chunked answer that has begun, as it is; uvicorn would copy it to put its length before it.
        False: this answer is not chunked, so `send` has to do it."""
        cycle: Any = self.cycle
        if not piece:
            return True  # nothing to say, and no chunk: an empty one is the last
        if not cycle.chunked_encoding or not cycle.response_started or cycle.scope["method"] == "HEAD":
            return False
        if self.flow.write_paused and not cycle.disconnected:
            await self.flow.drain()
        if not cycle.disconnected:
            if len(piece) < LARGE_PIECE:
                self._cork.write(b"%x\r\n%b\r\n" % (len(piece), piece))
            else:
                self._cork.writelines((b"%x\r\n" % len(piece), piece, b"\r\n"))
        return True

    async def flushed(self) -> bool:
        """Waits until the socket has taken all that was sent; whether it has."""
        self._cork.flush()
        transport = self.transport
        if transport.get_write_buffer_size():
            transport.set_write_buffer_limits(high=0)
            await self.flow.drain()
            if not transport.is_closing():
                transport.set_write_buffer_limits(high=HIGH_WATER_LIMIT)
        return not (self._cut or self._broken)

    def abort(self) -> None:
        """Whoever has not had all of its answer has not had it."""
        self._cut = True
        self.transport.abort()


_UNREADABLE = "This is no HTTP request that can be read."
_NO_DESCRIPTORS = "The gateway has as many connections open as it can. Try again in a moment."


def _refusal(status: bytes, message: str, code: str, retry_after: int | None) -> bytes:
    kind = "invalid_request_error" if status[:1] == b"4" else "service_unavailable_error"
    error = {"message": message, "type": kind, "param": None, "code": code}
    body = json.dumps({"error": error}).encode()
    head = b"HTTP/1.1 %b\r\ncontent-type: application/json\r\ncontent-length: %d\r\nconnection: close\r\n%b\r\n"
    later = b"" if retry_after is None else b"retry-after: %d\r\n" % retry_after
    return head % (status, len(body), later) + body


def _is_last_but_few(transport: asyncio.BaseTransport) -> bool:
    """Whether the process has hardly any descriptor left: the system always gives the lowest that is free."""
    opened = transport.get_extra_info("socket")
    most, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if opened is None or most == resource.RLIM_INFINITY:
        return False
    return bool(opened.fileno() >= most - min(RESERVED_FILES, most // 8))


def _unacknowledged(transport: asyncio.BaseTransport) -> bool:
    """Whether the kernel holds bytes that the other side has not acknowledged (tcp(7), SIOCOUTQ); False where it does
    not tell."""
    return _queued(transport) > 0


def _queued(transport: asyncio.BaseTransport) -> int:
    waiting = array("i", [0])
    with contextlib.suppress(OSError, AttributeError):
        fcntl.ioctl(transport.get_extra_info("socket").fileno(), termios.TIOCOUTQ, waiting)
    return waiting[0]


def _waiting(transport: asyncio.Transport) -> int:
    """Bytes that the client has not taken yet: in the process and in the kernel."""
    return transport.get_write_buffer_size() + _queued(transport)


def _unchunked(cycle: Any) -> Any:
    """A `send` for HTTP/1.0, which knows no chunks (RFC 9112, 6.1): an answer of unknown length ends with the
    connection. uvicorn is told of each piece that it is as long as was announced."""
    send, announced = cycle.send, True

    async def sent(message: Any) -> None:
        nonlocal announced
        if message["type"] == "http.response.start":
            announced = any(name.lower() == b"content-length" for name, _ in message.get("headers", ()))
            if not announced:
                cycle.chunked_encoding = False
        elif not announced:
            cycle.expected_content_length = len(message.get("body", b""))
        await send(message)

    return sent


def connection(scope: Any) -> Protocol | None:
    """The connection that a request came on; None under another server's protocol, which tells less."""
    found: Protocol | None = scope.get("extensions", {}).get(EXTENSION)
    return found


def break_off(scope: Any) -> None:
    """An answer that will not be whole must not look so: to an HTTP/1.0 client its end is that of the connection, which
    is therefore reset."""
    found = connection(scope)
    if found and scope["http_version"] != "1.1" and not found.closing:
        opened = found.transport.get_extra_info("socket")
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        found.abort()
