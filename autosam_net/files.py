"""Files that appear whole or not at all, and checksums of them."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path` with the same ending; rename it to `path` on success.

    On an error the temporary file is removed and what was at `path` before stays.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".writing-") as folder:
        temporary = Path(folder) / path.name
        yield temporary
        os.replace(temporary, path)


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Yield a temporary folder beside `path`; it takes the place of `path` on success."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".writing-") as parent:
        temporary = Path(parent) / path.name
        temporary.mkdir()
        yield temporary
        if path.exists():
            os.replace(path, Path(parent) / "replaced")
        os.replace(temporary, path)


def remove_leftovers(folder: Path) -> None:
    """Remove what killed runs left half-written directly in `folder`."""
    for leftover in folder.glob(".writing-*"):
        shutil.rmtree(leftover, ignore_errors=True)


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
