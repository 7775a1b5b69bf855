"""What is made of images on their way from the upstream to the caller: links, where they are asked for. Knows neither
side."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Literal

from app.fitting import Fitted
from app.images import Event
from app.linking import linked
from app.runs import Call
from app.stores import Store

Result = Literal["b64_json", "url"]


class Delivery:
    """`default` is what callers get who do not say in which form they want their images."""

    def __init__(self, store: Store, default: Result) -> None:
        self._store = store
        self._default = default

    def result(self, call: Call, candidates: list[Fitted]) -> Result:
        """The caller's word, else its key's, the model's, the gateway's. Bytes are base64 until they leave."""
        request = call.request
        if request.raw:
            return "b64_json"
        model = candidates[0].deployment.profile.default_response_format
        return request.response_format or call.key.default_response_format or model or self._default

    def deliver(self, call: Call, events: AsyncGenerator[Event, None]) -> AsyncGenerator[Event, None]:
        if call.result == "url" and call.link is not None:
            events = linked(events, self._store, call.link)
            if not call.request.stream:
                events = whole(events)
        return events


async def whole(events: AsyncGenerator[Event, None]) -> AsyncGenerator[Event, None]:
    """All at once or not at all: links are small, so a failure can still be told with a status."""
    async with aclosing(events):
        collected = [event async for event in events]
    for event in collected:
        yield event
