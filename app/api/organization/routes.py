"""The paths of `/v1/organization`, and the functions that answer them."""

from __future__ import annotations

from collections.abc import Callable

from starlette.routing import Route

from app.api.administration.endpoint import Administration, Method, route
from app.api.organization import admin_api_keys, api_keys, audit_logs, projects, rate_limits, service_accounts, usage

PREFIX = "/v1/organization"


def routes(administration: Callable[[], Administration]) -> list[Route]:
    def at(path: str, **methods: Method) -> Route:
        return route(PREFIX + path, administration, **methods)

    return [
        at("/projects", GET=Method(projects.list_all), POST=Method(projects.create)),
        at("/projects/{project}", GET=Method(projects.retrieve), POST=Method(projects.update)),
        at("/projects/{project}/archive", POST=Method(projects.archive)),
        at("/projects/{project}/api_keys", GET=Method(api_keys.list_all)),
        at(
            "/projects/{project}/api_keys/{key}",
            GET=Method(api_keys.retrieve),
            POST=Method(api_keys.update),
            DELETE=Method(api_keys.delete),
        ),
        at(
            "/projects/{project}/service_accounts",
            GET=Method(service_accounts.list_all),
            POST=Method(service_accounts.create),
        ),
        at(
            "/projects/{project}/service_accounts/{key}",
            GET=Method(service_accounts.retrieve),
            POST=Method(service_accounts.update),
            DELETE=Method(service_accounts.delete),
        ),
        at("/projects/{project}/rate_limits", GET=Method(rate_limits.list_all)),
        at("/projects/{project}/rate_limits/{limit}", POST=Method(rate_limits.update)),
        at("/admin_api_keys", GET=Method(admin_api_keys.list_all), POST=Method(admin_api_keys.create)),
        at("/admin_api_keys/{key}", GET=Method(admin_api_keys.retrieve), DELETE=Method(admin_api_keys.delete)),
        at("/audit_logs", GET=Method(audit_logs.list_all)),
        at("/usage/images", GET=Method(usage.images, "usage")),
        at("/costs", GET=Method(usage.costs, "usage")),
    ]
