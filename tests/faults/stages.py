"""Commands in processes of their own, which are killed at a chosen change of the file system, or refused it.

The processes are forked from a server that has imported everything and computed nothing, so that one takes a second.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import re
import resource
import signal
import sys
import tempfile
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

NAME = "Dataset027_ACDC"
CHANGES = {"os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.truncate"}
PASSING = ("finished", "seconds", "minutes", "peak_memory_mib", "command", "checksum")  # keys of records
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT
PRELOADED = ("autosam_net.inference.package", "monai.losses", "matplotlib.figure", "matplotlib.backends.backend_agg")
PRELOADED += ("autosam_net.training.pretrain",)
PRELOADED += ("planning.command", "dataset_conversion.acdc", "SimpleITK", "skimage.transform", "scipy.ndimage")
MAIN = {
    "convert": ("dataset_conversion.acdc", "-i source --workers 1"),
    "preprocess": ("planning.command", "-d 27 --workers 1 --device cpu"),
    "pretrain": ("autosam_net.commands.pretrain", "27 --epochs 3 --device cpu"),
    "encode": ("autosam_net.commands.encode", "-d 27 --views 2 --device cpu"),
    "train": ("autosam_net.commands.train", "27 cnn 0 --device cpu"),
    "predict": ("autosam_net.commands.predict", "-i in -o out --save_probabilities --device cpu"),
    "export": ("autosam_net.commands.export_model", "27 -o model.zip"),
}
"""Stage -> module and words of its command, in the order in which they need each other; training validates, too."""
SHARE = float(os.environ.get("AUTOSAM_SWEEP", "1"))
"""Of all kills and corruptions of a sweep, those that are tried."""


@dataclass(frozen=True)
class Fault:
    """What happens at the `change`-th change below the root: death without an `errno`, else this error from then on.

    With `largest` nothing happens but that no file grows beyond so many bytes, by the system's own limit.
    """

    change: int = 0
    errno: int | None = None
    largest: int | None = None


@dataclass(frozen=True)
class Outcome:
    """Exit code (negative: killed by that signal), what the command said on stderr, and the changes that it made."""

    code: int
    said: str
    changes: list[tuple[str, str]]

    @property
    def lines(self) -> list[str]:
        """Return the errors, each of which begins with the name of the command."""
        return [line for line in self.said.splitlines() if line.startswith(tuple(f"{name}: " for name in MAIN))]


def start(root: Path, command: str, fault: Fault | None = None, words: str | None = None) -> multiprocessing.Process:
    """Start the command of a stage in `root`, or the same command with other words."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.faults.server"])
    process = context.Process(target=_work, args=(root, command, fault, words or MAIN[command][1]))
    process.start()
    return process


def finish(root: Path, process: multiprocessing.Process, seconds: float = 900) -> Outcome:
    """Wait for a command; one that hangs fails the test."""
    process.join(seconds)
    if process.is_alive():
        process.kill()
        raise AssertionError("the command hangs")
    said, changes = (root.parent / f"{process.pid}.{kind}" for kind in ("said", "changes"))
    events = [json.loads(line) for line in changes.read_text().splitlines()]
    return Outcome(process.exitcode or 0, said.read_text(), [(event, path) for event, path in events])


def run(root: Path, command: str, fault: Fault | None = None) -> Outcome:
    """Return what became of the command of a stage."""
    return finish(root, start(root, command, fault))


def _work(root: Path, command: str, fault: Fault | None, words: str) -> None:
    os.chdir(root)
    changes, said = ((root.parent / f"{os.getpid()}.{kind}").open("w") for kind in ("changes", "said"))
    os.dup2(said.fileno(), 2)
    os.dup2(said.fileno(), 1)
    main = import_module(MAIN[command][0]).main
    _settle(root)
    sys.argv = [command]
    if fault is not None and fault.largest is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (fault.largest, fault.largest))
    else:
        _watch(root, fault, changes)
    code = main([*words.split(), "--root", "."])
    sys.stdout.flush()
    os._exit(code)


def _settle(root: Path) -> None:
    """Use the tiny encoder, and the tests' plan in place of one that depends on the speed of this machine."""
    import torch

    import autosam_net.training.pretrain
    import planning.command
    from autosam_net.encoders.catalog import EncoderEntry, WeightsSource, register_encoder
    from tests.support import TINY, build_tiny, tiny_plan

    torch.set_num_threads(1)
    weights = root.parent / "tiny.pth"
    source = WeightsSource(file="tiny.pth", sha256=None, size=weights.stat().st_size)
    register_encoder(EncoderEntry(TINY, "tiny", build_tiny, 64, 16, 4, source, 0.01, 0.01, "for tests", channels=32))
    planning.command.new_plan = lambda dataset, *_, **__: tiny_plan(dataset, weights)
    autosam_net.training.pretrain.ITERATIONS = 2
    os.environ |= {"autosam_encoders": str(root / "encoders")}
    tempfile.tempdir = str(root.parent)  # what a killed process leaves behind goes with the test's folder


def _watch(root: Path, fault: Fault | None, log: Any) -> None:
    count = 0

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal count
        if event not in CHANGES and not (event == "open" and arguments[2] & WRITING):
            return
        path = str(arguments[0])
        if not isinstance(arguments[0], (str, bytes, os.PathLike)) or not _is_below(path, root):
            return
        log.write(json.dumps([event, path]) + "\n")
        log.flush()
        count += 1
        if fault is not None and fault.errno is None and count == fault.change:
            os.kill(os.getpid(), signal.SIGKILL)
        if fault is not None and fault.errno is not None and count >= fault.change and event in ("open", "os.mkdir"):
            raise OSError(fault.errno, os.strerror(fault.errno), path)

    sys.addaudithook(hook)


def _is_below(path: str, root: Path) -> bool:
    return os.path.abspath(path).startswith(f"{root}/")


def content(root: Path) -> dict[str, bytes]:
    """Return path -> content of every file, without what differs from run to run: times and what depends on them."""
    files = [file for file in sorted(root.rglob("*")) if _counts(file)]
    return {str(file.relative_to(root)): _lasting(file).replace(bytes(root), b"ROOT") for file in files}


def _counts(file: Path) -> bool:
    return file.is_file() and file.name != "checkpoint.safetensors" and not file.name.endswith(".lock")


def _lasting(file: Path) -> bytes:
    if file.name == "run.json" or (file.parent.name == "encoders" and file.suffix == ".json"):
        record = json.loads(file.read_text())
        return json.dumps({key: value for key, value in record.items() if key not in PASSING}).encode()
    if file.name == "training_log.csv":
        rows = [line.split(",") for line in file.read_text().splitlines()]
        seconds = rows[0].index("seconds")
        return "\n".join(",".join(row[:seconds] + row[seconds + 1 :]) for row in rows).encode()
    if file.name == "MODEL_CARD.md":
        return re.sub(r"\d+\.\d+ min|\| *\d+\.\d+ *\|\n", "", file.read_text()).encode()
    return file.read_bytes()


def preload() -> None:
    """Import what the commands import when they need it; called once, in the server."""
    for name in (*PRELOADED, *(module for module, _ in MAIN.values())):
        import_module(name)
