"""Files that appear whole or not at all, that one process at a time works on, and checksums of them."""

from __future__ import annotations

import glob
import hashlib
import logging
import os
import platform
import re
import shutil
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from autosam_net.errors import BusyError

log = logging.getLogger("autosam_net")

PREFIX = ".writing-"
DAY = 24 * 3600  # seconds; nobody writes to one file or folder for longer
TIDY: set[Path] = set()  # folders in which this process has looked for its predecessors' leftovers
RACES = 10  # other processes that may put the same folder in place at the same moment


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path` with the same ending; rename it to `path` on success.

    On an error the temporary file is removed and what was at `path` before stays.
    """
    with _writing_place(path) as place:
        temporary = place / path.name
        yield temporary
        os.replace(temporary, path)
    _tell_of(path)


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Yield a temporary folder beside `path`; it takes the place of `path` on success."""
    with _writing_place(path) as place:
        temporary = place / path.name
        temporary.mkdir()
        yield temporary
        _put_folder(temporary, path, place)
    _tell_of(path)


def _tell_of(path: Path) -> None:
    if PREFIX not in str(path):  # else it is a part of what is being written
        log.debug("written: %s", path)


@contextmanager
def _writing_place(path: Path) -> Iterator[Path]:
    """Yield a folder beside `path` whose name says who writes in it, for `remove_leftovers`.

    What killed processes of this machine left beside `path` goes first, since only who writes there again finds it.
    Errors of the operating system name `path`: a full disk comes without a name, and nobody knows the temporary one.
    """
    prefix = f"{PREFIX}{platform.node()}-{os.getpid()}-"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if (place := path.parent.absolute()) not in TIDY:
            TIDY.add(place)
            remove_leftovers(place, f"{platform.node()}-")
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=prefix) as folder:
            yield Path(folder)
    except OSError as error:
        if error.errno is not None and (error.filename is None or PREFIX in str(error.filename)):
            error.filename, error.filename2 = str(path), None
        raise


def _put_folder(new: Path, path: Path, place: Path) -> None:
    """Rename `new` to `path`; what is there goes to `place`. A folder cannot be replaced in one step as a file can."""
    for race in range(RACES):
        with suppress(FileNotFoundError):
            os.replace(path, place / f"replaced-{race}")
        try:
            os.replace(new, path)
        except OSError:
            if not path.is_dir() or race == RACES - 1:
                raise
        else:
            return


def remove_folder(path: Path) -> None:
    """Remove a folder; a killed process leaves it whole or gone, never in part."""
    with _writing_place(path) as place:
        os.replace(path, place / path.name)


def remove_leftovers(folder: Path, start: str = "") -> None:
    """Remove what killed runs left half-written directly in `folder`; what may still be written to stays.

    Args:
        start: of the name of what is removed, after the prefix of all.
    """
    for leftover in folder.glob(f"{glob.escape(PREFIX + start)}*"):
        if not _has_a_writer(leftover):
            shutil.rmtree(leftover, ignore_errors=True)


def _has_a_writer(leftover: Path) -> bool:
    named = re.fullmatch(rf"{re.escape(PREFIX)}(.*)-(\d+)-\w+", leftover.name)
    try:
        old = time.time() - leftover.stat().st_mtime > DAY
    except FileNotFoundError:
        return False
    if named is None or old:
        return False
    if named[1] != platform.node() or os.name == "nt":
        return True  # nothing is known of the process
    try:
        os.kill(int(named[2]), 0)  # sends nothing, only asks
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # another user's process
    return True


@contextmanager
def alone(path: Path, refusal: str | None = None) -> Iterator[None]:
    """Work on what lies at `path` while no other process does that asks in this way.

    The lock is the operating system's, so that a killed process holds none.

    Args:
        refusal: what to say instead of waiting until the other process has finished.

    Raises:
        BusyError: another process is at work, and `refusal` is given.
    """
    from filelock import FileLock, Timeout

    path.parent.mkdir(parents=True, exist_ok=True)
    file = path.parent / f".{path.name}.lock"
    lock = FileLock(file)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        if refusal is not None:
            raise BusyError(f"{path}: {refusal}") from None
        log.info("%s: another process is at work on it; waiting", path)
        lock.acquire()
    try:
        yield
    finally:
        with suppress(OSError):
            file.unlink()  # while it is held: who has opened it meanwhile sees that it is gone, and opens it anew
        lock.release()


def sha256_of_files(paths: Iterable[Path]) -> str:
    """Return the sha256 (hexadecimal) over the contents of the files in the order given."""
    digest = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def sha256_of_text(text: str) -> str:
    """Return the sha256 (hexadecimal) of a text in UTF-8."""
    return hashlib.sha256(text.encode()).hexdigest()
