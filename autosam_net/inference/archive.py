"""Zips of plain files: equal files make equal bytes, and whatever is not exactly such a zip is refused.

Files are stored, not compressed (the weights of a head shrink by a few percent only). So what is unpacked is never
larger than the zip, whatever its headers promise, and the bytes do not depend on the version of zlib.
"""

from __future__ import annotations

import re
import shutil
import stat
import struct
from collections import Counter
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from zipfile import ZIP_STORED, BadZipFile, ZipFile, ZipInfo

from autosam_net.errors import ModelError
from autosam_net.files import atomic_file

FIRST_DATE = (1980, 1, 1, 0, 0, 0)  # that a zip can hold
UNIX = 3
ENCRYPTED = 0x1  # bit of ZipInfo.flag_bits
SAFE_PATH = re.compile(r"[\w+-][\w.+-]*(/[\w+-][\w.+-]*)*", re.ASCII)
"""No folder above, no drive, no backslash, nothing hidden, nothing that a terminal would act on."""
DAMAGED = (BadZipFile, EOFError, NotImplementedError, struct.error, UnicodeDecodeError, ValueError)
"""What zipfile raises on bytes that are no zip or a damaged one."""


def write_zip(path: Path, folder: Path) -> None:
    """Write all files below `folder` into a zip, atomically; equal files make equal bytes."""
    files = {file.relative_to(folder).as_posix(): file for file in folder.rglob("*") if file.is_file()}
    with atomic_file(path) as temporary, ZipFile(temporary, "w", ZIP_STORED) as archive:
        for name, file in sorted(files.items()):
            info = ZipInfo(name, FIRST_DATE)
            info.create_system, info.external_attr = UNIX, (stat.S_IFREG | 0o644) << 16
            info.file_size = file.stat().st_size
            with file.open("rb") as source, archive.open(info, "w") as target:
                shutil.copyfileobj(source, target, 1 << 20)


def unpack_zip(path: Path, folder: Path) -> None:
    """Unpack a zip of `write_zip` into an empty folder, after every entry has been looked at.

    Raises:
        ModelError: not a zip, a damaged one, or one with an entry that `write_zip` does not write: a path that leads
            elsewhere, a link, a folder, a compressed or encrypted file, a name twice, or more bytes than the zip has.
    """
    try:
        with ZipFile(path) as archive:
            entries = archive.infolist()
            _check_entries(path, entries)
            for entry in entries:
                target = folder / entry.filename
                target.parent.mkdir(parents=True, exist_ok=True)
                with archive.open(entry) as source, target.open("xb") as file:
                    shutil.copyfileobj(source, file, 1 << 20)  # zipfile gives no more than the size looked at
    except FileNotFoundError:
        raise ModelError(f"{path}: no such file") from None
    except DAMAGED as error:
        raise ModelError(f"{path}: not a zip, or a damaged or truncated one ({error}). Get the file again.") from error


def _check_entries(path: Path, entries: Sequence[ZipInfo]) -> None:
    for entry in entries:
        if entry.header_offset < 0:
            raise BadZipFile("an entry before its beginning")
        if problem := _problem(entry):
            name = ascii(entry.orig_filename)[:80]
            raise ModelError(f"{path}: {name} is {problem}, which no exported model has; nothing was unpacked.")
    names = Counter(entry.filename.casefold() for entry in entries)  # some file systems do not tell Aa from aA
    folders = {str(parent) for name in names for parent in PurePosixPath(name).parents}
    if twice := [name for name, count in names.items() if count > 1 or name in folders]:
        raise ModelError(f"{path}: {twice[0]!r} is in it twice, which no exported model has; nothing was unpacked.")
    unpacked, size = sum(entry.file_size for entry in entries), path.stat().st_size
    if unpacked > size:
        raise ModelError(f"{path}: {size} bytes that claim to unpack to {unpacked}; nothing was unpacked.")


def _problem(entry: ZipInfo) -> str | None:
    """Return what is wrong with an entry, if anything; the name is judged as it stands in the zip."""
    if not SAFE_PATH.fullmatch(entry.orig_filename):
        return "a path with other signs than letters, digits, _ + - . and /, or one that leads out of the folder"
    if stat.S_IFMT(entry.external_attr >> 16) not in (0, stat.S_IFREG):
        return "a link or another special file"
    if entry.flag_bits & ENCRYPTED:
        return "encrypted"
    if entry.compress_type != ZIP_STORED or entry.compress_size != entry.file_size:
        return "compressed"
    return None
