"""The files of the pages: read when a page is opened, and compressed once."""

from __future__ import annotations

import gzip
import hashlib
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

from app.pages.joining import join, lean, lean_style

STATIC = Path(__file__).with_name("static")
PAGES = ("playground", "admin")
SHARED = "base"
VENDORED = ("preact.js", "hooks.js", "htm.js")  # every page imports them
MEDIA_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".svg": "image/svg+xml",
    ".txt": "text/plain; charset=utf-8",
}


@dataclass(frozen=True)
class StaticFile:
    """A file as it is sent. `packed` is the same, compressed by gzip."""

    content: bytes
    media_type: str

    @cached_property
    def packed(self) -> bytes:
        return gzip.compress(self.content, 9, mtime=0)

    @cached_property
    def etag(self) -> str:
        return f'"{hashlib.sha256(self.content).hexdigest()[:20]}"'


class StaticFiles:
    """All files below a folder, by the path under which they are sent. The modules of `base/` and of each page are sent
    as one file, `base.js` and `playground.js`. Nothing is read before the first look-up."""

    def __init__(self, folder: Path = STATIC) -> None:
        self._folder = folder

    @cached_property
    def names(self) -> tuple[str, ...]:
        found = (path for path in sorted(self._folder.rglob("*")) if path.is_file() and path.suffix in MEDIA_TYPES)
        paths = (path.relative_to(self._folder).as_posix() for path in found)
        joined = (SHARED, *PAGES)
        alone = (
            path for path in paths if not (path.endswith(".js") and path.startswith(tuple(f"{j}/" for j in joined)))
        )
        return (*alone, *(f"{name}.js" for name in joined))

    @cached_property
    def version(self) -> str:
        """A text that changes with any of the files. It stands in their addresses, so that a browser may keep them."""
        digest = hashlib.sha256()
        for name in self.names:
            digest.update(name.encode() + b"\0" + self[name].content)
        return digest.hexdigest()[:16]

    def __contains__(self, name: str) -> bool:
        return name in self.names

    @cache  # noqa: B019 (there is one of these for the process)
    def __getitem__(self, name: str) -> StaticFile:
        """Return the file of a name. Raises KeyError if there is none."""
        if name not in self.names:
            raise KeyError(name)
        folder, suffix = name.removesuffix(".js"), Path(name).suffix
        if folder in (SHARED, *PAGES):
            modules = sorted((self._folder / folder).rglob("*.js"))
            texts = {path.relative_to(self._folder).as_posix(): lean(path.read_text("utf-8")) for path in modules}
            return StaticFile(join(folder, texts, exports=folder == SHARED).encode(), MEDIA_TYPES[suffix])
        content = (self._folder / name).read_bytes()
        if suffix == ".css" and not name.startswith("vendor/"):
            content = lean_style(content.decode()).encode()
        return StaticFile(content, MEDIA_TYPES[suffix])

    @cache  # noqa: B019
    def page(self, name: str) -> StaticFile:
        """Return a page's document. `{files}` becomes the folder of this version's files, and `{modules}` the links to
        the script's imports, so that the browser fetches them at once."""
        folder = f"pages/{self.version}"
        modules = [f"{SHARED}.js", *(f"vendor/{file}" for file in VENDORED)]
        links = "\n".join(f'<link rel="modulepreload" href="{folder}/{module}">' for module in modules)
        text = self[f"{name}.html"].content.decode()
        return StaticFile(text.replace("{modules}", links).replace("{files}", folder).encode(), MEDIA_TYPES[".html"])
