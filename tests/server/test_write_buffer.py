"""What goes out together, and when."""

import asyncio
from collections.abc import Iterable

import pytest

from app.server.write_buffer import MOST_HELD, Cork

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class Wire(asyncio.WriteTransport):
    """Notes what each system call would carry."""

    def __init__(self) -> None:
        super().__init__()
        self.sent: list[bytes] = []
        self.closed = False

    def writelines(self, list_of_data: Iterable[bytes | bytearray | memoryview]) -> None:
        self.sent.append(b"".join(list_of_data))

    def close(self) -> None:
        self.closed = True

    def is_closing(self) -> bool:
        return self.closed


def corked() -> tuple[Cork, Wire]:
    wire = Wire()
    return Cork(wire, asyncio.get_running_loop(), wire.close), wire


async def test_what_one_round_writes_goes_out_together_at_its_end() -> None:
    cork, wire = corked()
    for piece in (b"head", b"body", b"end"):
        cork.write(piece)
    assert wire.sent == []
    await asyncio.sleep(0)
    assert wire.sent == [b"headbodyend"]
    cork.write(b"next")
    await asyncio.sleep(0)
    assert wire.sent[1:] == [b"next"]


async def test_what_is_large_takes_along_what_came_before_and_waits_for_nothing() -> None:
    cork, wire = corked()
    cork.write(b"head")
    cork.writelines([b"length", b"piece", b"end"])
    assert wire.sent == [b"headlengthpieceend"]
    await asyncio.sleep(0)
    assert len(wire.sent) == 1


async def test_little_is_held_however_small_the_pieces_are() -> None:
    cork, wire = corked()
    for _ in range(100):
        cork.write(bytes(1000))
    assert [len(sent) for sent in wire.sent] == [17_000] * 5
    assert MOST_HELD < 17_000
    await asyncio.sleep(0)
    assert sum(map(len, wire.sent)) == 100_000


async def test_what_is_held_for_a_connection_that_has_ended_is_let_go() -> None:
    cork, wire = corked()
    cork.write(b"end")
    wire.closed = True
    await asyncio.sleep(0)
    cork.writelines([b"more"])
    assert wire.sent == []


async def test_nothing_is_lost_by_closing() -> None:
    cork, wire = corked()
    cork.write(b"end")
    cork.close()
    assert (wire.sent, wire.closed, cork.is_closing()) == ([b"end"], True, True)
    await asyncio.sleep(0)
    assert wire.sent == [b"end"]
