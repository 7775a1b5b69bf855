"""What is made of images on their way from the upstream to the caller: links, where they are asked for. Knows neither
side."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import ExitStack, aclosing
from typing import Literal

from app.catalog.fitting import Fitted
from app.events import Event
from app.gateway.call import Call
from app.gateway.links import linked
from app.storage.files import Store

Result = Literal["b64_json", "url"]


class Delivery:
    """`default` is what callers get who do not say in which form they want their images, nor want a stream."""

    def __init__(self, store: Store, default: Result) -> None:
        self._store = store
        self._default = default

    def result(self, call: Call, candidates: list[Fitted]) -> Result:
        """Bytes are base64 until they leave. Raises Unavailable if links are wanted that there is no room for."""
        result = self._wanted(call, candidates[0])
        if result == "url" and any(fitted.deployment.provider.urls == "store" for fitted in candidates):
            self._store.check_room()
        return result

    def deliver(self, call: Call, events: AsyncGenerator[Event, None]) -> AsyncGenerator[Event, None]:
        """With links, if they were to be made. The files behind them are held by the call."""
        if call.result == "url" and call.link is not None:
            events = linked(events, self._store, call.link, call.files)
            if not call.request.stream:
                events = whole(events, call.files)
        return events

    def _wanted(self, call: Call, first: Fitted) -> Result:
        """The caller's word, else its key's, the model's, the gateway's. These do not count for a stream: the types
        that the SDKs have for its events know base64 only."""
        request = call.request
        if request.raw or (request.stream and request.response_format is None):
            return "b64_json"
        model = first.deployment.profile.default_response_format
        return request.response_format or call.key.default_response_format or model or self._default


async def whole(events: AsyncGenerator[Event, None], held: ExitStack) -> AsyncGenerator[Event, None]:
    """All at once or not at all: links are small, so a failure can still be told with a status. What is `held` is
    given back then, since nobody was told of it."""
    try:
        async with aclosing(events):
            collected = [event async for event in events]
    except BaseException:
        held.close()
        raise
    for event in collected:
        yield event
