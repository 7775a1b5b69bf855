from __future__ import annotations

import resource
from unittest.mock import Mock

import pytest

from app.server.sockets import count_descriptors


@pytest.mark.parametrize(
    ("number", "most", "found"), [(9, 1024, (1015, 64)), (1000, 1024, (24, 64)), (60, 64, (4, 8)), (9, -1, (1, 0))]
)
def test_a_new_descriptor_says_how_many_are_left(
    monkeypatch: pytest.MonkeyPatch, number: int, most: int, found: tuple[int, int]
) -> None:
    transport, opened = Mock(), Mock()
    transport.get_extra_info.return_value = opened
    opened.fileno.return_value = number
    monkeypatch.setattr(resource, "getrlimit", lambda _: (most, most))
    assert count_descriptors(transport) == found
