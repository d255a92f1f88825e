"""A full disk, a folder that cannot be written: exit code 2, one line with place and cure, and no half file."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.faults.conftest import Stages
from tests.faults.stages import MAIN, Fault, Outcome, content, run
from tests.faults.test_kill import moments

POINTS = 2
PARTS = (0.0, 0.6)  # of what a stage writes, for which there is space
CURES = ("Free some space", "Give yourself the permission", "Check the file and the free space", "Raise the limit")
GROWING = ("cases.csv", "training_log.csv")
"""Tables in which what was finished is kept, a line each."""
FOLLOWING = ("progress.png", "cases.csv.sha256")
"""The picture and the checksum of such a table."""
ROOM = 8192  # KiB
LINES = 700  # bytes, enough for what a command says: it goes into a file, too


def check_refusal(stages: Stages, stage: str, root: Path, outcome: Outcome, *words: str) -> None:
    """Check that a stage was refused politely and left nothing but whole files."""
    assert outcome.code == 2, outcome.said
    assert "Traceback" not in outcome.said
    assert len(outcome.lines) == 1, outcome.said
    assert any(word in outcome.lines[0] for word in words), outcome.lines[0]
    assert any(cure in outcome.lines[0] for cure in CURES), outcome.lines[0]
    assert not list(root.rglob(".writing-*"))
    before = content(stages.before[stage])
    for name, found in content(root).items():
        whole = stages.after[stage].get(name, b"")
        if name.endswith(GROWING):
            assert set(found.splitlines()) <= set(whole.splitlines()), name
        elif not name.endswith(FOLLOWING):
            assert found in (before.get(name), whole), name


def check_repetition(stages: Stages, stage: str, root: Path) -> None:
    again = run(root, stage)
    assert again.code == 0, again.said
    assert content(root) == stages.after[stage]


@pytest.mark.parametrize("stage", MAIN)
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS])
def test_the_system_refuses_to_write(stages: Stages, stage: str, number: int) -> None:
    writes = [n for n, (event, _) in enumerate(stages.outcomes[stage].changes, 1) if event in ("open", "os.mkdir")]
    for point in (writes[index - 1] for index in moments(len(writes), POINTS)):
        root = stages.again(stage, f"refused_{stage}_{number}_{point}")
        outcome = run(root, stage, Fault(point, number))
        check_refusal(stages, stage, root, outcome, os.strerror(number))
        check_repetition(stages, stage, root)
        shutil.rmtree(root)


@pytest.mark.parametrize("stage", MAIN)
def test_files_may_not_grow(stages: Stages, stage: str) -> None:
    before, after = content(stages.before[stage]), stages.after[stage]
    largest = max(len(entry) for name, entry in after.items() if entry != before.get(name))
    for limit in (largest // 2, LINES):
        root = stages.again(stage, f"limited_{stage}_{limit}")
        check_refusal(stages, stage, root, run(root, stage, Fault(largest=limit)), "File too large")
        check_repetition(stages, stage, root)
        shutil.rmtree(root)


Disk = Callable[[str], None]


@pytest.fixture
def disk(stages: Stages) -> Iterator[tuple[Path, Disk]]:
    """Return a folder with a disk of its own, and what mounts it anew with other options."""
    root = stages.place / "disk"
    root.mkdir()

    def mount(options: str) -> None:
        subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", root], check=True, capture_output=True)

    try:
        mount(f"size={ROOM}k")
    except (OSError, subprocess.CalledProcessError):
        root.rmdir()
        pytest.skip("mounting a small disk is not permitted here")
    yield root, lambda options: mount(f"remount,{options}")
    subprocess.run(["umount", root], check=True)
    root.rmdir()


@pytest.mark.parametrize("stage", MAIN)
def test_a_disk_is_full(stages: Stages, stage: str, disk: tuple[Path, Disk]) -> None:
    root, remount = disk
    for part in PARTS:
        shutil.copytree(stages.before[stage], root, dirs_exist_ok=True)
        used = kib(root)
        new = sum(map(len, stages.after[stage].values())) - sum(map(len, content(root).values()))
        remount(f"size={used + int(part * new / 1024)}k")
        check_refusal(stages, stage, root, run(root, stage), "No space left on device", "cannot be written")
        remount(f"size={ROOM}k")
        check_repetition(stages, stage, root)
        for entry in root.iterdir():
            shutil.rmtree(entry) if entry.is_dir() else entry.unlink()


@pytest.mark.parametrize("stage", MAIN)
def test_a_disk_is_read_only(stages: Stages, stage: str, disk: tuple[Path, Disk]) -> None:
    root, remount = disk
    shutil.copytree(stages.before[stage], root, dirs_exist_ok=True)
    remount("ro")
    check_refusal(stages, stage, root, run(root, stage), "Read-only file system")
    remount(f"rw,size={ROOM}k")


def kib(folder: Path) -> int:
    """Return the KiB that are used on the disk of a folder."""
    disk = os.statvfs(folder)
    return (disk.f_blocks - disk.f_bfree) * disk.f_frsize // 1024
