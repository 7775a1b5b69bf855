"""Turn a picture that arrives in pieces into an Upload: bounded, and judged by its bytes. Knows no encoding of
requests."""

from __future__ import annotations

from dataclasses import replace

from app.api.requests.body import Limits, megabytes, no_room
from app.errors import InvalidRequest, TooLarge
from app.images import Upload
from app.imaging.formats import ENOUGH, dimensions, media_type
from app.imaging.headers import find_fault
from app.storage.spool import Bytes, Uploads

ACCEPTED = {"image/png": "png", "image/jpeg": "jpg", "image/webp": "webp"}  # with the extension of each
_GLANCE = 4096  # bytes; enough for everything but the dimensions of a JPEG with a long EXIF block


class Incoming:
    """Collect one picture. `field` is the caller's name for it, for messages."""

    def __init__(self, field: str, limits: Limits, uploads: Uploads) -> None:
        self._field = field
        self._limits = limits
        self._spool = uploads.spool(limits.memory_bytes)

    def write(self, data: Bytes) -> None:
        """Add a piece. Raises TooLarge above `limits.upload_bytes`, Unavailable when there is no room."""
        if self._spool.size + len(data) > self._limits.upload_bytes:
            most = megabytes(self._limits.upload_bytes)
            raise too_large(self._field, f"in {self._field!r} is larger than {most}")
        try:
            self._spool.write(data)
        except OSError as error:
            raise no_room(f"the image in {self._field!r}", str(error.strerror)) from error

    def finish(self, filename: str | None, name: str) -> Upload:
        """Return the picture as a value; `name` is its field as OpenAI numbers it. Raises InvalidRequest if it is no
        picture.

        Without a `filename`, one is made from `name` and the format of the bytes.
        """
        head = self._spool.read(0, _GLANCE)
        kind, size = media_type(head), dimensions(head)
        if kind == "image/jpeg" and size is None:
            size = dimensions(self._spool.read(0, ENOUGH))
        upload = Upload(self._spool, filename or "", kind or "application/octet-stream", size)
        judge(upload, name, self._limits)
        if filename is None:
            stem = "".join(char if char.isalnum() else "-" for char in name.partition(".")[0]).strip("-")
            upload = replace(upload, filename=f"{stem}.{ACCEPTED[upload.media_type]}")
        return upload


def judge(upload: Upload, name: str, limits: Limits) -> None:
    """Raise InvalidRequest, naming the field `name`, unless `upload` is a picture that the gateway accepts."""
    if not upload.blob.size:
        raise invalid_image(name, "it is empty (0 bytes). Has the file been read to its end before?")
    kind = upload.media_type
    if kind not in ACCEPTED:
        what = f"it is {kind!r}, whatever its name and declared type say"
        if kind == "application/octet-stream":
            what = "its bytes are no image that is known here"
        raise invalid_image(name, f"{what}. Images are taken as PNG, JPEG or WebP.")
    if reason := find_fault(upload.blob):
        raise invalid_image(name, reason)
    if upload.size and upload.size.pixels > limits.pixels:
        raise invalid_image(
            name, f"it is {upload.size} pixels. Make it smaller: at most {limits.pixels:,} pixels are taken."
        )


def too_large(name: str, fault: str) -> TooLarge:
    return TooLarge(
        f"The image {fault}, the most that this server takes for one image. Make it smaller, or have the setting "
        "'server.max_upload_mb' raised.",
        param=name,
        code="file_too_large",
    )


def invalid_image(name: str, reason: str) -> InvalidRequest:
    return InvalidRequest(
        f"Invalid image file for {name!r}: {reason}",
        param=name,
        type="image_generation_user_error",
        code="invalid_image_file",
    )
