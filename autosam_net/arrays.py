"""Arrays in .npy files, written so that a full disk is an error that says so."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

NO_RESERVATION = {errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS}  # of file systems that cannot reserve space


def save_array(path: Path, array: NDArray[Any]) -> None:
    """Write an array; np.save writes past Python, and its error of a full disk has lost the reason.

    Raises:
        OSError: with its reason.
    """
    with path.open("wb") as file:
        np.lib.format.write_array(SimpleNamespace(write=file.write), array, allow_pickle=False)


def new_array(path: Path, dtype: DTypeLike, shape: tuple[int, ...]) -> np.memmap[Any, np.dtype[Any]]:
    """Return a new array on disk, mapped into memory, its space reserved: else a full disk kills by a signal.

    Raises:
        OSError: there is not so much space.
    """
    array = np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=shape)
    if hasattr(os, "posix_fallocate"):
        with path.open("r+b") as file:
            try:
                os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
            except OSError as error:
                if error.errno not in NO_RESERVATION:
                    raise
    return array
