"""uvicorn's HTTP protocol with two copies of every upload less and one of every answer; it reads one request at a time,
holds little of what follows, tells when a client leaves and when it has an answer, declines offers of other protocols,
and sends HTTP/1.0 no chunks. Knows no request."""

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
from typing import Any, ClassVar

import httptools
from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT, FlowControl
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from app.errors import ApiError, InvalidRequest, Unavailable
from app.server.chunks import Chunks
from app.server.h2c import headless
from app.server.write_buffer import Cork

EXTENSION = "image_gateway.connection"
GARBLED = "image_gateway.garbled"  # in a request's scope: its body breaks HTTP's framing, and no more of it will come
LARGE_PIECE = 16_384  # bytes: from here on a copy costs more than three small writes
LONGEST_HEAD = 65_536  # bytes; also of trailers, of what stands between two chunks, and of what waits for an answer
MOST_HEADERS = 256  # of a head: each costs several times its bytes
HEAD_SECONDS = 30.0
TELLING_SECONDS = 1.0  # between a refusal and the end of its connection: a reset would eat it
STALLED_SECONDS = 60.0  # without the client taking a byte of what is sent: then the connection ends
RESERVED_FILES = 64  # descriptors that no connection may take, but for files and providers; an eighth of few
READ_AHEAD = 262_144  # bytes, what uvloop reads at once: to pause after each such piece would cost two system calls


_END = b"\r\n\r\n"  # of each head and of each body in chunks
_FRAMING = {b"content-length", b"transfer-encoding"}
_HEARD = _FRAMING | {b"host", b"expect"}  # the headers that this layer goes by


class Flow(FlowControl):
    """Reads nothing while `full`, whoever asks for more."""

    full = False

    def resume_reading(self) -> None:
        if self.read_paused and not self.full:
            super().resume_reading()


