from __future__ import annotations

import stat
import subprocess
import sys
from pathlib import Path

import pytest

from app.storage.secret import API_KEYS, LINKS, RUNS, Secret, SecretFileError, read_secret

READER = """
import sys
from pathlib import Path
from app.storage.secret import read_secret
print(read_secret(Path(sys.argv[1])).value.decode())
"""


def test_a_secret_is_made_once_and_stays(tmp_path: Path) -> None:
    made = read_secret(tmp_path)
    assert read_secret(tmp_path) == made
    assert stat.S_IMODE((tmp_path / "secret").stat().st_mode) == 0o600
    (tmp_path / "other").mkdir()
    assert read_secret(tmp_path / "other") != made
    assert made.value.decode() not in repr(made)


def test_the_content_of_the_file_may_be_stated_elsewhere(tmp_path: Path) -> None:
    made = read_secret(tmp_path)
    text = (tmp_path / "secret").read_text().strip()
    assert read_secret(tmp_path / "nowhere", text) == made


def test_a_stated_secret_touches_no_file(tmp_path: Path) -> None:
    assert read_secret(tmp_path, "stated") == Secret(b"stated")
    assert list(tmp_path.iterdir()) == []


def test_processes_that_start_at_once_agree(tmp_path: Path) -> None:
    command = [sys.executable, "-c", READER, str(tmp_path)]
    readers = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    told = {reader.communicate()[0] for reader in readers}
    assert len(told) == 1
    assert len(told.pop().strip()) == 64


def test_half_a_secret_from_a_crash_is_written_over(tmp_path: Path) -> None:
    (tmp_path / "secret.new").write_bytes(b"half")
    assert len(read_secret(tmp_path).value) == 64
    assert not (tmp_path / "secret.new").exists()


def test_a_secret_that_others_can_read_is_made_private_again(tmp_path: Path) -> None:
    made = read_secret(tmp_path)
    (tmp_path / "secret").chmod(0o644)
    assert read_secret(tmp_path) == made
    assert stat.S_IMODE((tmp_path / "secret").stat().st_mode) == 0o600


@pytest.mark.parametrize("content", [b"", b"short", b"\xff" * 40])
def test_a_file_without_a_secret_is_refused_with_the_remedy(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(content)
    with pytest.raises(SecretFileError, match=r"secret' holds no secret\. Restore it from a backup; or delete it"):
        read_secret(tmp_path)


def test_each_purpose_has_a_key_of_its_own() -> None:
    secret = Secret(b"s" * 64)
    assert len({secret.value, *map(secret.derive, (LINKS, API_KEYS, RUNS))}) == 4
    assert secret.derive(LINKS) == Secret(b"s" * 64).derive(LINKS) != Secret(b"t" * 64).derive(LINKS)
    assert len(secret.derive(API_KEYS)) == 32
