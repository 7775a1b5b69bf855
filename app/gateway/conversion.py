"""Convert images of another format than the caller asked for, on their way out. Images of the right format pass piece
by piece. Knows neither callers nor providers."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace

import pybase64

from app.codecs.base64 import Base64Carry
from app.errors import Failure, Unavailable, UpstreamError
from app.events import Event, ImageData, ImageEnds, Sink
from app.gateway.splitter import ImageSplitter
from app.imaging.formats import media_type
from app.imaging.headers import read_header
from app.imaging.operations import FileFormat, Redraw, Undrawable
from app.imaging.workers import Workers, WorkFile

_TELLS = 16  # characters of base64 that identify a PNG, a JPEG or a WebP
_PIECE = 196_608  # bytes; a multiple of 3, so that the pieces' texts can be joined


@dataclass(frozen=True, slots=True)
class Wanted:
    """`compression`: OpenAI's `output_compression`, 0 to 100, which is the quality of a JPEG or WebP."""

    format: FileFormat
    compression: int | None = None


@contextmanager
def reformatting(
    sink: Sink, wanted: Wanted, workers: Workers, *, key: str = "", recompress: bool = False
) -> Iterator[Sink]:
    """Return a stage that pushes the same events into `sink`, with all images, partial ones too, in the `wanted`
    format. `key` names the caller's key to the workers.

    `recompress`: images in that format are written anew with the wanted compression. Raises UpstreamError (UNCERTAIN)
    for an image that cannot be converted, Unavailable when the disk is full.
    """
    recompress = recompress and wanted.compression is not None and wanted.format != "png"
    with closing(ImageSplitter(lambda: _ReformattedImage(workers, wanted, key, recompress))) as images:

        async def push(event: Event) -> None:
            image = images.push(event)
            if image is not None and type(event) is ImageData:
                if text := image.take(event.base64):
                    await sink(event if text is event.base64 else ImageData(text))
                return
            if image is not None and type(event) is ImageEnds and (converted := await image.convert()):
                spool, facts = converted
                for offset in range(0, spool.size, _PIECE):
                    await sink(ImageData(pybase64.b64encode(spool.read(offset, _PIECE))))
                    await asyncio.sleep(0)  # no sink waits, and others have their turn
                event = replace(event, facts={**event.facts, **facts})
                images.close()
            await sink(event)

        yield push


@dataclass(slots=True, eq=False)
class _ReformattedImage:
    """One image: passed on as it comes, or collected in a spool and converted."""

    workers: Workers
    wanted: Wanted
    key: str
    recompress: bool
    _begun: bytearray | None = field(default_factory=bytearray)  # of the text, until its format is known
    _base64: Base64Carry = field(default_factory=Base64Carry)
    _source: WorkFile | None = None
    _target: WorkFile | None = None

    def take(self, text: bytes) -> bytes:
        """Return the text that is to be passed on at once: none while the image is collected."""
        if self._begun is not None:
            if self._begun or len(text) < _TELLS:
                self._begun += text
                if len(self._begun) < _TELLS:
                    return b""
                text = bytes(self._begun)
            self._begun = None
            if self.recompress or media_type(_decode(text[:_TELLS])) != f"image/{self.wanted.format}":
                self._source = self.workers.spool()
        if self._source is None:
            return text
        try:
            self._source.write(self._base64.decode(text))
        except ValueError as error:
            raise _unconvertible("it is not base64") from error
        except OSError as error:
            raise Unavailable(f"The server has no room for the image ({error.strerror}).").paid() from error
        return b""

    async def convert(self) -> tuple[WorkFile, dict[str, str]] | None:
        """Return the converted image and its facts, or None if it passed as it is. Raises UpstreamError,
        Unavailable."""
        if self._begun:
            raise _unconvertible("it is too short to be one")
        if self._source is None:
            return None
        if self._base64.is_cut:
            raise _unconvertible("its base64 ends in the middle of a group")
        self._target = self.workers.spool()
        order = Redraw(self.wanted.format, self.wanted.compression, read_header(self._source).orientation)
        try:
            size = await self.workers.redraw(self._source, self._target, order, key=self.key, paid=True)
        except Undrawable as error:
            raise _unconvertible(str(error)) from error
        except Unavailable as error:  # without `retry_after`: the drawing has cost money
            raise Unavailable(error.message, code=error.code).paid() from error
        return self._target, {"output_format": self.wanted.format, "size": str(size)}

    def close(self) -> None:
        for spool in (self._source, self._target):
            if spool is not None:
                spool.close()


def _decode(text: bytes) -> bytes:
    try:
        return pybase64.b64decode(text, validate=True)
    except ValueError as error:
        raise _unconvertible("it is not base64") from error


def _unconvertible(reason: str) -> UpstreamError:
    return UpstreamError(Failure.UNCERTAIN, f"the image cannot be converted: {reason}")
