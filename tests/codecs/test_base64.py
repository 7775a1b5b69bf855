import base64
import binascii
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.codecs.base64 import Base64Carry


@given(st.binary(max_size=300), st.lists(st.integers(0, 400), max_size=6))
def test_however_text_is_cut_it_reads_the_same(data: bytes, cuts: list[int]) -> None:
    text, groups = base64.b64encode(data), Base64Carry()
    edges = [0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]
    read = b"".join(groups.decode(text[start:end]) for start, end in pairwise(edges))
    assert read == data
    assert not groups.is_cut


def test_half_a_group_is_kept_back() -> None:
    groups = Base64Carry()
    assert groups.decode(b"AAAAA") == bytes(3)
    assert groups.is_cut


@pytest.mark.parametrize("text", [b"AA*A", b"A=AA", b"\xff\xff\xff\xff"])
def test_text_that_is_no_base64_is_refused(text: bytes) -> None:
    with pytest.raises(binascii.Error):
        Base64Carry().decode(text)
