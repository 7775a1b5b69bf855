"""The form in which images leave: base64, or links to stored files. Knows neither side."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from dataclasses import dataclass
from functools import partial

from app.catalog.fitting import Fitted
from app.events import Event, Sink
from app.gateway.call import Call
from app.gateway.links import linking
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

    def deliver(self, call: Call, sink: Sink) -> AbstractAsyncContextManager[Sink]:
        """Return a stage that replaces images by links if the call's result is "url". The call holds the files behind
        them."""
        if call.result != "url" or call.base_url is None:
            return nullcontext(sink)
        return self._deliver_links(call, call.base_url, sink)

    @asynccontextmanager
    async def _deliver_links(self, call: Call, base_url: str, sink: Sink) -> AsyncIterator[Sink]:
        url_for = partial(self.link, base_url, call.key.id)
        if call.request.stream:
            with linking(sink, self.store, url_for, call.files) as links:
                yield links
            return
        # Links are small, so all leave at the end: then a failure can still have a status.
        events: list[Event] = []

        async def collect(event: Event) -> None:
            events.append(event)

        try:
            with linking(collect, self.store, url_for, call.files) as links:
                yield links
        except BaseException:
            call.files.close()  # the caller knows no link
            raise
        for event in events:
            await sink(event)

    def _choose(self, call: Call, first: Fitted) -> ResponseFormat:
        """Return the form that the request, its key, the model or the gateway says, in this order. A stream ignores all
        but the request: the SDKs' types of its events know base64 only."""
        request = call.request
        if request.raw or (request.stream and request.response_format is None):
            return "b64_json"
        model = first.deployment.profile.default_response_format
        return request.response_format or call.key.default_response_format or model or self.default
