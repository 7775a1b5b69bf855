"""The paths of `/v1/gateway`, and the functions that answer them."""

from __future__ import annotations

from collections.abc import Callable

from starlette.routing import Route

from app.api.administration.endpoint import Administration, Method, route
from app.api.management import (
    budgets,
    callers,
    configuration,
    drawings,
    events,
    keys,
    overview,
    prices,
    projects,
    providers,
    usage,
)

PREFIX = "/v1/gateway"


def routes(administration: Callable[[], Administration]) -> list[Route]:
    def at(path: str, **methods: Method) -> Route:
        return route(PREFIX + path, administration, **methods)

    return [
        at("/whoami", GET=Method(callers.whoami, needed=None)),
        at("/drawings", GET=Method(drawings.list_all, needed=None)),
        at("/drawings/{drawing}", GET=Method(drawings.retrieve, needed=None)),
        at("/drawings/{drawing}/resolve", POST=Method(drawings.resolve)),
        at("/keys", GET=Method(keys.list_all), POST=Method(keys.create)),
        at("/keys/{key}", GET=Method(keys.retrieve), POST=Method(keys.update), DELETE=Method(keys.delete)),
        at("/keys/{key}/rotate", POST=Method(keys.rotate)),
        at("/keys/{key}/disable", POST=Method(keys.disable)),
        at("/keys/{key}/enable", POST=Method(keys.enable)),
        at("/projects", GET=Method(projects.list_all)),
        at("/projects/{project}", GET=Method(projects.retrieve), POST=Method(projects.update)),
        at("/budgets", GET=Method(budgets.list_all), POST=Method(budgets.create)),
        at(
            "/budgets/{budget}",
            GET=Method(budgets.retrieve),
            POST=Method(budgets.update),
            DELETE=Method(budgets.delete),
        ),
        at("/prices", GET=Method(prices.list_all)),
        at("/usage", GET=Method(usage.summarize, "usage")),
        at("/providers", GET=Method(providers.list_all)),
        at("/providers/{provider}/check", POST=Method(providers.check)),
        at("/overview", GET=Method(overview.summarize)),
        at("/configuration", GET=Method(configuration.retrieve)),
        at("/events", GET=Method(events.list_all)),
    ]
