"""The form in which images leave: base64, or links to stored files. Knows neither side."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import ExitStack, aclosing
from dataclasses import dataclass
from functools import partial

from app.catalog.fitting import Fitted
from app.events import Event
from app.gateway.call import Call
from app.gateway.links import link_images
from app.images import ResponseFormat
from app.storage.disk import DiskStore
from app.storage.files import StoredFile


@dataclass(frozen=True, slots=True)
class Delivery:
    """`default` is the form of an answer if the request names none and wants no stream. `link` returns the URL of a
    stored file, from the gateway's base URL and the name of the caller's key."""

    store: DiskStore
    default: ResponseFormat
    link: Callable[[str, str, StoredFile], str]

    def result(self, call: Call, candidates: list[Fitted]) -> ResponseFormat:
        """Return the form in which the images leave. Raises Unavailable if there is no room for the wanted links."""
        result = self._choose(call, candidates[0])
        if result == "url" and any(fitted.deployment.provider.urls == "store" for fitted in candidates):
            self.store.check_room()
        return result

    def deliver(self, call: Call, events: AsyncGenerator[Event, None]) -> AsyncGenerator[Event, None]:
        """Replace images by links if the call's result is "url". The call holds the files behind them."""
        if call.result == "url" and call.base_url is not None:
            events = link_images(events, self.store, partial(self.link, call.base_url, call.key.name), call.files)
            if not call.request.stream:
                events = _all_or_nothing(events, call.files)
        return events

    def _choose(self, call: Call, first: Fitted) -> ResponseFormat:
        """Return the form that the request, its key, the model or the gateway says, in this order. A stream ignores all
        but the request: the SDKs' types of its events know base64 only."""
        request = call.request
        if request.raw or (request.stream and request.response_format is None):
            return "b64_json"
        model = first.deployment.profile.default_response_format
        return request.response_format or call.key.default_response_format or model or self.default


async def _all_or_nothing(events: AsyncGenerator[Event, None], held: ExitStack) -> AsyncGenerator[Event, None]:
    """Yield all events at the end: links are small, so a failure can still have a status. Then the caller knows no
    link, so the files in `held` are released."""
    try:
        async with aclosing(events):
            collected = [event async for event in events]
    except BaseException:
        held.close()
        raise
    for event in collected:
        yield event
