"""The gateway's own headers of a request: the most that it may cost, and its tags. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace

from starlette.types import Scope

from app.api.connection import header
from app.api.requests.rules import invalid
from app.api.requests.validation import RULES
from app.catalog.money import to_nano
from app.errors import shortened
from app.images import ImageRequest

MAX_COST, TAGS = "x-gateway-max-cost", "x-gateway-tags"
MOST_TAGS = 8
_TAG = re.compile(r"\s*([A-Za-z0-9._-]{1,64})=([!-<>-~](?:[ -<>-~]{0,126}[!-<>-~])?)\s*")


def apply_headers(request: ImageRequest, scope: Scope) -> ImageRequest:
    """Return the request with the bound and the tags of its headers, if it has any. A bound of the body holds too: the
    lower one counts. Raises InvalidRequest."""
    bound, tags = header(scope, MAX_COST.encode()), header(scope, TAGS.encode())
    if bound:
        stated = to_nano(RULES["max_cost"].parse(MAX_COST, bound))
        if request.max_cost is None or stated < request.max_cost:
            request = replace(request, max_cost=stated)
    return replace(request, tags=read_tags(tags)) if tags else request


def read_tags(text: str) -> Mapping[str, str]:
    """Read `team=blue,job=7`. Raises InvalidRequest."""
    tags = dict[str, str]()
    for tag in text.split(","):
        found = _TAG.fullmatch(tag)
        if not found:
            raise _invalid(
                f"{shortened(tag.strip())!r} is no tag. Write NAME=VALUE with commas between, like 'team=blue,job=7': "
                "names of at most 64 letters, digits and '._-', values of at most 128 printable ASCII characters."
            )
        if found[1] in tags:
            raise _invalid(f"the tag {found[1]!r} is given twice. Give it once.")
        tags[found[1]] = found[2]
    if len(tags) > MOST_TAGS:
        raise _invalid(f"it has {len(tags)} tags, and at most {MOST_TAGS} are taken. Leave some out.")
    return tags


def _invalid(reason: str) -> Exception:
    return invalid(TAGS, f"Invalid '{TAGS}': {reason}")
