"""How a process of ours takes memory and cores; for commands to settle, and not for a library."""

from __future__ import annotations

import ctypes
import os
import platform

# of malloc.h
TRIM_THRESHOLD, TOP_PAD, MMAP_THRESHOLD = -1, -2, -3
MIB = 2**20
SPINS = "10000"  # some tenths of a millisecond; libgomp's own 300 000 are milliseconds


def prepare_process() -> None:
    """Settle how this process, and those that it starts, use the machine; before torch is imported."""
    keep_freed_memory()
    sleep_while_waiting()


def keep_freed_memory() -> None:
    """Let glibc's malloc keep blocks of up to 32 MiB, 1 GiB together, rather than give them back at each `free`.

    An encoder's pass allocates and frees some hundred megabytes of tensors. Given back, every page of them is asked of
    the system anew, and filled with zeros: a third of the time of a pass. Larger blocks, such as volumes, still go
    back. Without glibc nothing is done.
    """
    if platform.libc_ver()[0] != "glibc":
        return
    libc = ctypes.CDLL(None)
    libc.mallopt(MMAP_THRESHOLD, 32 * MIB)  # the most that it takes
    libc.mallopt(TRIM_THRESHOLD, 1024 * MIB)
    libc.mallopt(TOP_PAD, 64 * MIB)


def sleep_while_waiting() -> None:
    """Let threads of torch that wait for the others soon sleep rather than spin, unless the environment says otherwise.

    Where another program holds a core, the thread there is late, and those that spin meanwhile keep the core from it
    and from everybody. Only libgomp, the OpenMP of torch's Linux packages, knows the variable.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", SPINS)
