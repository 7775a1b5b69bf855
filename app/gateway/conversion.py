"""Images that come in another format than the caller asked for, converted on their way out. What is right already
passes piece by piece. Knows neither callers nor providers."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator, Mapping
from contextlib import aclosing
from dataclasses import dataclass, replace

import pybase64

from app.codecs.base64 import Base64Carry
from app.errors import Failure, Unavailable, UpstreamError
from app.events import Event, ImageBegins, ImageData, ImageEnds
from app.images import Blob
from app.imaging.formats import media_type
from app.imaging.headers import read_header
from app.imaging.operations import FileFormat, Redraw, Undrawable
from app.imaging.workers import Workers
from app.storage.spool import Spool

_TELLS = 16  # characters of base64 that tell a PNG, a JPEG or a WebP
_PIECE = 196_608  # bytes; a multiple of 3, so that the pieces' texts can be joined


@dataclass(frozen=True, slots=True)
class Wanted:
    """`compression`: OpenAI's `output_compression`, 0 to 100, which is the quality of a JPEG or WebP."""

    format: FileFormat
    compression: int | None = None


async def reformat(
    events: AsyncGenerator[Event, None], wanted: Wanted, workers: Workers, *, key: str = "", recompress: bool = False
) -> AsyncGenerator[Event, None]:
    """The same events, with all images in the `wanted` format; partial ones too. `key` has its turn at the studio.

    `recompress`: those that are in it already are written anew with the wanted compression. Raises UpstreamError
    (UNCERTAIN) for an image that cannot be converted, Unavailable when the disk is full.
    """
    picture: _Picture | None = None
    async with aclosing(events):
        try:
            async for event in events:
                if type(event) is ImageData:
                    picture = picture or _Picture(workers, wanted, key, recompress=recompress)
                    if text := picture.take(event.base64):
                        yield event if text is event.base64 else ImageData(text)
                    continue
                if type(event) is ImageBegins:
                    _forget(picture)
                    picture = None
                elif type(event) is ImageEnds and picture is not None:
                    if converted := await picture.end():
                        for text in _pieces(converted.blob):
                            yield ImageData(text)
                        event = replace(event, facts={**event.facts, **converted.facts})
                    _forget(picture)
                    picture = None
                yield event
        finally:
            _forget(picture)


@dataclass(frozen=True, slots=True)
class _Converted:
    blob: Blob
    facts: Mapping[str, str]


class _Picture:
    """One image: passed on as it comes, or collected (`source` is there) and converted."""

    def __init__(self, workers: Workers, wanted: Wanted, key: str, *, recompress: bool) -> None:
        self._workers = workers
        self._wanted = wanted
        self._key = key
        self._recompress = recompress and wanted.compression is not None and wanted.format != "png"
        self._begun: bytearray | None = bytearray()  # of the text, until it tells what the image is
        self._groups = Base64Carry()
        self._target: Spool | None = None
        self.source: Spool | None = None

    def take(self, text: bytes) -> bytes:
        """What is to be passed on at once; nothing while the image is collected."""
        if self._begun is not None:
            if self._begun or len(text) < _TELLS:
                self._begun += text
                if len(self._begun) < _TELLS:
                    return b""
                text = bytes(self._begun)
            self._begun = None
            if self._recompress or media_type(_decoded(text[:_TELLS])) != f"image/{self._wanted.format}":
                self.source = self._workers.spool()
        if self.source is None:
            return text
        self._collect(self.source, text)
        return b""

    async def end(self) -> _Converted | None:
        """The new image, if there is one. Raises UpstreamError, Unavailable."""
        if self._begun is not None:
            raise _failed("it is too short to be one")
        if self.source is None:
            return None
        if self._groups.cut:
            raise _failed("its base64 ends in the middle of a group")
        self._target = self._workers.spool()
        order = Redraw(self._wanted.format, self._wanted.compression, read_header(self.source).orientation)
        try:
            size = await self._workers.redraw(self.source, self._target, order, key=self._key, paid=True)
        except Undrawable as error:
            raise _failed(str(error)) from error
        except Unavailable as error:
            raise _paid(error) from error
        return _Converted(self._target, {"output_format": self._wanted.format, "size": str(size)})

    def close(self) -> None:
        for spool in (self.source, self._target):
            if spool is not None:
                spool.close()

    def _collect(self, spool: Spool, text: bytes) -> None:
        try:
            spool.write(self._groups.decode(text))
        except ValueError as error:
            raise _failed("it is not base64") from error
        except OSError as error:
            raise _paid(Unavailable(f"The server has no room for the image ({error.strerror}).")) from error


def _decoded(text: bytes) -> bytes:
    try:
        return pybase64.b64decode(text, validate=True)
    except ValueError as error:
        raise _failed("it is not base64") from error


def _pieces(blob: Blob) -> Iterator[bytes]:
    """As base64."""
    for offset in range(0, blob.size, _PIECE):
        yield pybase64.b64encode(blob.read(offset, _PIECE))


def _failed(reason: str) -> UpstreamError:
    return UpstreamError(Failure.UNCERTAIN, f"the image cannot be converted: {reason}")


def _paid(error: Unavailable) -> Unavailable:
    """The drawing has cost money: asking again would cost it again."""
    return Unavailable(error.message, code=error.code).paid()


def _forget(picture: _Picture | None) -> None:
    if picture is not None:
        picture.close()
