"""A second address."""

import asyncio

import pytest

from app.server.listener import ListenError, listen
from tests.live.loops import bound


async def nothing(scope: object, receive: object, send: object) -> None:
    raise AssertionError("nobody asked")


def test_an_address_that_is_taken_is_refused_with_the_setting_that_has_it() -> None:
    taken = bound()
    taken.listen()

    async def begin() -> None:
        async with listen(nothing, "127.0.0.1", taken.getsockname()[1], setting="metrics"):
            pass

    with pytest.raises(ListenError, match=r"already in use.*`metrics\.port`"):
        asyncio.run(begin())
    taken.close()
