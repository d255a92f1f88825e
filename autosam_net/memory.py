"""Main memory: what is free, what the user allows, and what the steps hold at their peak."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

from autosam_net.errors import AutosamError

MIB = 2**20
PROCESS_MIB = 250.0  # of a process with all that preprocessing imports
ENCODING_MIB = 1750.0  # of a process with torch and the default encoder, where no plan says it
CHANNEL_BYTES = 20  # of a raw voxel and channel: a file of float64, twice on reading, and the float32 it becomes
EVALUATING_MIB = 900.0  # of a process with the library of distances, which imports torch
LABEL_BYTES = 16  # of a raw voxel while its label map is read, resampled or measured
EXPORT_BYTES = 12  # of a raw voxel: label map, its components, maps of uncertainty, and the writer's copies
SLICE_COPIES = 12  # of a slice's probabilities, all heads counted, on their way from tiles to labels

_LIMIT: ContextVar[float] = ContextVar("memory limit in MiB", default=math.inf)


def free_memory_mib() -> float:
    """Return the main memory that programs can still get, 0 where the system does not say."""
    table = Path("/proc/meminfo")
    if not table.is_file():
        return 0.0
    lines = dict(line.split(":", 1) for line in table.read_text(encoding="utf-8").splitlines() if ":" in line)
    free = float(lines.get("MemAvailable", "0 kB").split()[0]) / 1024
    limit, used = Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")
    if limit.is_file() and used.is_file() and (text := limit.read_text(encoding="utf-8").strip()).isdigit():
        free = min(free, (int(text) - int(used.read_text(encoding="utf-8"))) / 2**20)  # a container's share
    return max(free, 0.0)


def resident_mib(highest: int) -> float:
    """Return the MiB of a `ru_maxrss`, which macOS counts in bytes and other systems in KiB."""
    return highest / MIB if sys.platform == "darwin" else highest / 1024


@contextmanager
def memory_limit(mib: float) -> Iterator[None]:
    """Hold the steps called meanwhile to `mib` of main memory: fewer processes, and no case that would need more."""
    token = _LIMIT.set(mib)
    try:
        yield
    finally:
        _LIMIT.reset(token)


def memory_limit_mib() -> float:
    """Return what the user allows, infinity where nothing is said."""
    return _LIMIT.get()


def allowed_memory_mib() -> float:
    """Return what may be planned with: what the user allows, else what is free, infinity where nobody knows."""
    return min(_LIMIT.get(), free_memory_mib() or math.inf) if math.isinf(_LIMIT.get()) else _LIMIT.get()


def demand_memory(where: str, mib: float) -> None:
    """Refuse work that needs more main memory at its peak than the user allows.

    Args:
        where: the case or the data set, and what is to be done with it.

    Raises:
        AutosamError: it does.
    """
    if mib > _LIMIT.get():
        raise AutosamError(
            f"{where} needs {mib / 1024:.1f} GiB of memory, --max-memory allows {_LIMIT.get() / 1024:.1f}. Allow more, "
            "or leave it out."
        )


def demand_free_memory(where: str, mib: float, cure: str) -> None:
    """Refuse what does not fit into the main memory that is free, before it takes all of it.

    Args:
        where: the case, and what is to be done with it.

    Raises:
        AutosamError: it does not fit.
    """
    free = free_memory_mib()
    if 0 < free < mib:
        raise AutosamError(f"{where} needs {mib / 1024:.1f} GiB of memory, {free / 1024:.1f} are free. {cure}")


def case_mib(voxels: int, channels: int = 1, labelled: bool = True) -> float:
    """Return what one process holds at its peak while it reads a case and measures or preprocesses it.

    Args:
        voxels: of the raw image, one channel counted.
    """
    return PROCESS_MIB + voxels * (CHANNEL_BYTES * channels + LABEL_BYTES * labelled) / MIB


def evaluation_mib(voxels: int) -> float:
    """Return what one process holds at its peak while it compares two label maps of so many voxels."""
    return EVALUATING_MIB + 2 * voxels * LABEL_BYTES / MIB


def prediction_mib(
    voxels: int, channels: int, preprocessed: int, probabilities: int, encoding_mib: float = ENCODING_MIB
) -> float:
    """Return what a prediction holds at its peak: that of reading, or the slices and what is made of them.

    Args:
        voxels: of the raw image, one channel counted.
        preprocessed: numbers in the preprocessed image, all channels counted.
        probabilities: of one slice, on the finer of raw and preprocessed grid: pixels times outputs times heads.
        encoding_mib: of the process with the encoder, one batch under way.
    """
    reading = CHANNEL_BYTES * channels * voxels
    writing = 4 * preprocessed + EXPORT_BYTES * voxels + 4 * SLICE_COPIES * probabilities
    return encoding_mib + max(reading, writing) / MIB
