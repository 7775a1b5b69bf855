"""Pages of lists, in OpenAI's shape: `after` names the last object of the page before."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

from app.api.administration.endpoint import Content
from app.api.administration.fields import Fields
from app.api.requests.rules import invalid
from app.errors import shortened
from app.ledger.values.directory import ApiKey, Project

DEFAULT_LIMIT, MOST = 20, 100

Listed = TypeVar("Listed", Project, ApiKey)


def page_of(data: Sequence[Content], *, has_more: bool) -> Content:
    """Return a page of objects, each of which has an id."""
    first, last = (data[0]["id"], data[-1]["id"]) if data else (None, None)
    return {"object": "list", "data": data, "first_id": first, "last_id": last, "has_more": has_more}


def page_from(
    found: Iterable[Listed], query: Fields, describe: Callable[[Listed], dict[str, Any]], *, newest_first: bool = False
) -> Content:
    """Return the page of a whole list that a query asks for, in the order in which its objects were made. Raises
    InvalidRequest."""
    after, limit = query.text("after"), query.integer("limit", 1, MOST) or DEFAULT_LIMIT
    query.check()
    objects = sorted(found, key=lambda each: (each.created_at, each.id), reverse=newest_first)
    start = 0
    if after is not None:
        places = [place for place, each in enumerate(objects) if each.id == after]
        if not places:
            raise unknown_cursor("after", after)
        start = places[0] + 1
    some = objects[start : start + limit]
    return page_of([describe(each) for each in some], has_more=start + limit < len(objects))


def unknown_cursor(name: str, id: str) -> Exception:
    message = f"Invalid {name!r}: the list has no {shortened(id)!r}, or has it no more. Begin again without it."
    return invalid(name, message)
