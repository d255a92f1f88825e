"""What the machine has, and work on many cases at once, here or on a cluster, with a progress bar."""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from autosam_net.errors import AutosamError, UsageError
from autosam_net.memory import allowed_memory_mib, memory_limit, memory_limit_mib
from autosam_net.plugins import load_plugins, loaded_plugins

log = logging.getLogger("autosam_net")

Item = TypeVar("Item")
Result = TypeVar("Result")

CONNECTING = 10.0  # seconds
PATIENCE = 3600.0  # seconds, until the first worker of a cluster has come out of the queue
KILLED = {
    "BrokenProcessPool": "Give the machine more memory, or leave this out.",
    "TerminatedWorkerError": "Run again with fewer workers (--workers 1).",
    "KilledWorker": "Give each worker of the cluster more memory.",
}
"""Error of joblib or Dask (which need not be installed) -> cure."""

_CLUSTER: ContextVar[Any] = ContextVar("Dask client", default=None)
_ONE_AT_A_TIME = threading.Lock()  # global random numbers are seeded for each view, and the folder is the process's

TERMINAL = (0.2, 0.0)  # seconds between two states of a bar, and before the first
PLAIN = (10.0, 2.0)
SCREEN = (100, 20)  # columns and lines of a terminal that does not say, as in some containers; tqdm would show nothing
BEAT = 1.0  # seconds between two looks at a bar in which nothing is finished


def available_cores() -> int:
    """Return the number of processor cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class PlainLines:
    """A stream for tqdm where no terminal is: each state of the bar becomes a line of its own on stderr.

    Where nobody reads them any more, as when Ctrl-C has ended `tee` too, nothing is written. An error would leave
    tqdm's lock taken, and the program waiting for it for good.
    """

    def write(self, text: str) -> None:
        """Write what is visible of `text`, if anything, as a line."""
        if line := text.strip():
            with suppress(BrokenPipeError):
                sys.stderr.write(f"{line}\n")

    def flush(self) -> None:
        """Flush stderr."""
        with suppress(BrokenPipeError):
            sys.stderr.flush()


def progress(
    items: Iterable[Item],
    description: str,
    total: int,
    unit: str = "case",
    name: Callable[[Item], str] | None = None,
    brief: bool = False,
    form: str | None = None,
) -> Iterator[Item]:
    """Yield `items` behind a progress bar; off a terminal, plain lines at most every ten seconds.

    However long one item takes, the bar goes on. Nothing is shown where the logger `autosam_net` is set to let warnings
    through only, as --quiet does.

    Args:
        name: what the bar says of the item in hand.
        brief: whether the caller says what has been done, so that a bar need not stay, and short work has no lines.
        form: what a bar looks like, in tqdm's words, where its own has no sense.
    """
    from tqdm import tqdm

    terminal = sys.stderr.isatty()
    interval, delay = TERMINAL if terminal else PLAIN
    measured = terminal and min(os.get_terminal_size(sys.stderr.fileno())) > 0
    columns, lines = SCREEN if terminal and not measured else (None, None)
    bar = tqdm(
        desc=description,
        total=total,
        unit=unit,
        bar_format=form,
        ascii=not terminal,
        ncols=columns,
        nrows=lines,
        dynamic_ncols=measured,
        leave=not terminal and not brief,
        file=sys.stderr if terminal else PlainLines(),
        mininterval=interval,
        miniters=1,
        smoothing=0,  # else the rate is taken from what was finished since the bar was last shown, by `_kept_going` too
        delay=interval if brief and not terminal else delay,
        disable=log.level > logging.INFO,
    )
    begin, done = time.monotonic(), 0
    with bar, _kept_going(bar):
        for item in items:
            if name is not None:
                bar.set_postfix_str(name(item), refresh=False)
            yield item
            done += 1
            bar.update()
    if not brief:
        log.debug("%s: %d of %d %ss in %.1f s", description, done, total, unit, time.monotonic() - begin)


@contextmanager
def _kept_going(bar: Any) -> Iterator[None]:
    """Show a bar in which nothing is finished as often as one in which something is."""
    if bar.disable:
        yield
        return
    stop = threading.Event()

    def show() -> None:
        while not stop.wait(BEAT):
            shown = bar.last_print_t > bar.start_t
            if time.time() - bar.last_print_t >= (bar.mininterval if shown else bar.delay):
                bar.last_print_t = time.time()  # first, so that what is finished meanwhile is not shown, too
                bar.refresh()

    thread = threading.Thread(target=show, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


@contextmanager
def working(description: str) -> Iterator[None]:
    """Show that work goes on which cannot be counted, and for how long it has."""
    for _ in progress([None], description, 1, "step", form="{desc}: {elapsed}"):
        yield


@dataclass(frozen=True)
class Part:
    """One of several shares of a list of cases, as the tasks of a job array take them.

    Attributes:
        index: from 0, as in nnU-Net.
        count: shares in all.
    """

    index: int = 0
    count: int = 1

    def of(self, items: Sequence[Item]) -> list[Item]:
        """Return this share: every `count`-th item. All shares together are all items, each once."""
        return list(items[self.index :: self.count])


WHOLE = Part()


@contextmanager
def dask_cluster(scheduler: str) -> Iterator[None]:
    """Send the work of `map_cases` to a Dask cluster while entered, instead of to processes of this machine.

    The workers must see the same folders under the same paths, and have the same versions installed.

    Args:
        scheduler: address, such as tcp://login1:8786.

    Raises:
        UsageError: Dask is not installed here, or no scheduler answers.
    """
    try:
        from distributed import Client
    except ImportError as error:
        raise UsageError("--engine dask: Dask is not installed. Run `pip install 'autosam_net[dask]'`.") from error
    try:
        client = Client(scheduler, timeout=CONNECTING, set_as_default=False)  # type: ignore[no-untyped-call]
    except (OSError, ValueError) as error:
        raise UsageError(
            f"--scheduler {scheduler}: no Dask scheduler answers there. Start one (`dask scheduler`), and give the "
            "address that it prints."
        ) from error
    with client:
        token = _CLUSTER.set(client)
        try:
            yield
        finally:
            _CLUSTER.reset(token)


def map_cases(
    function: Callable[[Item], Result],
    items: Sequence[Item],
    description: str,
    workers: int | None = None,
    name: Callable[[Item], str] | None = None,
    memory_mib: float = 0.0,
    unit: str = "case",
) -> list[Result]:
    """Return `function(item)` for every item, in order; see `each_case`."""
    return list(each_case(function, items, description, workers, name, memory_mib, unit))


def each_case(
    function: Callable[[Item], Result],
    items: Sequence[Item],
    description: str,
    workers: int | None = None,
    name: Callable[[Item], str] | None = None,
    memory_mib: float = 0.0,
    unit: str = "case",
) -> Iterator[Result]:
    """Yield `function(item)` for every item, in order, computed by `workers` processes (default: all cores).

    An error of a worker arrives as it was raised, with its own traceback. One item or one worker runs in this process.
    Inside `dask_cluster` the cluster's workers do it, however many there are, each with the function sent to it once.

    Args:
        name: what the progress bar says of the item in hand; with several workers, of the last one that is done.
        memory_mib: that one item needs at its peak; no more processes are started than fit the memory allowed.
    """
    cluster = _CLUSTER.get()
    fitting = allowed_memory_mib() / max(memory_mib, 1.0)
    workers = int(max(1, min(workers or available_cores(), len(items), fitting)))
    if not items or (cluster is None and workers == 1):
        yield from (function(item) for item in progress(items, description, len(items), unit, name))
        return
    import joblib

    engine: dict[str, Any]
    if cluster is None:
        engine, limit, ahead = {"backend": "loky"}, memory_limit_mib() / workers, "2 * n_jobs"
    else:  # workers that come later find all work at the scheduler
        engine = {"backend": "dask", "client": cluster, "wait_for_workers_timeout": PATIENCE}
        limit, ahead = memory_limit_mib(), "all"
    job = _Job(function, os.getcwd(), loaded_plugins(), limit)
    try:
        with (
            joblib.parallel_config(**engine),
            joblib.Parallel(workers, return_as="generator", pre_dispatch=ahead) as pool,
        ):
            done = _pairs(items, lambda: pool(joblib.delayed(_do)(job, item) for item in items))
            name_of_done = None if name is None else lambda pair: name(pair[0])
            yield from (result for _, result in progress(done, description, len(items), unit, name_of_done))
    except Exception as error:
        _explain(error, description)
        raise


def _explain(error: Exception, description: str) -> None:
    """Raise a user's error in place of that of a killed process; do nothing about any other error."""
    if (cure := KILLED.get(type(error).__name__)) is not None:
        raise AutosamError(
            f"{description}: a worker process was killed, most often for want of memory. {cure}"
        ) from error


