"""Server-sent events, read piece by piece, so that 30 MB in one data line are never held whole.

Knows the HTML standard's rules (https://html.spec.whatwg.org/multipage/server-sent-events.html), not what events mean.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

_BOM = b"\xef\xbb\xbf"
_DATA = b"data:"
MOST_LINES = 131_072  # of one stream; a few dozen bytes of base64 in each would still make an image


class SseError(ValueError):
    """A line that is not data is longer than the bound, or there are more lines than any stream has."""


@dataclass(frozen=True, slots=True)
class EventBegins:
    """The first data line of an event. `name` is None if no `event:` line came before it."""

    name: str | None


@dataclass(frozen=True, slots=True)
class EventEnds:
    """The event is whole. `name` is that of its last `event:` line; None if it has none."""

    name: str | None


SseEvent: TypeAlias = EventBegins | bytes | EventEnds


class SseReader:
    """Bytes in, cut anywhere; events out, their data in pieces that are never empty, its lines joined by LF.

    A chunk that lies wholly inside a data line is passed on as the same object. Blocks without data yield nothing;
    `id`, `retry`, comments and unknown fields are skipped. `max_line` bounds every line but data, in bytes, without
    its end, and `MOST_LINES` the number of lines. After an error, which `error` makes, every further call raises it
    again.
    """

    def __init__(self, *, max_line: int = 65536, error: Callable[[str], Exception] = SseError) -> None:
        self._max_line = max_line
        self._error = error
        self._fault: str | None = None
        self._head: bytes | None = b""  # the first bytes while they may become a BOM; then None
        self._line = b""  # the beginning of a line that is not (yet known to be) data
        self._lines = MOST_LINES  # that may yet come
        self._name: str | None = None
        self._begun = False  # this block has had a data line
        self._in_data = False  # in the value of a data line
        self._after_colon = False  # where one space does not count
        self._after_cr = False  # where a LF belongs to the line end before

    def feed(self, data: bytes) -> list[SseEvent]:
        """Return the events that `data` adds. Raises SseError; if whole events came before the fault, the next call
        does."""
        events: list[SseEvent] = []
        if self._fault is None:
            if self._head is not None:
                data = self._skip_bom(self._head + data)
            try:
                self._feed(data, events)
            except SseError as error:
                self._fault = str(error)
        if self._fault is not None and not events:
            raise self._error(self._fault)
        return events

    def close(self) -> list[SseEvent]:
        """End the stream, and an event that lacks its blank line: some servers forget the last one. Raises SseError."""
        if self._fault is not None:
            raise self._error(self._fault)
        events: list[SseEvent] = []
        if not self._in_data and self._line:
            self._end_line(self._line, events)
        self._line, self._in_data = b"", False
        self._end_event(events)
        return events

    def _skip_bom(self, head: bytes) -> bytes:
        if len(head) < len(_BOM) and _BOM.startswith(head):
            self._head = head
            return b""
        self._head = None
        return head.removeprefix(_BOM)

    def _feed(self, data: bytes, events: list[SseEvent]) -> None:
        if self._line and len(self._line) < len(_DATA):  # may be data: look at it again with what follows
            data, self._line = self._line + data, b""
        at, size, lines = 0, len(data), self._lines
        lf = cr = -1  # the next of each from `at`, searched again only once it is passed: linear however lines end
        while at < size:
            if self._after_cr:
                self._after_cr = False
                if data[at] == 0x0A:
                    at += 1
                    continue
            if not self._in_data and not self._line and data.startswith(_DATA, at):
                self._begin_data(events)
                at += len(_DATA)
                continue
            if self._after_colon:
                self._after_colon = False
                if data[at] == 0x20:
                    at += 1
                    continue
            if lf < at:
                lf = data.find(b"\n", at)
                lf = size if lf < 0 else lf
            if cr < at:
                cr = data.find(b"\r", at)
                cr = size if cr < 0 else cr
            end = min(lf, cr)
            if self._in_data:
                if end > at:
                    events.append(data[at:end])  # no copy where it is all of `data`
                self._in_data = end == size
            else:
                self._take(data[at:end], end < size, events)
            self._after_cr = cr == end < size
            at = end + 1
            lines -= 1
            if lines < 0:
                raise SseError(f"the event stream has more than {MOST_LINES} lines")
        self._lines = lines

    def _take(self, text: bytes, whole: bool, events: list[SseEvent]) -> None:
        """Take more of a line that does not begin with `data:`; `whole` if its end has come."""
        line = self._line + text
        if len(line) > self._max_line:
            raise SseError(f"a line of the event stream that is not data is longer than {self._max_line} bytes")
        self._line = b"" if whole else line
        if whole:
            self._end_line(line, events)

    def _end_line(self, line: bytes, events: list[SseEvent]) -> None:
        field, _, value = line.partition(b":")
        if not line:
            self._end_event(events)
        elif field == b"data":  # without a colon: an empty line of data
            self._begin_data(events)
            self._in_data = self._after_colon = False
        elif field == b"event":
            self._name = value.removeprefix(b" ").decode(errors="replace") or None

    def _begin_data(self, events: list[SseEvent]) -> None:
        events.append(b"\n" if self._begun else EventBegins(self._name))
        self._begun = self._in_data = self._after_colon = True

    def _end_event(self, events: list[SseEvent]) -> None:
        if self._begun:
            events.append(EventEnds(self._name))
        self._begun, self._name = False, None
