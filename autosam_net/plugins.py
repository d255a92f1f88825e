"""Third parties' heads, readers, normalisations and encoders: Python files and entry points that register them."""

from __future__ import annotations

import functools
import importlib.util
import sys
from collections.abc import Iterable
from pathlib import Path

from autosam_net.errors import UsageError

ENTRY_POINTS = "autosam_net.plugins"
_loaded: dict[Path, None] = {}


def load_plugins(files: Iterable[Path]) -> None:
    """Run the entry points of the group `autosam_net.plugins` and the Python files, each once in a process.

    Raises:
        UsageError: a file does not exist, or is no Python file.
    """
    _load_entry_points()
    for file in files:
        if not file.is_file():
            raise UsageError(f"--plugin {file}: no such file")
        if file.suffix != ".py":
            raise UsageError(f"--plugin {file}: not a Python file. Give one that ends with .py.")
        if file.resolve() not in _loaded:
            _load_file(file.resolve())
            _loaded[file.resolve()] = None


def loaded_plugins() -> tuple[Path, ...]:
    """Return the files that were run in this process, for a worker process to run them too."""
    return tuple(_loaded)


@functools.cache
def _load_entry_points() -> None:
    from importlib.metadata import entry_points

    for entry in entry_points(group=ENTRY_POINTS):
        entry.load()


def _load_file(file: Path) -> None:
    name = f"autosam_net_plugin_{file.stem}"
    specification = importlib.util.spec_from_file_location(name, file)
    assert specification is not None and specification.loader is not None, "Python files have a loader"
    module = importlib.util.module_from_spec(specification)
    sys.modules[name] = module  # dataclasses look their module up there
    specification.loader.exec_module(module)
