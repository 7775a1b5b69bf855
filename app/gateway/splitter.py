"""Cut a stream of events into its images, each of which gets an object of its own. Does no I/O."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

from app.events import Event, ImageBegins, ImageData, ImageEnds, ImageLink


class Closable(Protocol):
    def close(self) -> None: ...


T = TypeVar("T", bound=Closable)


class ImageSplitter(Generic[T]):
    """`new` makes the object of an image when it begins. The object is closed when the next image begins, or the
    splitter is closed, unless it was released before."""

    def __init__(self, new: Callable[[], T]) -> None:
        self._new = new
        self._image: T | None = None
        self.begins = ImageBegins(0)  # the beginning of the last image

    def push(self, event: Event) -> T | None:
        """Return the object of the image that `event` is part of; None if it is part of none."""
        if type(event) is ImageBegins:
            self.close()
            self.begins, self._image = event, self._new()
        return self._image if isinstance(event, ImageData | ImageBegins | ImageEnds | ImageLink) else None

    def release(self) -> None:
        """Leave the object of the last image to the caller, which has to close it."""
        self._image = None

    def close(self) -> None:
        if self._image is not None:
            self._image.close()
            self._image = None
