"""What the machine has, and work on many cases at once, with a progress bar and errors that name the case."""

from __future__ import annotations

import functools
import logging
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

from autosam_net.errors import AutosamError
from autosam_net.plugins import load_plugins, loaded_plugins

log = logging.getLogger("autosam_net")

Item = TypeVar("Item")
Result = TypeVar("Result")

TERMINAL = (0.2, 0.0)  # seconds between two states of a bar, and before the first
PLAIN = (10.0, 2.0)


def available_cores() -> int:
    """Return the number of processor cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


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


def demand_memory(mib: float, what: str, cure: str) -> None:
    """Refuse what cannot fit into the main memory, before it takes all of it.

    Args:
        what: takes so much; the beginning of the message.

    Raises:
        AutosamError: it does not fit.
    """
    free = free_memory_mib()
    if 0 < free < mib:
        raise AutosamError(f"{what} takes {mib:.0f} MiB of memory, {free:.0f} MiB are free. {cure}")


class PlainLines:
    """A stream for tqdm where no terminal is: each state of the bar becomes a line of its own on stderr."""

    def write(self, text: str) -> None:
        """Write what is visible of `text`, if anything, as a line."""
        if line := text.strip():
            sys.stderr.write(f"{line}\n")

    def flush(self) -> None:
        """Flush stderr."""
        sys.stderr.flush()


def progress(
    items: Iterable[Item],
    description: str,
    total: int,
    unit: str = "case",
    name: Callable[[Item], str] | None = None,
) -> Iterator[Item]:
    """Yield `items` behind a progress bar; off a terminal, plain lines at most every ten seconds.

    Nothing is shown where the logger `autosam_net` is set to let warnings through only, as --quiet does.

    Args:
        name: what the bar says of the item in hand.
    """
    from tqdm import tqdm

    terminal = sys.stderr.isatty()
    interval, delay = TERMINAL if terminal else PLAIN
    bar = tqdm(
        items,
        desc=description,
        total=total,
        unit=unit,
        ascii=not terminal,
        dynamic_ncols=terminal,
        leave=not terminal,
        file=sys.stderr if terminal else PlainLines(),
        mininterval=interval,
        delay=delay,
        disable=log.level > logging.INFO,
    )
    for item in bar:
        if name is not None:
            bar.set_postfix_str(name(item), refresh=False)
        yield item


def map_cases(
    function: Callable[[Item], Result],
    items: Sequence[Item],
    description: str,
    workers: int | None = None,
    name: Callable[[Item], str] | None = None,
) -> list[Result]:
    """Return `function(item)` for every item, in order, computed by `workers` processes (default: all cores).

    An error of a worker arrives as it was raised, with its own traceback. One item or one worker runs in this process.

    Args:
        name: what the progress bar says of the item in hand; with several workers, of the last one that is done.
    """
    workers = min(workers or available_cores(), len(items))
    if workers <= 1:
        return [function(item) for item in progress(items, description, len(items), name=name)]
    import joblib

    try:
        with joblib.Parallel(n_jobs=workers, return_as="generator") as pool:
            call = joblib.delayed(functools.partial(_call_as_here, function, os.getcwd(), loaded_plugins()))
            done = zip(items, pool(call(item) for item in items), strict=True)
            name_of_done = None if name is None else lambda pair: name(pair[0])
            return [result for _, result in progress(done, description, len(items), name=name_of_done)]
    except joblib.externals.loky.process_executor.TerminatedWorkerError as error:
        raise AutosamError(
            f"{description}: a worker process was killed, most often for want of memory. "
            "Run again with fewer workers (--workers 1)."
        ) from error


def _call_as_here(function: Callable[[Item], Result], folder: str, plugins: Sequence[Path], item: Item) -> Result:
    """Return `function(item)`, called in a worker, which may be of an earlier call and in another folder by then."""
    os.chdir(folder)
    load_plugins(plugins)
    return function(item)
