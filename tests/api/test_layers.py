"""The trace that a caller names."""

import pytest

from app.api.layers import trace_id

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


@pytest.mark.parametrize("header", [f"00-{TRACE}-{SPAN}-01", f"cc-{TRACE}-{SPAN}-00-what-comes-later"])
def test_the_id_of_a_trace_is_read(header: str) -> None:
    assert trace_id(header) == TRACE


@pytest.mark.parametrize(
    "header",
    [
        *(None, "", "4bf92f", f"ff-{TRACE}-{SPAN}-01", f"00-{'0' * 32}-{SPAN}-01", f"00-{TRACE}-{'0' * 16}-01"),
        *(f"00-{TRACE.upper()}-{SPAN}-01", f"00-{TRACE}-{SPAN}", f'00-{TRACE}"-{SPAN}-01'),
    ],
)
def test_a_malformed_one_counts_as_absent(header: str | None) -> None:
    assert trace_id(header) is None
