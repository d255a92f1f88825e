from __future__ import annotations

import errno
import hashlib
import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from autosam_net.errors import BusyError
from autosam_net.files import (
    alone,
    atomic_file,
    atomic_folder,
    remove_folder,
    remove_leftovers,
    sha256_of_files,
    sha256_of_text,
)


def test_a_file_appears_whole(tmp_path: Path) -> None:
    target = tmp_path / "new" / "image.nii.gz"
    with atomic_file(target) as temporary:
        assert temporary.name == target.name  # writers choose the format by the ending
        temporary.write_text("whole")
        assert not target.exists()
    assert target.read_text() == "whole"
    assert [path.name for path in target.parent.iterdir()] == ["image.nii.gz"]


def test_an_error_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    target = tmp_path / "a.json"
    target.write_text("old")
    with pytest.raises(RuntimeError, match="stop"), atomic_file(target) as temporary:
        temporary.write_text("half")
        raise RuntimeError("stop")
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_a_folder_replaces_the_old_one_as_a_whole(tmp_path: Path) -> None:
    target = tmp_path / "case"
    for name in ("first", "second"):
        with atomic_folder(target) as temporary:
            (temporary / name).write_text(name)
    assert [path.name for path in target.iterdir()] == ["second"]
    assert list(tmp_path.iterdir()) == [target]


def test_an_error_leaves_the_old_folder(tmp_path: Path) -> None:
    target = tmp_path / "case"
    with atomic_folder(target) as temporary:
        (temporary / "kept").touch()
    with pytest.raises(KeyboardInterrupt), atomic_folder(target) as temporary:
        (temporary / "half").touch()
        raise KeyboardInterrupt
    assert [path.name for path in target.iterdir()] == ["kept"]
    assert list(tmp_path.iterdir()) == [target]


KILLED = """
import os, pathlib, sys
from autosam_net.files import atomic_folder
with atomic_folder(pathlib.Path(sys.argv[1])) as temporary:
    (temporary / "half").touch()
    os._exit(9)
"""


def test_leftovers_of_killed_runs_are_removed(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-c", KILLED, tmp_path / "killed"], check=False)
    (tmp_path / ".writing-elsewhere-1-abc").mkdir()
    os.utime(tmp_path / ".writing-elsewhere-1-abc", (0, 0))
    (tmp_path / "case").mkdir()
    assert len(list(tmp_path.glob(".writing-*"))) == 2
    remove_leftovers(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["case"]


def test_who_writes_beside_leftovers_removes_those_of_the_dead(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-c", KILLED, tmp_path / "killed"], check=False)
    for name in (".writing-diary", f".writing-{platform.node()}-{os.getpid()}-abc"):
        (tmp_path / name).mkdir()
    with atomic_file(tmp_path / "model.zip") as temporary:
        temporary.touch()
    assert {path.name for path in tmp_path.iterdir()} == {
        *("model.zip", ".writing-diary"),
        f".writing-{platform.node()}-{os.getpid()}-abc",
    }


def test_what_is_being_written_is_no_leftover(tmp_path: Path) -> None:
    (tmp_path / ".writing-elsewhere-1-abc").mkdir()
    with atomic_folder(tmp_path / "case") as temporary:
        remove_leftovers(tmp_path)
        (temporary / "whole").touch()
    assert (tmp_path / "case" / "whole").is_file()
    assert (tmp_path / ".writing-elsewhere-1-abc").is_dir()  # of another machine, and young


def test_the_last_of_two_writers_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target, plain_replace, rivals = tmp_path / "case", os.replace, ["rival"]

    def replace_with_a_rival(source: Path, destination: Path) -> None:
        if destination == target and rivals:
            target.mkdir()
            (target / rivals.pop()).touch()
        plain_replace(source, destination)

    monkeypatch.setattr(os, "replace", replace_with_a_rival)
    with atomic_folder(target) as temporary:
        (temporary / "mine").touch()
    assert [path.name for path in target.iterdir()] == ["mine"]
    assert list(tmp_path.iterdir()) == [target]


def test_an_error_of_the_system_names_the_file(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No space left") as caught, atomic_file(tmp_path / "a.json"):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert caught.value.filename == str(tmp_path / "a.json")


HOLDING = """
import pathlib, sys, time
from autosam_net.files import alone
with alone(pathlib.Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_one_process_at_a_time(tmp_path: Path) -> None:
    other = subprocess.Popen([sys.executable, "-c", HOLDING, tmp_path / "table"], stdout=subprocess.PIPE)
    assert other.stdout is not None and other.stdout.readline() == b"held\n"
    with pytest.raises(BusyError, match=r"table: wait"), alone(tmp_path / "table", "wait"):
        pass
    other.kill()  # and the lock is gone
    other.wait()
    other.stdout.close()
    with alone(tmp_path / "table", "wait"), alone(tmp_path / "another", "wait"):
        pass
    assert not list(tmp_path.iterdir())


def test_a_folder_goes_as_a_whole(tmp_path: Path) -> None:
    (tmp_path / "fold").mkdir()
    (tmp_path / "fold" / "file").touch()
    remove_folder(tmp_path / "fold")
    assert not list(tmp_path.iterdir())


def test_checksums(tmp_path: Path) -> None:
    first, second = tmp_path / "1", tmp_path / "2"
    first.write_bytes(b"a" * (1 << 20))
    second.write_bytes(b"b")
    assert sha256_of_files([first, second]) == hashlib.sha256(b"a" * (1 << 20) + b"b").hexdigest()
    assert sha256_of_files([second, first]) != sha256_of_files([first, second])
    assert sha256_of_text("µm") == hashlib.sha256("µm".encode()).hexdigest()
