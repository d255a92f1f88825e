"""Third parties' files: run once, refused with a reason, and known to worker processes too."""

from __future__ import annotations

from pathlib import Path

import pytest

from autosam_net import plugins
from autosam_net.errors import UsageError
from autosam_net.imageio import READERS
from autosam_net.parallel import map_cases
from autosam_net.plugins import load_plugins

PLUGIN = """
from __future__ import annotations
from dataclasses import dataclass
from autosam_net.imageio import READERS, Reader

@dataclass(frozen=True)
class Settings:
    gain: float

READERS.register(".for_tests")(Reader(read=None))
"""


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a plugin that registers a reader; the registry and the list of plugins are put back afterwards."""
    monkeypatch.setattr(READERS, "_entries", dict(READERS._entries))
    monkeypatch.setattr(plugins, "_loaded", {})
    path = tmp_path / "mine.py"
    path.write_text(PLUGIN)
    return path


def test_a_file_is_run_once(plugin: Path) -> None:
    load_plugins([plugin])
    load_plugins([plugin, plugin.parent / "." / "mine.py"])  # a second run would register twice
    assert ".for_tests" in READERS


def test_worker_processes_know_what_a_plugin_registers(plugin: Path) -> None:
    load_plugins([plugin])

    def known(_: int) -> bool:  # nested, so that the worker receives it by value
        from autosam_net.imageio import READERS

        return ".for_tests" in READERS

    assert map_cases(known, [1, 2], "asking", workers=2) == [True, True]


def test_a_missing_or_strange_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"--plugin .*missing.py: no such file"):
        load_plugins([tmp_path / "missing.py"])
    (tmp_path / "notes.txt").touch()
    with pytest.raises(UsageError, match=r"notes.txt: not a Python file"):
        load_plugins([tmp_path / "notes.txt"])
