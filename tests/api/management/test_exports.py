"""An export of many drawings takes no more memory than one of few."""

from __future__ import annotations

import tracemalloc

import pytest

from tests.api.administration.offices import Office
from tests.ledger.book.test_reports import fill

pytestmark = pytest.mark.anyio
MEGABYTE = 1024 * 1024


@pytest.mark.parametrize("kind", ["text/csv", "application/x-ndjson"])
async def test_an_export_is_streamed_in_constant_memory(office: Office, kind: str) -> None:
    await fill(office.ledger.database, 20_000)
    count = size = 0
    tracemalloc.start()
    try:
        async with (
            office.client() as client,
            client.stream("GET", "/v1/gateway/drawings", headers={"accept": kind}) as answer,
        ):
            async for piece in answer.aiter_bytes():
                size += len(piece)
                count += piece.count(b"\n")
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert count == 20_000 + (kind == "text/csv")
    assert size > 2 * MEGABYTE
    assert most < 12 * MEGABYTE  # some hundred rows at a time, in both ends of this process
