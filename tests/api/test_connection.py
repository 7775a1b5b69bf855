"""The connection of a request: what this package calls it is what the server puts there."""

from __future__ import annotations

from unittest.mock import Mock

import pytest

from app.api import connection as api
from app.server import protocol as server


def test_the_server_speaks_of_the_same_things() -> None:
    assert (api.EXTENSION, api.GARBLED) == (server.EXTENSION, server.GARBLED)


def typed(found: server.Protocol) -> api.Connection:
    """For mypy: the server's connections are such."""
    return found


def test_under_another_server_there_is_no_connection() -> None:
    assert api.connection({"type": "http"}) is None
    api.break_off({"type": "http", "http_version": "1.0"})


@pytest.mark.parametrize(
    ("version", "closing", "is_reset"), [("1.0", False, True), ("1.0", True, False), ("1.1", False, False)]
)
def test_only_a_client_that_cannot_see_a_cut_answer_has_its_connection_reset(
    version: str, closing: bool, is_reset: bool
) -> None:
    found = Mock(is_closing=closing)
    api.break_off({"http_version": version, "extensions": {api.EXTENSION: found}})
    assert found.reset.called is is_reset
