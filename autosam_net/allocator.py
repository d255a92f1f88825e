"""Memory that a process keeps for its next use."""

from __future__ import annotations

import ctypes
import platform

# of malloc.h
TRIM_THRESHOLD, TOP_PAD, MMAP_THRESHOLD = -1, -2, -3
MIB = 2**20


def keep_freed_memory() -> None:
    """Let glibc's malloc keep blocks of up to 32 MiB, 1 GiB together, rather than give them back at each `free`.

    An encoder's pass allocates and frees some hundred megabytes of tensors. Given back, every page of them is asked of
    the system anew, and filled with zeros: a third of the time of a pass. Larger blocks, such as volumes, still go
    back. For a whole process, thus for commands to call and not for a library; without glibc nothing is done.
    """
    if platform.libc_ver()[0] != "glibc":
        return
    libc = ctypes.CDLL(None)
    libc.mallopt(MMAP_THRESHOLD, 32 * MIB)  # the most that it takes
    libc.mallopt(TRIM_THRESHOLD, 1024 * MIB)
    libc.mallopt(TOP_PAD, 64 * MIB)
