"""A push parser for JSON that carries images: strings under chosen keys flow out in pieces, the rest stays.

Knows JSON and nothing else: neither the meaning of the strings nor the sender.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeAlias, TypeVar

T = TypeVar("T")

MAX_DEPTH = 64  # providers' answers nest four deep; json.loads would go on to the recursion limit
MOST_HOLDERS = 16_384  # objects and arrays; each costs a hundred times the bytes that spell it
MOST_STRINGS = 4096  # that flow out: an answer or a request has a few dozen

_BOM = b"\xef\xbb\xbf"
_QUOTE = 0x22
_SPACE = b" \t\r\n"

# Possessive throughout: nothing here ever backtracks, so each is linear.
_REST_OF_STRING = re.compile(rb'(?s)[^"\\]*+(?:\\.[^"\\]*+)*+')
_SPACES = re.compile(rb"[ \t\r\n]*+")
_TOKEN = re.compile(  # the groups are the kinds below
    rb'(?s)[^"{}\[\],:]*+(?:"([^"\\]*+(?:\\.[^"\\]*+)*+)'
    rb'(?:"[ \t\r\n]*+(?:(:)[ \t\r\n]*+([-+.\w]++[ \t\r\n]*+,?+)?|(,))?|(\\?\Z))'
    rb"|({)|(\[)|([}\]])|(,)|(:)[ \t\r\n]*+|\Z)"
)
_STRING, _KEY, _SCALAR, _ITEM, _UNFINISHED, _OBJECT, _ARRAY, _CLOSE, _COMMA, _COLON = range(1, 11)

_PAIR = rb"u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}"
_UNIT = rb"u(?:[0-9a-cA-CefEF][0-9a-fA-F]{3}|[dD][0-7][0-9a-fA-F]{2})"  # no half of a surrogate pair
_ESCAPE = rb'\\(?:["\\/bfnrt]|' + _UNIT + rb"|" + _PAIR + rb")"
_TEXT = re.compile(rb'[^"\\]*+(?:' + _ESCAPE + rb'[^"\\]*+)*+')
_CUT_ESCAPE = re.compile(
    rb"\\(?:u(?:[0-9a-fA-F]{0,3}|[dD][89abAB][0-9a-fA-F]{2}(?:\\(?:u(?:[dD](?:[c-fC-F][0-9a-fA-F]?)?)?)?)?))?"
)


class JsonTapError(ValueError):
    """The document is not JSON, ends too early, nests too deep or too often, or holds too much beside the tapped
    strings."""


@dataclass(frozen=True, slots=True)
class StringBegins:
    """A tapped string starts. `path` leads there from the top, and ends with the key of the string."""

    path: tuple[str | int, ...]
    holder: int = field(default=0, compare=False)  # where the object that holds it begins in the skeleton ...
    at: int = field(default=0, compare=False)  # ... and the length of the skeleton when the string began


@dataclass(frozen=True, slots=True)
class StringEnds:
    """The tapped string that began last is whole."""


TapEvent: TypeAlias = StringBegins | bytes | StringEnds

_ENDS = StringEnds()


class JsonTap:
    """Bytes in, cut anywhere; the content of strings under `keys` out, unescaped, in pieces that are never empty.

    A chunk that lies wholly inside a tapped string and needs no unescaping passes as the same object. A value that is
    not a string is not tapped. Everything else makes up the skeleton, which `max_skeleton` bounds, in bytes. After
    `MOST_STRINGS` strings under `keys` the others are left out. Pieces are checked neither for UTF-8 nor for control
    characters: the caller knows better what they may hold. After an error every further call raises it again.
    """

    def __init__(
        self,
        keys: frozenset[str],
        *,
        max_skeleton: int = 1_048_576,
        decoder: json.JSONDecoder | None = None,
        error: Callable[[str], Exception] = JsonTapError,
    ) -> None:
        """`decoder` parses the skeleton; by default one that refuses NaN and Infinity. `error` makes the exceptions."""
        self._keys = keys
        self._raw_keys = frozenset(key.encode() for key in keys)
        self._max_skeleton = max_skeleton
        self._decoder = decoder or _DECODER
        self._error = error
        self._skeleton = bytearray()
        # For each open object the present key, as spelt, or as meant once a path needed it; for each array the index.
        self._path: list[bytes | str | int] = []
        self._starts: list[int] = []  # where each of those begins in the skeleton
        self._holders = 0  # objects and arrays so far
        self._fault: str | None = None
        self._done = False  # the outermost object or array is closed
        self._tapping = False  # inside a tapped string
        self._cut = b""  # the beginning of an escape, the rest of which is in the next chunk
        self._strings = 0  # that were tapped
        self._wanted = 0  # events of this feed before the first string that is left out
        self._armed = False  # a tapped key and its colon have passed; the value has not begun
        self._in_string = False  # inside a string that stays in the skeleton ...
        self._string_at = 0  # ... which begins here in the skeleton ...
        self._after_backslash = False  # ... the next byte of which is escaped
        self._last = b""  # the string that passed last, as spelt: a key, if a colon follows

    def feed(self, data: bytes) -> list[TapEvent]:
        """Return the events that `data` adds. Raises JsonTapError, or the `error` of this tap, as all methods do."""
        if self.is_in_string and data.find(b'"') < 0 and data.find(b"\\") < 0:
            return [data] if data else []  # nearly every byte's path
        return self._attempt(self._feed, data)

    def close(self) -> Any:
        """Return the document, parsed, with an empty string in place of each tapped one."""
        return self._attempt(self._close)

    @property
    def is_in_string(self) -> bool:
        """True if bytes without a quote and a backslash would pass as they are, so that they need not be fed."""
        return self._tapping and not self._cut and self._fault is None and self._strings <= MOST_STRINGS

    @property
    def kept(self) -> int:
        """The bytes of the skeleton."""
        return len(self._skeleton)

    @property
    def left_out(self) -> int:
        """The number of strings that were left out."""
        return max(0, self._strings - MOST_STRINGS)

    def document_so_far(self, begins: StringBegins) -> Any:
        """Return the document, as far as it came before the string."""
        closing = b"".join(b"]" if type(step) is int else b"}" for step in reversed(begins.path))
        return self._attempt(self._parse, 0, begins.at, closing)

    def holder(self, begins: StringBegins, until: StringBegins) -> Any:
        """Return the object that holds the string and ended before the string `until` began."""
        return self._attempt(self._parse, begins.holder, until.at)

    def _attempt(self, step: Callable[..., T], *arguments: Any) -> T:
        if self._fault is None:
            try:
                return step(*arguments)
            except JsonTapError as error:
                self._fault = str(error)
        raise self._error(self._fault)

    def _parse(self, start: int, end: int, closing: bytes = b"") -> Any:
        """Parse the first value in a part of the skeleton."""
        try:
            return _DECODER.raw_decode((self._skeleton[start:end] + closing).removeprefix(_BOM).decode().lstrip())[0]
        except ValueError as error:
            raise JsonTapError(f"malformed JSON: {reason(error)}") from error

    def _feed(self, data: bytes) -> list[TapEvent]:
        if self._cut:
            data, self._cut = self._cut + data, b""
        events: list[TapEvent] = []
        at, size = 0, len(data)
        while at < size:
            if self._tapping:
                at = self._pass_on(data, at, events)
            elif self._in_string:
                at = self._finish_string(data)
            elif not self._done:
                at = self._walk(data, at, events)
            elif data[at:].strip(_SPACE):
                raise JsonTapError("malformed JSON: something follows the end of the document")
            else:
                break
        if self._strings > MOST_STRINGS:
            del events[self._wanted :]
            self._wanted = 0
        return events

    def _close(self) -> Any:
        if self._path or self._in_string:
            raise JsonTapError(f"truncated JSON: it ends inside of {len(self._path)} open objects and arrays")
        if not self._skeleton.strip(_SPACE):
            raise JsonTapError("truncated JSON: there is none")
        try:
            return self._decoder.decode(self._skeleton.removeprefix(_BOM).decode())
        except json.JSONDecodeError as error:
            where = f"at character {error.pos}, not counting the strings that were passed on"
            raise JsonTapError(f"malformed JSON: {error.msg} {where}") from error
        except ValueError as error:  # not UTF-8, NaN, or an integer of more digits than Python takes
            raise JsonTapError(f"malformed JSON: {reason(error)}") from error

    # Tapped strings.

    def _pass_on(self, data: bytes, at: int, events: list[TapEvent]) -> int:
        """Pass on the part of the tapped string that begins at `at`. Returns where the string ends, or the data."""
        quote = data.find(b'"', at)
        raw = data[at:] if quote < 0 else data[at:quote]  # no copy where it is all of `data`
        piece, slash = raw, raw.find(b"\\")
        if slash >= 0:
            # PHP writes `/` as `\/`. If those are all the backslashes, they only need deleting, and `quote` is the end.
            piece = raw.replace(b"\\", b"")
            if raw.count(b"\\/", slash) != len(raw) - len(piece):
                return self._unescape_and_pass_on(data, at, at + slash, events)
        if piece:
            events.append(piece)
        return len(data) if quote < 0 else self._end_string(quote, events)

    def _unescape_and_pass_on(self, data: bytes, at: int, slash: int, events: list[TapEvent]) -> int:
        match = _TEXT.match(data, slash)
        end = match.end() if match else slash
        if end < len(data) and data[end] != _QUOTE:
            if not _CUT_ESCAPE.fullmatch(data, end):
                raise JsonTapError("malformed JSON: an unknown escape or half of a surrogate pair in a string")
            self._cut = data[end:]
        if at < slash:
            events.append(data[at:slash])
        if slash < end:
            events.append(_unescape(data[slash:end]))
        return self._end_string(end, events) if data[end : end + 1] == b'"' else len(data)

    def _end_string(self, quote: int, events: list[TapEvent]) -> int:
        self._tapping = False
        events.append(_ENDS)
        return quote + 1

    # Everything else.

    def _walk(self, data: bytes, start: int, events: list[TapEvent]) -> int:
        """Walk the structure from `start`. Returns where a tapped string begins, or the document or the data ends.

        It is no stricter than it must be to find its way: the parser refuses other faults in the end.
        """
        path, raw_keys, size = self._path, self._raw_keys, len(data)
        base = len(self._skeleton) - start  # where the data would begin in the skeleton
        if self._armed:
            spaces = _SPACES.match(data, start)
            value = spaces.end() if spaces else start
            if value < size and data[value] == _QUOTE:
                return self._begin_string(data, start, value, events)
            self._armed = value == size
        for token in _TOKEN.finditer(data, start):
            kind = token.lastindex
            if kind == _SCALAR or kind is None:  # a key and its number, true, false or null; the end of the data
                continue
            if kind == _KEY or kind == _COLON:  # noqa: SIM109 (a tuple is built each time)
                key = token[1] if kind == _KEY else self._last
                if not path or type(path[-1]) is int:
                    raise JsonTapError("malformed JSON: a colon outside of an object")
                path[-1] = key
                if key in raw_keys or (b"\\" in key and _name(key) in self._keys):
                    value = token.end()
                    if value < size and data[value] == _QUOTE:
                        return self._begin_string(data, start, value, events)
                    self._armed = value == size
            elif kind == _ITEM or kind == _COMMA:  # noqa: SIM109
                if path and type(index := path[-1]) is int:
                    path[-1] = index + 1
            elif kind == _CLOSE:
                if not path:
                    raise JsonTapError("malformed JSON: a bracket closes that was not opened")
                path.pop()
                self._starts.pop()
                if not path:
                    self._done = True
                    self._keep(data[start : token.end()])
                    return token.end()
            elif kind == _STRING:
                self._last = token[1]
            elif kind == _UNFINISHED:
                self._in_string = True
                self._string_at = base + token.start(1)
                self._after_backslash = token.end(1) < size
            else:
                path.append(b"" if kind == _OBJECT else 0)
                self._starts.append(base + token.end() - 1)
                if len(path) > MAX_DEPTH:
                    raise JsonTapError(f"JSON nests deeper than {MAX_DEPTH} levels")
                self._holders += 1
                if self._holders > MOST_HOLDERS:
                    raise JsonTapError(f"JSON has more than {MOST_HOLDERS} objects and arrays")
        self._keep(data[start:])
        return size

    def _begin_string(self, data: bytes, start: int, quote: int, events: list[TapEvent]) -> int:
        self._keep(data[start:quote] + b'""')
        self._strings += 1
        self._armed, self._tapping = False, True
        if self._strings <= MOST_STRINGS:
            path = self._path
            for depth, step in enumerate(path):
                if type(step) is bytes:  # once, since a long name may have many strings below it
                    path[depth] = _name(step)
            events.append(StringBegins(tuple(path), self._starts[-1], len(self._skeleton)))  # type: ignore[arg-type]
        elif self._strings == MOST_STRINGS + 1:
            self._wanted = len(events)
        return quote + 1

    def _finish_string(self, data: bytes) -> int:
        match = _REST_OF_STRING.match(data, 1 if self._after_backslash else 0)
        end = match.end() if match else len(data)
        closed = data[end : end + 1] == b'"'
        self._after_backslash = end < len(data) and not closed
        if not closed:
            self._keep(data)
            return len(data)
        self._keep(data[: end + 1])
        self._last = bytes(self._skeleton[self._string_at : -1])
        self._in_string = False
        return end + 1

    def _keep(self, text: bytes) -> None:
        self._skeleton += text
        if len(self._skeleton) > self._max_skeleton:
            raise JsonTapError(
                f"JSON holds more than {self._max_skeleton} bytes beside its strings under {sorted(self._keys)!r}"
            )


def _unescape(text: bytes) -> bytes:
    """Replace the escapes, which must be whole. The decoder does it in C: a call for each escape would take twenty
    times as long."""
    result: str = _UNESCAPING.decode(f'"{text.decode(errors="surrogateescape")}"')
    return result.encode(errors="surrogateescape")


def _name(raw: bytes) -> str:
    """Return the key that `raw` spells."""
    try:
        if b"\\" not in raw:
            return raw.decode()
        return str(_DECODER.decode(f'"{raw.decode()}"'))
    except ValueError as error:
        raise JsonTapError("malformed JSON: a key is not a well-formed string") from error


def reason(error: ValueError) -> str:
    """Return why JSON could not be read. Of long integers Python tells its own programmers what to do."""
    return "an integer has more digits than are taken" if "set_int_max_str_digits" in str(error) else str(error)


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name!r} is not JSON")


_DECODER = json.JSONDecoder(parse_constant=_refuse_constant)
_UNESCAPING = json.JSONDecoder(strict=False)
