"""Serve the page `/docs`: Swagger UI as the package fastapi-offline carries it, from this server alone. Knows no
endpoint.

The package itself is never imported: its page needs inline scripts, and this one has a strict Content-Security-Policy.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, Response
from starlette.routing import Route

# Styles: Swagger UI writes style attributes. Images: its icons are data URLs, a drawn image is a blob.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS = {"content-security-policy": POLICY, "x-content-type-options": "nosniff", "referrer-policy": "no-referrer"}
_FILES = ("swagger-ui-bundle.js", "swagger-ui.css")  # of the package

# Addresses are relative, so that the page works behind a prefix too.
HTML = """\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Image Gateway: API</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="docs/swagger-ui.css">
</head>
<body>
<noscript>This page needs JavaScript. <a href="openapi.json">The API's description</a> does not.</noscript>
<div id="page"></div>
<script src="docs/swagger-ui-bundle.js"></script>
<script src="docs/page.js"></script>
</body>
</html>
"""
# Swagger UI would fill made-up values into a form's optional fields, and send empty ones: here an empty field is
# absent. No highlighting: it takes seconds for an answer that holds an image as text.
SCRIPT = """\
const leaveOut = (system) => {
  const sample = system.fn.getSampleSchema;
  return {
    components: { ParameterIncludeEmpty: () => null },
    fn: {
      getSampleSchema: (schema, type, ...rest) => {
        if (type !== false) return sample(schema, type, ...rest);
        const { type: kind, examples = [""] } = schema.toJS ? schema.toJS() : schema;
        return kind === "array" ? [] : examples[0];
      },
    },
  };
};
SwaggerUIBundle({
  plugins: [leaveOut],
  url: "openapi.json",
  dom_id: "#page",
  deepLinking: true,
  displayRequestDuration: true,
  docExpansion: "list",
  defaultModelExpandDepth: 2,
  defaultModelsExpandDepth: 0,
  tryItOutEnabled: true,
  syntaxHighlight: false,
  validatorUrl: null,
});
"""


def routes() -> list[Route]:
    return [Route("/docs", _page, methods=["GET"]), Route("/docs/{name}", _file, methods=["GET"])]


async def _page(_: Request) -> Response:
    return HTMLResponse(HTML, headers={**_HEADERS, "cache-control": "no-cache"})


async def _file(request: Request) -> Response:
    """Send one file of the package. Raises HTTPException, 404."""
    name = request.path_params["name"]
    if name == "page.js":
        return Response(SCRIPT, media_type="text/javascript", headers={**_HEADERS, "cache-control": "no-cache"})
    spec = find_spec("fastapi_offline")
    if name not in _FILES or spec is None or spec.origin is None:
        raise HTTPException(404)
    headers = {**_HEADERS, "cache-control": "public, max-age=86400"}
    return FileResponse(Path(spec.origin).parent / "static" / name, headers=headers)
