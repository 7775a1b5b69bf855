from __future__ import annotations

import os
import shutil
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from app.storage.data_dir import DataDirError, open_data_dir
from app.storage.full_disk import no_space
from app.storage.secret import Secret, read_secret

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
        assert data.folder("files") == path / "files"
        assert [mode(path), mode(data.folder("files"))] == [0o700, 0o700]
        assert mode(path / "secret") == 0o600
        assert data.secret == read_secret(path)
        assert (path / "secret").read_text().strip() not in repr(data)


def test_the_secret_is_the_stated_one_or_the_directorys(tmp_path: Path) -> None:
    with open_data_dir(tmp_path) as data:
        made = data.secret
    with open_data_dir(tmp_path, "a-secret-that-is-stated-somewhere") as data:
        assert data.secret == Secret(b"a-secret-that-is-stated-somewhere") != made
    with open_data_dir(tmp_path) as data:
        assert data.secret == made


def test_the_secret_of_earlier_versions_still_checks_links(tmp_path: Path) -> None:
    with open_data_dir(tmp_path) as data:
        assert data.former_link_secret is None
    (tmp_path / "url-secret").write_bytes(b"s" * 32)
    with open_data_dir(tmp_path) as data:
        assert data.former_link_secret == b"s" * 32
        assert repr(b"s" * 32) not in repr(data)
    (tmp_path / "url-secret").write_bytes(b"short")
    with open_data_dir(tmp_path) as data:
        assert data.former_link_secret is None


def test_a_directory_keeps_its_name_and_a_copy_of_it_gets_another(tmp_path: Path) -> None:
    with open_data_dir(tmp_path / "one") as data:
        name = data.name
    with open_data_dir(tmp_path / "one") as data:
        assert data.name == name
    shutil.copytree(tmp_path / "one", tmp_path / "two", copy_function=shutil.copy2)
    with open_data_dir(tmp_path / "two") as data:
        assert data.name != name
        copied = data.name
    with open_data_dir(tmp_path / "two") as data:
        assert data.name == copied
    (tmp_path / "two" / "name").write_text("nonsense")
    with open_data_dir(tmp_path / "two") as data:
        assert data.name not in (name, copied)


def test_a_file_that_holds_no_secret_is_an_error_with_the_remedy(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("short")
    with pytest.raises(DataDirError, match=r"secret' holds no secret\. Restore it"), open_data_dir(tmp_path):
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
        assert data.secret == read_secret(tmp_path)


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


def test_a_full_disk_is_an_error_with_the_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise no_space()

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DataDirError, match=r"cannot be used \(No space left on device\). Make room.*data_dir"):
        open_data_dir(tmp_path).__enter__()


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
