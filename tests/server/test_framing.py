from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.errors import InvalidRequest
from app.server.framing import Framing

HOST = (b"host", b"h")


def framed(*headers: tuple[bytes, bytes], version: str = "1.1") -> Framing:
    framing = Framing()
    for name, value in (HOST, *headers):
        framing.check_header(name, value, version)
    framing.begin_body(version)
    return framing


@given(st.binary(min_size=1, max_size=300), st.binary(min_size=1, max_size=50), st.integers(1, 400))
def test_a_body_of_announced_length_ends_there_however_it_is_cut(body: bytes, behind: bytes, step: int) -> None:
    framing = framed((b"content-length", b"%d" % len(body)))
    for start in range(0, len(body), step):
        piece = (body + behind)[start : start + step]
        assert framing.find_end(piece, 0) == min(len(piece), len(body) - start)
    assert framing.left == 0


@pytest.mark.parametrize(
    ("headers", "version", "status"),
    [
        ([(b"transfer-encoding", b"gzip")], "1.1", 400),
        ([(b"transfer-encoding", b"gzip, chunked")], "1.1", 501),
        ([(b"transfer-encoding", b"chunked")], "1.0", 400),
        ([HOST], "1.1", 400),
        ([HOST], "1.0", 400),
    ],
)
def test_a_head_that_does_not_frame_its_body_is_refused(
    headers: list[tuple[bytes, bytes]], version: str, status: int
) -> None:
    with pytest.raises(InvalidRequest) as caught:
        framed(*headers, version=version)
    assert (caught.value.status, caught.value.code) == (status, "invalid_http")


@pytest.mark.parametrize(("version", "is_fine"), [("1.1", False), ("1.0", True)])
def test_only_http_1_0_knows_requests_without_a_host(version: str, is_fine: bool) -> None:
    if is_fine:
        Framing().begin_body(version)
        return
    with pytest.raises(InvalidRequest, match="Host"):
        Framing().begin_body(version)
