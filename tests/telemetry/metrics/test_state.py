"""What is counted at a scrape."""

from app.ledger.values.directory import ApiKey, Directory
from app.telemetry.metrics.state import count_keys


def test_issued_keys_are_counted_by_their_state() -> None:
    keys = (
        ApiKey("a", "a", b"a"),
        ApiKey("b", "b", b"b", expires_at=200),
        ApiKey("c", "c", b"c", expires_at=100),
        ApiKey("d", "d", b"d", disabled_at=50, expires_at=100),
    )
    directory = Directory(1, keys={key.id: key for key in keys})
    assert count_keys(directory, 150) == {"active": 2, "expired": 1, "disabled": 1}
