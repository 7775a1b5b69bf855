"""The sandbox as one ASGI application: the doors of the five providers, their catalogues, and the controls.

The controls: POST /control {"provider": name | null, "fault": "503:retry_after=7", "times": 3 | null} lets a fault
stand, DELETE /control forgets faults, counts and requests; GET /control/drawings; GET /control/requests?last=K.
"""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Callable, Iterator

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from app.sandbox import bfl, nebul, nebula_block, openai
from app.sandbox.door import Door, World
from app.sandbox.faults import FaultBook
from app.sandbox.journal import Gallery, Journal
from app.sandbox.nebul import Nebul
from app.sandbox.nebula_block import NebulaBlock
from app.sandbox.netmind import NetMind
from app.sandbox.openai import OpenAI
from app.sandbox.order import Operation, Provider, Refusal

PROVIDERS = ("netmind", "nebula", "nebul", "openai", "bfl")
FAULTY = (*PROVIDERS, "bfl_status", "bfl_sample")  # what faults can be limited to
ALL: tuple[Operation, ...] = ("generations", "edits", "variations")


def create_world(seconds_per_drawing: float = 0.0, seeds: Iterator[int] | None = None) -> World:
    """Return the world that the doors share; without `seeds`, drawings are numbered from 1."""
    numbers = itertools.count(1) if seeds is None else seeds
    return World(Journal(PROVIDERS), FaultBook(), Gallery(), numbers, seconds_per_drawing)


def create_application(world: World, clock: Callable[[], float] = time.time) -> Starlette:
    """Return the whole sandbox. `clock`: seconds since 1970, read once for `created`."""
    created = int(clock())
    routes = [
        *_doors("/netmind/v1/images", NetMind(created), ALL, world),
        _door("/nebula/api/v1/images/generation", NebulaBlock(), "generations", world),
        *_doors("/nebul/v1/images", Nebul(created), ALL, world),
        *_doors("/openai/v1/images", OpenAI(created), ("generations", "edits"), world),
        *_bfl(world),
        _catalogue("/nebula/api/v1/serverless/models", nebula_block.catalogue),
        _catalogue("/nebul/model/info", nebul.catalogue),
        _catalogue("/nebul/v1/model/info", nebul.catalogue),
        _catalogue("/openai/v1/models", lambda: openai.catalogue(created)),
        *_controls(world),
    ]
    return Starlette(routes=routes)


def _door(path: str, provider: Provider, operation: Operation, world: World) -> Route:
    return Route(path, Door(provider, operation, world), methods=["POST"])


def _doors(prefix: str, provider: Provider, operations: tuple[Operation, ...], world: World) -> list[Route]:
    return [_door(f"{prefix}/{operation}", provider, operation, world) for operation in operations]


def _bfl(world: World) -> list[Route]:
    jobs = bfl.Jobs()
    return [
        Route(f"{bfl.PREFIX}/get_result", bfl.StatusDoor("bfl_status", jobs, world)),
        Route(f"{bfl.PREFIX}/{{model}}", bfl.SubmitDoor("bfl", jobs, world), methods=["POST"]),
        Route(f"{bfl.SAMPLES}/{{name}}", bfl.SampleDoor("bfl_sample", jobs, world)),
    ]


def _catalogue(path: str, content: Callable[[], dict[str, object]]) -> Route:
    async def answer(request: Request) -> Response:  # noqa: ARG001 - the router's signature
        return JSONResponse(content())

    return Route(path, answer)


def _controls(world: World) -> list[Route]:
    async def control(request: Request) -> Response:
        if request.method == "DELETE":
            world.book.clear()
            world.journal.clear()
            return Response(status_code=204)
        try:
            _stand(world.book, json.loads(await request.body()))
        except (ValueError, Refusal) as error:
            return JSONResponse({"error": str(error)}, status_code=400)
        return Response(status_code=204)

    async def drawings(request: Request) -> Response:  # noqa: ARG001
        return JSONResponse(world.journal.drawings)

    async def requests(request: Request) -> Response:
        count = request.query_params.get("last", "10")
        if not count.isdigit():
            return JSONResponse({"error": f"last={count!r} is not a number."}, status_code=400)
        return JSONResponse(world.journal.last(int(count)))

    async def picture(request: Request) -> Response:
        found = world.gallery.get(request.path_params["name"])
        if found is None:
            return Response(status_code=404)
        return Response(found[1], media_type=found[0])

    return [
        Route("/control", control, methods=["POST", "DELETE"]),
        Route("/control/drawings", drawings),
        Route("/control/requests", requests),
        Route("/pictures/{name}", picture),
    ]


def _stand(book: FaultBook, order: object) -> None:
    """Let a fault stand. Raises ValueError or Refusal for an order that cannot be followed."""
    if not isinstance(order, dict) or not isinstance(order.get("fault"), str):
        raise ValueError('Expected {"provider": name or null, "fault": "503", "times": number or null}.')
    provider, times = order.get("provider"), order.get("times")
    if provider is not None and provider not in FAULTY:
        raise ValueError(f"Unknown provider {provider!r}. Known: {', '.join(FAULTY)}.")
    if times is not None and (not isinstance(times, int) or isinstance(times, bool) or times < 1):
        raise ValueError(f"times={times!r}: expected a number of at least 1, or null.")
    book.stand(order["fault"], provider=provider, times=times)
