"""What all commands share: flags, messages and exit codes."""

from __future__ import annotations

import argparse
import errno
import logging
import os
import platform
import re
import select
import shlex
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from importlib import import_module
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, NoReturn

from autosam_net.device import choose_device
from autosam_net.errors import AutosamError, UsageError
from autosam_net.memory import demand_memory, memory_limit
from autosam_net.parallel import Part, dask_cluster, working
from autosam_net.paths import Folders, find_folders, folder_origins
from autosam_net.plugins import load_plugins
from autosam_net.process import prepare_process
from autosam_net.registry import suggest

if TYPE_CHECKING:
    from autosam_net.data.plan import Plan

log = logging.getLogger("autosam_net")
SHARED = ("root", "plugin", "verbose", "quiet", "version")
SPACE = "Free some space, or choose a folder on another disk (--root)"
PERMISSION = "Give yourself the permission, or choose another folder (--root)"
VERBOSE = "also say what is read and written, how long each step took, and where an error came from"
CURES = {
    errno.ENOSPC: SPACE,
    errno.EDQUOT: SPACE,
    errno.EFBIG: "Raise the limit (ulimit -f), or choose another file system (--root)",
    errno.EACCES: PERMISSION,
    errno.EPERM: PERMISSION,
    errno.EROFS: PERMISSION,
    errno.EMFILE: "Raise the limit of open files (ulimit -n)",
    errno.EIO: "Check the disk",
}
"""What helps against refusals of the operating system, which a traceback does not explain."""


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one line, with the nearest flag for a mistyped one."""

    def error(self, message: str) -> NoReturn:
        """Print the error and exit with 2."""
        mistyped = re.search(r"unrecognized arguments: (--?[A-Za-z][\w-]*)", message)
        flags = dict.fromkeys(re.findall(r"(?<![\w-])--?[A-Za-z][\w-]*", self.format_help()))
        hint = f" ({suggest(mistyped[1], flags)})" if mistyped else ""
        self.exit(2, f"{self.prog}: {message}{hint}. See {self.prog} --help.\n")


class _OwnFlagsFirst(argparse.HelpFormatter):
    """Leaves the flags that all commands share out of the usage; they stand below, after the command's own."""

    def add_usage(self, usage: str | None, actions: Iterable[argparse.Action], *others: Any, **named: Any) -> None:
        super().add_usage(usage, [action for action in actions if action.dest not in SHARED], *others, **named)


def new_parser(description: str, *, root: bool = True) -> argparse.ArgumentParser:
    """Return a parser with the flags that every command has; abbreviated flags are refused."""
    parser = Parser(description=description, allow_abbrev=False, formatter_class=_OwnFlagsFirst)
    shared = parser.add_argument_group("every command")
    if root:
        place = "folder with raw/, preprocessed/ and results/ (default: as the environment says, see autosam_doctor)"
        shared.add_argument("--root", type=Path, metavar="FOLDER", help=place)
    plugin = "Python file that registers heads, readers ...; may be given several times"
    shared.add_argument("--plugin", type=Path, action="append", default=[], metavar="FILE", help=plugin)
    shared.add_argument("--verbose", action="store_true", help=VERBOSE)
    shared.add_argument(
        "--quiet", action="store_true", help="no progress and no notices: results, warnings and errors only"
    )
    shared.add_argument("--version", action=_ShowVersion, nargs=0, help="show the version and exit")
    return parser


