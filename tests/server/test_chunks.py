"""Where a body in chunks ends."""

import pytest

from app.server.chunks import Chunks


@pytest.mark.parametrize("body", [b"3\r\nabc\r\n0", b"A;x=y\r\n\r\n0\r\n\r\n\r\n1\r\n0000;z", b"0", b"00 "])
@pytest.mark.parametrize("step", [1, 2, 3, 100])
def test_a_body_in_chunks_ends_with_the_line_of_a_size_of_nothing(body: bytes, step: int) -> None:
    stream, chunks, at = body + b"\r\n\r\n3\r\nabc\r\n", Chunks(), 0
    while not chunks.is_over:
        end = chunks.find_end(stream[: at + step], at)
        assert at <= end <= at + step
        at = end if chunks.is_over else at + step
    assert len(body) <= at <= len(body) + 1  # the line's own end may have been cut in two


@pytest.mark.parametrize("line", [b"zz", b"", b"-5", b"0x5g", b";a"])
def test_what_is_no_size_is_left_to_the_parser(line: bytes) -> None:
    chunks = Chunks()
    assert chunks.find_end(line + b"\r\nabc", 0) == len(line)
    assert chunks.is_over
