"""What all commands share: flags, messages and exit codes."""

from __future__ import annotations

import argparse
import logging
import signal
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from types import FrameType

from autosam_net.errors import AutosamError, UsageError
from autosam_net.paths import Folders, find_folders

log = logging.getLogger("autosam_net")


def new_parser(description: str, *, root: bool = True) -> argparse.ArgumentParser:
    """Return a parser with the flags that every command has; abbreviated flags are refused."""
    parser = argparse.ArgumentParser(description=description, allow_abbrev=False)
    if root:
        parser.add_argument(
            "--root", type=Path, help="folder with raw/, preprocessed/ and results/ (default: environment)"
        )
    parser.add_argument(
        "--plugin", type=Path, action="append", default=[], help="Python file that registers heads, readers, ..."
    )
    parser.add_argument("--verbose", action="store_true", help="say more")
    parser.add_argument("--quiet", action="store_true", help="say only warnings and errors")
    parser.add_argument("--version", action="version", version=f"autosam_net {version('autosam_net')}")
    return parser


def run(main: Callable[[argparse.Namespace], None], parser: argparse.ArgumentParser, argv: list[str] | None) -> int:
    """Parse, run `main`, and return the exit code: 0, 2 for a user's error, 130 for Ctrl-C.

    A user's error is one line on stderr; a fault of the program keeps its traceback.
    """
    arguments = parser.parse_args(argv)
    level = logging.DEBUG if arguments.verbose else logging.WARNING if arguments.quiet else logging.INFO
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    log.setLevel(level)
    signal.signal(signal.SIGTERM, _exit_cleanly)
    try:
        load_plugins(arguments.plugin)
        main(arguments)
    except AutosamError as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"{parser.prog}: interrupted; what was finished is kept", file=sys.stderr)
        return 130
    return 0


def _exit_cleanly(number: int, frame: FrameType | None) -> None:
    sys.exit(128 + number)  # unwinds, so that temporary files are removed


def add_device(parser: argparse.ArgumentParser) -> None:
    """Add --device, with a GPU taken by itself where there is one."""
    parser.add_argument("--device", default="auto", help="auto (default), cpu, cuda, cuda:1, mps")


def device_of(arguments: argparse.Namespace) -> str:
    """Return the device that --device names.

    Raises:
        UsageError: torch does not know it or cannot reach it.
    """
    import torch

    if arguments.device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(1, device=arguments.device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise UsageError(f"--device {arguments.device}: cannot be used ({reason}). Use --device cpu.") from error
    return str(arguments.device)


def folders_of(arguments: argparse.Namespace) -> Folders:
    """Return the three folders that --root or the environment name."""
    return find_folders(arguments.root)


def load_plugins(files: list[Path]) -> None:
    """Run the files given by --plugin and the entry points of the group `autosam_net.plugins`.

    Raises:
        UsageError: a file does not exist.
    """
    import importlib.util
    from importlib.metadata import entry_points

    for entry in entry_points(group="autosam_net.plugins"):
        entry.load()
    for file in files:
        if not file.is_file():
            raise UsageError(f"--plugin {file}: no such file")
        specification = importlib.util.spec_from_file_location(f"autosam_net_plugin_{file.stem}", file)
        assert specification is not None and specification.loader is not None
        specification.loader.exec_module(importlib.util.module_from_spec(specification))
