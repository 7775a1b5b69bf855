"""`/playground`, `/admin`, and the files that they are made of."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from app.pages.files import PAGES, StaticFile, StaticFiles

# No inline script or style, nothing of another host. Pictures: a drawn one is a blob, an icon a data URL.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "vary": "accept-encoding",
}
FOR_EVER = "public, max-age=31536000, immutable"
ASK_AGAIN = "no-cache"


def routes(is_enabled: Callable[[], bool]) -> list[Route]:
    """Return the routes. `is_enabled` is called at each request, since a reload may change it. Disabled pages answer
    404."""
    files = StaticFiles()

    async def page(name: str, request: Request) -> Response:
        if not is_enabled():
            raise HTTPException(404)
        return _send(request, files.page(name), ASK_AGAIN)

    async def file(request: Request) -> Response:
        """Send a file. Browsers keep it for ever under this version's address. Another version's address gives this
        version's file for now, so that a page that was opened before an update goes on."""
        name = request.path_params["name"]
        if not is_enabled() or name not in files:
            raise HTTPException(404)
        is_current = request.path_params["version"] == files.version
        return _send(request, files[name], FOR_EVER if is_current else ASK_AGAIN)

    async def without_slash(request: Request) -> Response:
        """Redirect to the address without the slash: a page's addresses are relative to its folder."""
        if not is_enabled():
            raise HTTPException(404)
        return RedirectResponse("../" + request.url.path.rstrip("/").rpartition("/")[2])

    return [
        *(Route(f"/{name}", partial(page, name), methods=["GET"]) for name in PAGES),
        *(Route(f"/{name}/", without_slash, methods=["GET"]) for name in PAGES),
        Route("/pages/{version}/{name:path}", file, methods=["GET"]),
    ]


def _send(request: Request, file: StaticFile, caching: str) -> Response:
    headers = {**HEADERS, "etag": file.etag, "cache-control": caching}
    known = (tag.strip().removeprefix("W/") for tag in request.headers.get("if-none-match", "").split(","))
    if file.etag in known:
        return Response(status_code=304, headers=headers)
    content = file.content
    if "gzip" in request.headers.get("accept-encoding", ""):
        headers["content-encoding"], content = "gzip", file.packed
    return Response(content, media_type=None, headers={**headers, "content-type": file.media_type})
