"""What all commands share: flags, messages and exit codes."""

from __future__ import annotations

import argparse
import errno
import logging
import re
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from autosam_net.allocator import keep_freed_memory
from autosam_net.device import choose_device
from autosam_net.errors import AutosamError
from autosam_net.paths import Folders, find_folders
from autosam_net.plugins import load_plugins
from autosam_net.registry import suggest

log = logging.getLogger("autosam_net")
SHARED = ("root", "plugin", "verbose", "quiet", "version")
USERS_FAULTS = {errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS, errno.EMFILE}
"""Refusals of the operating system that a traceback does not explain: a full disk, a folder without permission."""


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
    shared.add_argument("--verbose", action="store_true", help="say more")
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

    A user's error is one line on stderr; a fault of the program keeps its traceback. SIGTERM ends with 143.
    """
    arguments = parser.parse_args(argv)
    level = logging.DEBUG if arguments.verbose else logging.WARNING if arguments.quiet else logging.INFO
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    log.setLevel(level)
    keep_freed_memory()
    try:
        with _clean_exit_on_sigterm():
            load_plugins(arguments.plugin)
            main(arguments)
    except AutosamError as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        if error.errno not in USERS_FAULTS:
            raise
        place = error.filename or "a file"
        print(f"{parser.prog}: {place}: {error.strerror}; what was finished is kept", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"{parser.prog}: interrupted; what was finished is kept", file=sys.stderr)
        return 130
    return 0


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
    return find_folders(arguments.root)