class _ShowVersion(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> NoReturn:
        from importlib.metadata import version  # 30 ms, a third of the start of --help

        print(f"autosam_net {version('autosam_net')}")
        parser.exit()


def run(main: Callable[[argparse.Namespace], None], parser: argparse.ArgumentParser, argv: list[str] | None) -> int:
    """Parse, run `main`, and return the exit code: 0, 2 for a user's error, 130 for Ctrl-C.

    A user's error is one line on stderr; a fault of the program keeps its traceback. SIGTERM ends with 143, and where
    nobody reads what is said any more, as after `| head`, it ends with 141 and without a word.
    """
    arguments = parser.parse_args(argv)
    level = logging.DEBUG if arguments.verbose else logging.WARNING if arguments.quiet else logging.INFO
    logging.basicConfig(level=logging.WARNING, format="%(message)s", handlers=[_BesideBars()])
    log.setLevel(level)
    prepare_process()
    begin, words = time.monotonic(), sys.argv[1:] if argv is None else argv
    command = shlex.join([parser.prog, *words])
    log.debug("%s (Python %s, %s)", command, platform.python_version(), platform.platform())
    try:
        with _clean_exit_on_sigterm(), ExitStack() as stack:
            load_plugins(arguments.plugin)
            _enter_resources(arguments, stack)
            main(arguments)
            sys.stdout.flush()
    except AutosamError as error:
        log.debug("where it came from:", exc_info=True)
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:
        if not _nobody_reads():
            raise
        for stream in (1, 2):  # or Python tries to say what is left, and complains
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream)
        return 141
    except OSError as error:
        if error.errno not in CURES:
            raise
        log.debug("where it came from:", exc_info=True)
        line = f"{error.filename or 'a file'}: {error.strerror}; what was finished is kept. {CURES[error.errno]}."
        print(f"{parser.prog}: {line}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"{parser.prog}: interrupted; what was finished is kept", file=sys.stderr)
        return 130
    log.debug("done after %.1f s", time.monotonic() - begin)
    return 0


def _nobody_reads() -> bool:
    """Return whether stdout or stderr is a pipe without a reader."""
    poll = select.poll()
    for stream in (1, 2):
        poll.register(stream, 0)
    return any(event & select.POLLERR for _, event in poll.poll(0))


class _BesideBars(logging.Handler):
    """Writes a line to stderr without breaking into a progress bar."""

    def emit(self, record: logging.LogRecord) -> None:
        from tqdm import tqdm

        tqdm.write(self.format(record), file=sys.stderr)


@contextmanager
def _clean_exit_on_sigterm() -> Iterator[None]:
    """Let SIGTERM unwind, so that temporary files are removed; signals can be handled in the main thread only."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def leave(number: int, frame: FrameType | None) -> None:
        sys.exit(128 + number)

    previous = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous or signal.SIG_DFL)  # None: a handler that was not set from Python


def add_resources(parser: argparse.ArgumentParser, workers: str | None = "all cores") -> None:
    """Add the flags that say where cases are worked on, and in how much memory; `run` follows them.

    Args:
        workers: what --workers stands for by default; None for steps that one process does with all cores.
    """
    if workers is not None:
        parser.add_argument("--workers", type=int, metavar="N", help=f"processes (default: {workers})")
    add_memory(parser)
    parser.add_argument(
        "--engine", choices=("local", "dask"), default="local", help="work on this machine (default) or a Dask cluster"
    )
    parser.add_argument("--scheduler", metavar="ADDRESS", help="of the Dask cluster, such as tcp://login1:8786")


def add_memory(parser: argparse.ArgumentParser) -> None:
    """Add the flag that holds the main memory down; `run` follows it."""
    parser.add_argument(
        "--max-memory", type=float, metavar="GIB", help="main memory that may be used (default: what is free)"
    )


def _enter_resources(arguments: argparse.Namespace, stack: ExitStack) -> None:
    """Enter what the flags of `add_resources` ask for, where a command has them.

    Raises:
        UsageError: they contradict each other, or no cluster answers.
    """
    if (workers := getattr(arguments, "workers", None)) is not None and workers < 1:
        raise UsageError(f"--workers {workers}: give 1 or more")
    if (limit := getattr(arguments, "max_memory", None)) is not None:
        if not limit > 0:
            raise UsageError(f"--max-memory {limit:g}: give a number above 0, in GiB")
        stack.enter_context(memory_limit(1024 * limit))
    engine, scheduler = getattr(arguments, "engine", "local"), getattr(arguments, "scheduler", None)
    if (engine == "dask") != (scheduler is not None):
        raise UsageError("--engine dask and --scheduler ADDRESS go together; give both or none")
    if scheduler is not None:
        stack.enter_context(dask_cluster(scheduler))


def demand_planned_memory(plan: Plan, *steps: str) -> None:
    """Refuse steps that need more memory, as the plan expects it, than --max-memory allows.

    Raises:
        AutosamError: one does.
    """
    for step in steps:
        if (expected := plan.estimates.get(step)) is not None:
            demand_memory(f"{plan.dataset}: {step}", expected.memory_mib)


def demand_positive(arguments: argparse.Namespace, *names: str) -> None:
    """Refuse flags that were given no number above 0.

    Raises:
        UsageError: one was.
    """
    for name in names:
        if (value := getattr(arguments, name)) is not None and not value > 0:  # NaN is not
            raise UsageError(f"--{name.replace('_', '-')} {value}: give a number above 0")


def add_parts(parser: argparse.ArgumentParser) -> None:
    """Add the flags by which the tasks of a job array share the cases."""
    parser.add_argument("--num-parts", type=int, default=1, metavar="N", help="share the cases among N runs")
    parser.add_argument("--part-id", type=int, default=0, metavar="K", help="which share this run takes, 0 to N-1")


def part_of(arguments: argparse.Namespace) -> Part:
    """Return the share of the cases that --num-parts and --part-id name.

    Raises:
        UsageError: there is no such share.
    """
    index, count = arguments.part_id, arguments.num_parts
    if not 0 <= index < count:
        raise UsageError(f"--part-id {index} of --num-parts {count}: give 0 to {max(count, 1) - 1}")
    return Part(index, count)


def add_device(parser: argparse.ArgumentParser) -> None:
    """Add --device, with a GPU taken by itself where there is one."""
    parser.add_argument("--device", default="auto", metavar="NAME", help="auto (default), cpu, cuda, cuda:1, mps")


def device_of(arguments: argparse.Namespace) -> str:
    """Return the device that --device names.

    Raises:
        UsageError: torch does not know it or cannot reach it.
    """
    return choose_device(arguments.device)


def folders_of(arguments: argparse.Namespace) -> Folders:
    """Return the three folders that --root or the environment name."""
    folders = find_folders(arguments.root)
    for name, origin in folder_origins(arguments.root).items():
        log.debug("%s: %s (%s)", name, getattr(folders, name), origin)
    return folders


def load_libraries(*others: str) -> None:
    """Import PyTorch and all of ours that lies on it, behind a bar: it takes seconds, from a cold disk a minute.

    Args:
        others: modules that the command is going to need as well.
    """
    with working("load PyTorch"):
        for name in ("autosam_net.inference.validate", *others):
            import_module(name)
