from __future__ import annotations

import asyncio
import time

import pytest
from starlette.types import Message

from app.api.requests.body import TEXT_BYTES, Body, ClientGone, Limits, Watched, drain
from app.errors import ApiError, InvalidRequest, TooLarge, Unavailable
from app.storage.spool import Budget, Uploads
from tests.api.requests.feeding import LIMITS, receiving, scope

pytestmark = pytest.mark.anyio
SMALL = Limits(upload_bytes=10, request_bytes=10)


async def dribbling() -> Message:
    await asyncio.sleep(0.005)
    return {"type": "http.request", "body": b"x", "more_body": True}


async def unread() -> Message:
    raise AssertionError("a byte was read")


async def test_the_pieces_come_as_they_were_sent_without_empty_ones() -> None:
    body = Body(scope("text/plain"), receiving([b"ab", b"", b"c"]), LIMITS)
    assert [piece async for piece in body] == [b"ab", b"c"]
    assert await body.piece() == b""


async def test_a_message_without_a_body_is_an_empty_body() -> None:
    async def receive() -> Message:
        return {"type": "http.request"}

    assert await Body(scope(None), receive, LIMITS).text() == b""


@pytest.mark.parametrize("length", ["11", "9" * 5000])
async def test_an_announced_length_over_the_limit_is_refused_before_a_byte_is_read(length: str) -> None:
    with pytest.raises(TooLarge, match=r"server\.max_request_mb") as caught:
        Body(scope("text/plain", **{"content-length": length}), unread, SMALL)
    assert caught.value.status == 413


async def test_a_body_that_grows_over_the_limit_is_refused_at_that_point() -> None:
    body = Body(scope("text/plain"), receiving([b"x" * 10, b"y"]), SMALL)
    assert await body.piece() == b"x" * 10
    with pytest.raises(TooLarge):
        await body.piece()


async def test_the_limit_is_told_in_the_megabytes_of_the_configuration() -> None:
    for count, told in ((50_000_000, "50 MB"), (50 * 1_048_576, "50 MB"), (1_572_864, "1.5 MB")):
        with pytest.raises(TooLarge, match=told):
            Body(scope(None, **{"content-length": "99999999999"}), unread, Limits(1, count))


async def test_a_client_that_leaves_in_mid_upload_is_no_error_of_ours() -> None:
    body = Body(scope("text/plain"), receiving([b"x"], gone=True), LIMITS)
    with pytest.raises(ClientGone):
        await body.text()


async def test_text_is_bounded() -> None:
    body = Body(scope("text/plain"), receiving([b"x" * 600_000] * 2), LIMITS)
    with pytest.raises(TooLarge, match="1 MB"):
        await body.text()
    assert TEXT_BYTES == 1_048_576


async def test_a_body_that_comes_too_slowly_is_a_408_that_names_the_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.patience.GRACE_SECONDS", 0.03)
    body = Body(scope("text/plain"), dribbling, LIMITS)
    with pytest.raises(ApiError, match=r"fewer than 1024 bytes a second .*server\.min_upload_rate") as caught:
        await body.text()
    assert (caught.value.status, caught.value.code) == (408, "request_timeout")


async def test_a_body_has_to_be_there_within_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.api.requests.body.LONGEST_SECONDS", 0.03)
    with pytest.raises(ApiError, match=r"not all of it within 0\.03 seconds") as caught:
        await Body(scope("text/plain"), dribbling, LIMITS).text()
    assert caught.value.status == 408


async def test_the_text_of_all_requests_together_is_bounded() -> None:
    budget = Budget(memory_bytes=100)
    with Uploads(budget=budget) as first, Uploads(budget=budget) as second:
        assert await Body(scope("text/plain"), receiving([b"x" * 60]), LIMITS, first).text()
        with pytest.raises(Unavailable) as caught:
            await Body(scope("text/plain"), receiving([b"x" * 41]), LIMITS, second).text()
        assert (caught.value.status, caught.value.code, caught.value.retry_after) == (503, "no_room", 30)
        first.close()
        assert await Body(scope("text/plain"), receiving([b"x" * 41]), LIMITS, second).text()
    assert budget.memory == 0


async def test_an_announced_length_for_which_there_is_no_room_is_refused_before_a_byte_is_read() -> None:
    uploads = Uploads(budget=Budget(disk_bytes=2_000_000))
    Body(scope("text/plain", **{"content-length": "2000000"}), unread, LIMITS, uploads)
    with pytest.raises(Unavailable, match=r"server\.max_uploads_mb"):
        Body(scope("text/plain", **{"content-length": "2000001"}), unread, LIMITS, uploads)


async def test_a_compressed_body_is_refused_by_the_name_of_its_header() -> None:
    with pytest.raises(InvalidRequest, match="Content-Encoding"):
        Body(scope("text/plain", **{"content-encoding": "gzip"}), unread, LIMITS)


async def test_draining_stops_at_the_end_of_the_body() -> None:
    receive = Watched(receiving([b"x"] * 5))
    await drain(receive, max_bytes=100, seconds=5)
    assert receive.complete


async def test_draining_stops_when_the_client_leaves() -> None:
    receive = Watched(receiving([b"x"], gone=True))
    await drain(receive, max_bytes=100, seconds=5)
    assert receive.complete


async def test_draining_stops_after_so_many_bytes() -> None:
    receive = Watched(receiving([b"x" * 50] * 5))
    await drain(receive, max_bytes=100, seconds=5)
    assert not receive.complete
    assert (await receive())["body"] == b"x" * 50


async def test_draining_stops_after_so_much_time() -> None:
    async def silent() -> Message:
        await asyncio.sleep(60)
        raise AssertionError

    begun = time.monotonic()
    await drain(silent, max_bytes=100, seconds=0.02)
    assert time.monotonic() - begun < 5


async def test_nothing_is_waited_for_when_the_body_was_read_to_its_end() -> None:
    receive = Watched(receiving([b"x"]))
    await Body(scope(None), receive, LIMITS).text()
    await drain(receive, max_bytes=100, seconds=60)
    assert receive.complete
