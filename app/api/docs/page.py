"""Serve the page `/docs`: Swagger UI as the package fastapi-offline carries it, from this server alone. Knows no
endpoint.

The package itself is never imported: its page needs inline scripts, and this one has a strict Content-Security-Policy.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, RedirectResponse, Response
from starlette.routing import Route

# Styles: Swagger UI writes style attributes. Images: its icons are data URLs, a drawn image is a blob.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS = {"content-security-policy": POLICY, "x-content-type-options": "nosniff", "referrer-policy": "no-referrer"}
_FILES = ("swagger-ui-bundle.js", "swagger-ui.css")  # of the package


def routes(start: Callable[[], str]) -> list[Route]:
    """Return the routes. `start` is the page to which `/` leads browsers."""

    async def root(request: Request) -> Response:
        """Redirect a browser to a page. Raises HTTPException, 404, for any other client: its message explains this
        server."""
        if "text/html" not in request.headers.get("accept", ""):
            raise HTTPException(404)
        return RedirectResponse(start())  # relative, so that it works behind a prefix too

    return [Route("/", root), Route("/docs", _page, methods=["GET"]), Route("/docs/{name}", _file, methods=["GET"])]


async def _page(_: Request) -> Response:
    """Return the page. Its addresses are relative, so that it works behind a prefix too."""
    return _own("page.html", "text/html")


async def _file(request: Request) -> Response:
    """Send the page's script, or one file of the package. Raises HTTPException, 404."""
    name = request.path_params["name"]
    if name == "page.js":
        return _own(name, "text/javascript")
    spec = find_spec("fastapi_offline")
    if name not in _FILES or spec is None or spec.origin is None:
        raise HTTPException(404)
    headers = {**_HEADERS, "cache-control": "public, max-age=86400"}
    return FileResponse(Path(spec.origin).parent / "static" / name, headers=headers)


def _own(name: str, media_type: str) -> Response:
    data = Path(__file__).with_name(name).read_bytes()
    return Response(data, media_type=media_type, headers={**_HEADERS, "cache-control": "no-cache"})