def in_own_process(function: Callable[[Item], Result], item: Item, description: str) -> Result:
    """Return `function(item)` from a new process, whose peak of memory is that of this work alone.

    Raises:
        AutosamError: the process was killed.
    """
    from concurrent.futures import ProcessPoolExecutor
    from multiprocessing import active_children, get_context

    job, others = _Job(function, os.getcwd(), loaded_plugins(), memory_limit_mib()), active_children()
    with ProcessPoolExecutor(1, get_context("spawn"), _speak_up_to, (log.level,)) as pool:
        try:
            return pool.submit(_do, job, item).result()
        except Exception as error:
            _explain(error, description)
            raise
        except (KeyboardInterrupt, SystemExit):  # of signals that may have come to this process alone
            for process in set(active_children()).difference(others):
                process.terminate()
            raise


def _speak_up_to(level: int) -> None:
    """Let a new process say on stderr what the one that started it would."""
    logging.basicConfig(format="%(message)s")
    log.setLevel(level)


def _pairs(items: Sequence[Item], start: Callable[[], Iterable[Result]]) -> Iterator[tuple[Item, Result]]:
    """Yield items with their results; the workers start when the first is asked for, behind the bar."""
    yield from zip(items, start(), strict=True)


@dataclass(frozen=True)
class _Job(Generic[Item, Result]):
    """What a worker is to do, and where it was asked for: it may be of an earlier call, and in another folder."""

    function: Callable[[Item], Result]
    folder: str
    plugins: Sequence[Path]
    memory_mib: float

    def __sizeof__(self) -> int:
        """Return a size from which joblib's Dask backend sends an argument to each worker once, not with each item.

        There it stays, with all that the function has loaded.
        """
        return 1 << 20

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        import cloudpickle

        return _unpack, (cloudpickle.dumps(self.function), self.folder, self.plugins, self.memory_mib)


def _unpack(function: bytes, folder: str, plugins: Sequence[Path], memory_mib: float) -> _Job[Any, Any]:
    """Return a job in a worker; what plugins define must be known there before the function is unpacked."""
    import cloudpickle

    load_plugins(plugins)
    return _Job(cloudpickle.loads(function), folder, plugins, memory_mib)


def _do(job: _Job[Item, Result], item: Item) -> Result:
    """Return the job's function of an item, in a worker; one at a time, since not all of it is fit for threads."""
    with _ONE_AT_A_TIME, memory_limit(job.memory_mib):
        os.chdir(job.folder)
        return job.function(item)
