from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from app.storage.data_dir import DataDirError, open_data_dir

HOLDER = """
import sys, time
from pathlib import Path
from app.storage.data_dir import open_data_dir
with open_data_dir(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def state(path: Path) -> dict[str, tuple[int, int, bytes | None]]:
    return {
        str(found.relative_to(path)): (
            found.stat().st_mode,
            found.stat().st_mtime_ns,
            found.read_bytes() if found.is_file() else None,
        )
        for found in sorted(path.rglob("*"))
    }


def test_a_missing_directory_is_made_and_is_private(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "data"
    with open_data_dir(path) as data:
        assert data.path == path
        assert len(data.url_secret) == 32
        assert data.folder("files") == path / "files"
        assert [mode(path), mode(data.folder("files"))] == [0o700, 0o700]
        assert mode(path / "url-secret") == 0o600
        assert (path / "url-secret").read_bytes() == data.url_secret
        assert repr(data.url_secret) not in repr(data)


def test_the_secret_stays_over_restarts_and_differs_between_directories(tmp_path: Path) -> None:
    with open_data_dir(tmp_path / "a") as data:
        first = data.url_secret
    with open_data_dir(tmp_path / "a") as data, open_data_dir(tmp_path / "b") as other:
        assert data.url_secret == first != other.url_secret


def test_a_secret_that_others_can_read_is_made_private_again(tmp_path: Path) -> None:
    with open_data_dir(tmp_path):
        pass
    (tmp_path / "url-secret").chmod(0o644)
    with open_data_dir(tmp_path):
        assert mode(tmp_path / "url-secret") == 0o600


def test_half_a_secret_from_a_crash_is_written_over(tmp_path: Path) -> None:
    (tmp_path / "url-secret.new").write_bytes(b"half")
    with open_data_dir(tmp_path) as data:
        assert len(data.url_secret) == 32
    assert not (tmp_path / "url-secret.new").exists()


def test_a_secret_of_the_wrong_length_is_refused_with_the_remedy(tmp_path: Path) -> None:
    (tmp_path / "url-secret").write_bytes(b"short")
    with pytest.raises(DataDirError, match=r"url-secret.*5 bytes.*Delete it"), open_data_dir(tmp_path):
        pass


def test_two_gateways_cannot_use_one_directory_and_the_second_changes_nothing(tmp_path: Path) -> None:
    with open_data_dir(tmp_path) as data:
        (data.folder("files") / "x").write_bytes(b"1")
        before = state(tmp_path)
        with pytest.raises(DataDirError, match="Another gateway") as refused, open_data_dir(tmp_path):
            pass
        assert state(tmp_path) == before
    assert repr(str(tmp_path)) in str(refused.value)
    assert "data_dir" in str(refused.value)
    with open_data_dir(tmp_path):
        assert state(tmp_path) == before


def test_a_killed_gateway_does_not_keep_the_directory(tmp_path: Path) -> None:
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, str(tmp_path)], stdout=subprocess.PIPE)
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(DataDirError, match="Another gateway"), open_data_dir(tmp_path):
            pass
    finally:
        holder.send_signal(signal.SIGKILL)
        holder.communicate()
    with open_data_dir(tmp_path) as data:
        assert len(data.url_secret) == 32


def test_a_file_in_its_place_is_an_error_with_the_remedy(tmp_path: Path) -> None:
    (tmp_path / "data").write_bytes(b"")
    with pytest.raises(DataDirError, match=r"data' cannot be used \(.*writable.*data_dir"):
        open_data_dir(tmp_path / "data").__enter__()


def test_a_directory_that_cannot_be_written_to_is_an_error_with_the_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object) -> int:
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patched:
        patched.setattr(os, "open", refused)  # root, as whom tests may run, can write everywhere
        with pytest.raises(DataDirError, match=r"cannot be used \(Permission denied\).*writable.*data_dir"):
            open_data_dir(tmp_path / "data").__enter__()


def test_foreign_files_in_it_do_not_matter(tmp_path: Path) -> None:
    (tmp_path / "lost+found").mkdir(mode=0)
    (tmp_path / ".snapshot").symlink_to("nowhere")
    with open_data_dir(tmp_path) as data:
        assert data.folder("runs").is_dir()


def test_a_folder_that_cannot_be_used_is_an_error_with_the_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_data_dir(tmp_path) as data:
        (tmp_path / "runs").write_bytes(b"")
        with pytest.raises(DataDirError, match=r"runs' cannot be used.*data_dir"):
            data.folder("runs")
        monkeypatch.setattr(os, "access", lambda *_: False)  # root, as whom tests may run, has access to everything
        with pytest.raises(DataDirError, match=r"files' cannot be used \(Permission denied\)"):
            data.folder("files")