class Protocol(HttpToolsProtocol):
    """Each scope carries the protocol of its connection under `extensions`.

    One request is read at a time. What follows it is held as bytes until it has been answered: parsed, it would take a
    hundred times as much. Each piece that the parser gets ends where a request may end, so it never reads beyond one.
    """

    turned_away: ClassVar[int] = 0  # connections for which no descriptor was left, since this was last told
    flow: Flow
    _over = False  # what cannot be read has come: nothing after it is looked at
    _held = b""  # what has come; all before `_at` is read
    _at = 0
    _is_reading = _is_in_body = False  # a request has begun and has not ended; its head is complete
    _length = _left = 0  # bytes of a body that are announced, and that are still to come
    _chunks: Chunks | None = None  # of the body that is being read, up to the last one
    _is_chunked = False
    _hosts = 0
    _barren = 0  # bytes in a row that brought neither a head to its end nor any of a body
    _head_until: float | None = None  # the loop's time at which the head that is being read has to be complete
    _when_gone: Callable[[], None] | None = None
    _when_broken: Callable[[], None] | None = None
    _cut = _broken = False
    _stalled: asyncio.TimerHandle | None = None
    _unsent = 0  # bytes, when the client was last seen to take some

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.flow = Flow(transport)
        self._cork = Cork(transport, self.loop, self.close)
        left, reserved = count_descriptors(transport)
        if left > reserved:
            self._await_head()
            return
        Protocol.turned_away += 1
        if left > reserved // 2:
            self._refuse(_no_descriptors())
        else:
            self.abort()  # each one that is told holds a descriptor for a moment

    def data_received(self, data: bytes) -> None:
        if self._over:
            return
        if len(data) < self._left:  # nearly every byte of an upload
            self._left -= len(data)
            self._feed(data)
            return
        self._held = self._held[self._at :] + data if self._held else data
        self._at = 0
        if self._is_reading or self.is_between:
            self._advance()
        else:
            self._bound_what_is_held()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self._held:
            self.loop.call_soon(self._take_up)

    def _take_up(self) -> None:
        if self._held and not self.transport.is_closing():
            self._advance()

    def _advance(self) -> None:
        """Reads on, to the end of one request."""
        self._unset_keepalive_if_required()
        data, at, size = self._held, self._at, len(self._held)
        while at < size and not self._over and (self._is_reading or self.is_between):
            end = self._next_end(data, at)
            self._feed(data if end - at == size else memoryview(data)[at:end])
            at = end
        if at < size and not self._over:
            self._held, self._at = data, at
        else:
            self._held, self._at = b"", 0
        if self._held or self.flow.full:
            self._bound_what_is_held()
        if self.timeout_keep_alive_task is None and self.is_between and not self._over:
            self._await_head()

    def _next_end(self, data: bytes, at: int) -> int:
        """Where the request may end that is being read, or else the end of `data`."""
        if self._left:
            end = min(at + self._left, len(data))
            self._left -= end - at
            return end
        if self._chunks is not None:
            end = self._chunks.end(data, at)
            if self._chunks.is_over:
                self._chunks = None
            if end > at:
                return end
        if at < len(_END) and data[at] in b"\r\n" and not data[:at].strip(b"\r\n"):
            return at + 1  # the network may have cut the end in two
        found = data.find(_END, at)
        return len(data) if found < 0 else found + len(_END)

    def _feed(self, piece: bytes | memoryview) -> None:
        self._barren += len(piece)
        if self._barren > LONGEST_HEAD and not self._is_in_body:
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
        if self._barren > LONGEST_HEAD and not self._over:
            self._refuse(_too_long())

    def _bound_what_is_held(self) -> None:
        """Reads no more from the connection while too much is held. A head that cannot end any more is not kept."""
        self.flow.full = len(self._held) - self._at > LONGEST_HEAD
        if not self.flow.full:
            self.flow.resume_reading()
        elif self._held.find(_END, self._at, self._at + LONGEST_HEAD) < 0:
            self._refuse(_too_long())
        else:
            self.flow.pause_reading()

    def on_message_begin(self) -> None:
        """Raises ApiError, should the parser ever be given more than one request."""
        if not self.is_between:
            raise _unreadable()
        super().on_message_begin()
        self._is_reading, self._length, self._hosts = True, 0, 0
        self._head_until = self.loop.time() + HEAD_SECONDS
        self._when_broken, self._cut, self._broken = None, False, False  # who asks for more has had the last answer
        self.scope["extensions"] = {EXTENSION: self}  # type: ignore[dict-item]

    def on_header(self, name: bytes, value: bytes) -> None:
        """Raises ApiError. A trailer is no header: it is dropped (RFC 9110, 6.5.1)."""
        if self._is_in_body:
            return
        name = name.lower()
        if name in _HEARD:
            self._hear(name, value)
        if len(self.headers) == MOST_HEADERS:
            raise InvalidRequest(f"The head has more than {MOST_HEADERS} headers.", status=431, code="invalid_http")
        self.headers.append((name, value))

    def _hear(self, name: bytes, value: bytes) -> None:
        """Raises ApiError. The parser itself refuses lengths that are no numbers, or that contradict each other."""
        if name == b"host":
            self._hosts += 1
        elif name == b"content-length":
            self._length = int(value)
        elif name == b"expect":
            self.expect_100_continue = value.lower() == b"100-continue"
        elif (coding := value.strip().lower()) != b"chunked":
            message = "The only Transfer-Encoding that is understood is 'chunked'."
            status = 501 if coding.endswith(b"chunked") else 400  # RFC 9112, 6.1 and 6.3
            raise InvalidRequest(message, status=status, code="invalid_http")
        elif self.parser.get_http_version() != "1.1":
            raise InvalidRequest("HTTP/1.0 knows no Transfer-Encoding. Send a Content-Length.", code="invalid_http")
        else:
            self._is_chunked = True

    def _await_head(self) -> None:
        """A connection on which no request comes, or no more of its head, is closed as an idle one is."""
        if self._head_until is None:
            self._head_until = self.loop.time() + HEAD_SECONDS
        self.timeout_keep_alive_task = self.loop.call_at(self._head_until, self.timeout_keep_alive_handler)

    @property
    def is_between(self) -> bool:
        """True while no request is being read or answered."""
        cycle: Any = self.cycle
        return cycle is None or bool(cycle.response_complete)

    @property
    def held_bytes(self) -> int:
        """How much has come and is not read yet."""
        return len(self._held) - self._at

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
        whole = self.is_between and not self.transport.get_write_buffer_size()
        self._cut = not whole or _queued(self.transport) > 0
        super().eof_received()
        self._watch_for_progress()  # as when it is closed, which follows

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._held = b""
        self._stop_watching()
        cycle: Any = self.cycle
        self._broken = exc is not None or self._cut or (cycle is not None and cycle.disconnected)
        gone, self._when_gone = self._when_gone, None
        if gone:
            gone()
        tell, self._when_broken = self._when_broken, None
        if tell and self._broken:
            tell()

    def _expect_body(self) -> None:
        """Java's client and `curl --http2` offer HTTP/2 with each request. Nothing else is spoken here, so the request
        is answered as it is (RFC 9110, 7.8). httptools takes it for complete: its body needs a new parser, told how
        long it is, and the cycle, which has not run yet, has to wait for it. Raises HttpParserError."""
        framing = [line for line in self.headers if line[0] in _FRAMING]
        if not framing:
            return
        cycle: Any = self.cycle
        if not cycle.keep_alive:
            framing.append((b"connection", b"close"))
        cycle.more_body = self._is_reading = self._is_in_body = True
        cycle.message_event.clear()
        self.parser = headless(self, framing)

    def _should_upgrade(self) -> bool:
        """Not to WebSockets either, should a library for them be installed."""
        return False

    def _refuse(self, error: ApiError) -> None:
        """Between requests, with a word. In the middle of a body the application is told that it is garbled, and what
        follows a request that is being answered must not disturb that."""
        self._over, self._held, self._at, self.flow.full = True, b"", 0, False
        self.flow.resume_reading()  # what is not read when the connection is closed resets it
        cycle: Any = self.cycle
        if self.is_between:
            self._cork.write(_refusal(error))
            self._cork.flush()
            self.loop.call_later(TELLING_SECONDS, self.close)
            return
        cycle.keep_alive = False
        if cycle.more_body:
            cycle.scope[GARBLED], cycle.more_body = True, False
            cycle.message_event.set()

    def shutdown(self) -> None:
        self._cork.flush()
        super().shutdown()

    def on_headers_complete(self) -> None:
        """Raises ApiError."""
        if self._hosts != 1 and (self._hosts or self.parser.get_http_version() != "1.0"):
            raise InvalidRequest("A request has one header 'Host'.", code="invalid_http")
        super().on_headers_complete()
        self._barren, self._head_until = 0, None
        self._is_in_body, self._left = True, self._length
        if self._is_chunked:
            self._chunks, self._is_chunked = Chunks(), False
        cycle: Any = self.cycle
        cycle.transport = self._cork
        if self.scope["http_version"] != "1.1":
            cycle.keep_alive = cycle.waiting_for_100_continue = False
            cycle.send = _unchunked(cycle)

    def on_message_complete(self) -> None:
        self._is_reading = self._is_in_body = False
        super().on_message_complete()

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

    def pause_writing(self) -> None:
        super().pause_writing()
        self._watch_for_progress()

    def resume_writing(self) -> None:
        super().resume_writing()
        if not self.transport.is_closing():
            self._stop_watching()

    def timeout_keep_alive_handler(self) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection as soon as all that was sent has left."""
        if not self.transport.is_closing():
            self.transport.close()
            self._watch_for_progress()

    @property
    def is_watched(self) -> bool:
        """True while bytes wait for the client, and its progress will be looked for."""
        return self._stalled is not None

    def _watch_for_progress(self) -> None:
        """Nothing is written while this lasts, so what waits becomes less exactly if the client takes some of it."""
        if self._stalled is None and self.transport.get_write_buffer_size():
            self._unsent = _unsent(self.transport)
            self._stalled = self.loop.call_later(STALLED_SECONDS, self.look_for_progress)

    def _stop_watching(self) -> None:
        if self._stalled is not None:
            self._stalled.cancel()
            self._stalled = None

    def look_for_progress(self) -> None:
        """End the connection of a client that took nothing since the last look. Its run goes on."""
        self._stalled = None
        if _unsent(self.transport) >= self._unsent:
            self.abort()
        else:
            self._watch_for_progress()

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

    def reset(self) -> None:
        """Abort so that the client sees an error, and no orderly end."""
        opened = self.transport.get_extra_info("socket")
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
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


def count_descriptors(transport: asyncio.BaseTransport) -> tuple[int, int]:
    """How many the process may still open at most, and how many of them are reserved. The system gives the lowest that
    is free, so a new one says how many are open."""
    opened = transport.get_extra_info("socket")
    most, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if opened is None or most == resource.RLIM_INFINITY:
        return 1, 0
    return most - opened.fileno(), min(RESERVED_FILES, most // 8)


def _queued(transport: asyncio.BaseTransport) -> int:
    """Bytes that the kernel holds and the other side has not acknowledged (tcp(7), SIOCOUTQ); 0 where it does not
    tell."""
    waiting = array("i", [0])
    with contextlib.suppress(OSError, AttributeError):
        fcntl.ioctl(transport.get_extra_info("socket").fileno(), termios.TIOCOUTQ, waiting)
    return waiting[0]


def _unsent(transport: asyncio.Transport) -> int:
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
