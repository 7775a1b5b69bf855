"""How connections break, seen from a bare socket, on both event loops."""

import asyncio
import contextlib
import json
import time
from dataclasses import dataclass
from typing import Any

import pytest

from app.sandbox.server import Sandbox

pytestmark = pytest.mark.anyio

BODY: dict[str, Any] = {"model": "gpt-image-2", "prompt": "a fox", "size": "64x64"}


@pytest.fixture(params=[False, True], ids=["asyncio", "uvloop"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, bool]]:
    return "asyncio", {"use_uvloop": request.param}


@dataclass
class Seen:
    """All that arrived until the connection ended, how it ended, and when (seconds) head, half and end came."""

    data: bytes
    reset: bool
    head_after: float
    longest_silence: float

    @property
    def head(self) -> str:
        return self.data.partition(b"\r\n\r\n")[0].decode().lower()

    @property
    def body(self) -> bytes:
        return self.data.partition(b"\r\n\r\n")[2]

    @property
    def length(self) -> int:
        return int(self.head.partition("content-length: ")[2].split("\r\n")[0])


async def ask(sandbox: Sandbox, fault: str, most: int = 10**9, **fields: Any) -> Seen:
    """One request; read until the end, or until `most` bytes have come."""
    port = int(sandbox.base_url.rpartition(":")[2])
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    content = json.dumps({**BODY, **fields}).encode()
    head = (
        "POST /openai/v1/images/generations HTTP/1.1\r\nhost: sandbox\r\nauthorization: Bearer x\r\n"
        f"connection: close\r\ncontent-type: application/json\r\nx-sandbox-fault: {fault}\r\n"
        f"content-length: {len(content)}\r\n\r\n"
    )
    writer.write(head.encode() + content)
    seen = Seen(b"", False, 0.0, 0.0)
    last = started = time.monotonic()
    try:
        while len(seen.data) < most and (piece := await reader.read(65536)):
            now = time.monotonic()
            if not seen.data:
                seen.head_after = now - started
            else:
                seen.longest_silence = max(seen.longest_silence, now - last)
            last = now
            seen.data += piece
    except ConnectionResetError:
        seen.reset = True
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()
    return seen


async def test_without_a_fault_the_whole_answer_comes(sandbox: Sandbox) -> None:
    seen = await ask(sandbox, "")
    assert len(seen.body) == seen.length
    assert json.loads(seen.body)["data"]


async def test_the_head_can_be_late(sandbox: Sandbox) -> None:
    seen = await ask(sandbox, "slow:0.3")
    assert seen.head_after >= 0.3
    assert len(seen.body) == seen.length


async def test_a_refusal_can_be_late_too(sandbox: Sandbox) -> None:
    seen = await ask(sandbox, "slow:0.3;503")
    assert seen.head_after >= 0.3
    assert " 503 " in seen.head


async def test_a_body_can_stall_in_the_middle(sandbox: Sandbox) -> None:
    seen = await ask(sandbox, "stall:0.3")
    assert seen.longest_silence >= 0.29  # after the head
    assert len(seen.body) == seen.length


async def test_a_body_can_come_slowly(sandbox: Sandbox) -> None:
    quick = await ask(sandbox, "")
    started = time.monotonic()
    seen = await ask(sandbox, f"dribble:{quick.length * 2}")
    assert time.monotonic() - started > 0.3
    assert len(seen.body) == seen.length


async def test_a_connection_can_end_in_the_middle_of_the_body(sandbox: Sandbox) -> None:
    seen = await ask(sandbox, "cut")
    assert not seen.reset
    assert len(seen.body) == seen.length // 2
    assert sandbox.world.journal.drawings["openai"] == 1


async def test_a_chunked_body_can_be_cut_as_well(sandbox: Sandbox) -> None:
    seen = await ask(sandbox, "cut;chunked")
    assert "transfer-encoding: chunked" in seen.head
    assert not seen.body.endswith(b"0\r\n\r\n")
    whole = await ask(sandbox, "chunked")
    assert whole.body.endswith(b"0\r\n\r\n")


async def test_a_connection_can_end_before_any_answer(sandbox: Sandbox) -> None:
    seen = await ask(sandbox, "cut_headers")
    assert (seen.data, seen.reset) == (b"", False)
    assert sandbox.world.journal.drawings["openai"] == 1


async def test_a_connection_can_be_reset_in_the_middle_of_the_body(sandbox: Sandbox) -> None:
    seen = await ask(sandbox, "reset")
    assert seen.reset
    assert b" 200 " in seen.data
    assert sandbox.world.journal.drawings["openai"] == 1


async def test_a_length_can_promise_more_than_comes(sandbox: Sandbox) -> None:
    seen = await ask(sandbox, "short")
    assert seen.length == len(seen.body) + 1000
    assert json.loads(seen.body)["data"], "the body itself is whole"


@pytest.mark.parametrize(("fault", "byte"), [("endless", b" "), ("endless:base64", b"A")])
async def test_a_body_can_go_on_for_ever(sandbox: Sandbox, fault: str, byte: bytes) -> None:
    seen = await ask(sandbox, fault, most=2_000_000)
    assert len(seen.data) >= 2_000_000
    assert seen.body.count(byte) > 1_990_000


@pytest.mark.parametrize("fault", ["cut", "reset"])
async def test_a_stream_breaks_too(sandbox: Sandbox, fault: str) -> None:
    seen = await ask(sandbox, fault, stream=True, partial_images=2)
    assert seen.reset == (fault == "reset")
    assert b"image_generation.partial_image" in seen.body
    assert 0 < seen.body.count(b"\n\n") < 3, "some of the three events are whole"
    assert sandbox.world.journal.drawings["openai"] == 1


async def test_who_leaves_early_has_still_had_a_drawing_made(sandbox: Sandbox) -> None:
    asking = asyncio.create_task(ask(sandbox, "slow:30"))
    while sandbox.world.journal.drawings["openai"] == 0:
        await asyncio.sleep(0.01)
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)
    assert sandbox.world.journal.drawings["openai"] == 1
