"""What all commands share: exit codes, one-line errors, and signals that leave no trace."""

from __future__ import annotations

import argparse
import errno
import logging
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules

import pytest

import autosam_net.commands
from autosam_net import parallel
from autosam_net.commands.cli import (
    add_parts,
    add_resources,
    folders_of,
    load_libraries,
    log,
    new_parser,
    part_of,
    run,
)
from autosam_net.errors import DatasetError
from autosam_net.jsonio import write_json


def run_command(main: Callable[[argparse.Namespace], None]) -> int:
    return run(main, new_parser("for tests"), [])


def fail_with(error: BaseException) -> Callable[[argparse.Namespace], None]:
    def fail(_: argparse.Namespace) -> None:
        raise error

    return fail


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (DatasetError("case1: no label file. Add it."), 2, "case1: no label file. Add it."),
        (KeyboardInterrupt(), 130, "interrupted; what was finished is kept"),
        (OSError(errno.ENOSPC, "No space left on device", "a.npy"), 2, "a.npy: No space left on device"),
        (PermissionError(errno.EACCES, "Permission denied", "/results"), 2, "/results: Permission denied"),
    ],
)
def test_what_is_not_our_fault_is_one_line(
    capsys: pytest.CaptureFixture[str], error: BaseException, code: int, message: str
) -> None:
    assert run_command(fail_with(error)) == code
    line = capsys.readouterr().err
    assert message in line
    assert line.count("\n") == 1


@pytest.mark.parametrize("error", [ValueError("wrong"), OSError(errno.EBADF, "Bad file descriptor")])
def test_our_own_faults_keep_their_traceback(error: Exception) -> None:
    with pytest.raises(type(error)):
        run_command(fail_with(error))


@pytest.mark.parametrize("length", [3, 1_000_000])
def test_it_ends_without_a_word_where_nobody_reads(length: int) -> None:
    program = "import sys; from autosam_net.commands.cli import new_parser, run\n"
    program += f"sys.exit(run(lambda _: print('x' * {length}), new_parser('for tests'), []))"
    words = [sys.executable, "-c", program]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(300) == 141


def test_a_broken_pipe_that_is_not_ours_is_a_fault() -> None:
    with pytest.raises(BrokenPipeError):
        run_command(fail_with(BrokenPipeError()))


def test_sigterm_unwinds_and_the_old_handler_comes_back() -> None:
    before = signal.getsignal(signal.SIGTERM)
    unwound = []

    def terminated(_: argparse.Namespace) -> None:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            signal.pause()
        finally:
            unwound.append(True)

    with pytest.raises(SystemExit) as exit_:
        run_command(terminated)
    assert exit_.value.code == 128 + signal.SIGTERM
    assert unwound
    assert signal.getsignal(signal.SIGTERM) == before


def test_a_command_runs_in_any_thread() -> None:
    codes: list[int] = []
    thread = threading.Thread(target=lambda: codes.append(run_command(lambda _: None)))
    thread.start()
    thread.join()
    assert codes == [0]


@pytest.fixture
def level_restored() -> Iterator[None]:
    before = log.level
    yield
    log.setLevel(before)


@pytest.mark.usefixtures("level_restored")
@pytest.mark.parametrize(("flags", "said"), [([], True), (["--verbose"], True), (["--quiet"], False)])
def test_quiet_leaves_progress_and_notices_out(
    flags: list[str], said: bool, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parallel, "PLAIN", (0.0, 0.0))

    def work(_: argparse.Namespace) -> None:
        assert list(parallel.progress([1, 2], "predict", 2)) == [1, 2]
        assert log.isEnabledFor(logging.INFO) == said and log.isEnabledFor(logging.WARNING)
        print("the result")

    assert run(work, new_parser("for tests"), flags) == 0
    output = capsys.readouterr()
    assert output.out == "the result\n"
    assert ("predict" in output.err) == said


@pytest.mark.usefixtures("level_restored")
@pytest.mark.parametrize("flags", [[], ["--verbose"]])
def test_verbose_says_what_is_done_and_where_an_error_came_from(
    flags: list[str], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def work(arguments: argparse.Namespace) -> None:
        assert list(parallel.progress([1, 2], "predict", 2)) == [1, 2]
        write_json(folders_of(arguments).results / "run.json", {})
        try:
            int("x")
        except ValueError as error:
            raise DatasetError("case1: no number") from error

    assert run(work, new_parser("for tests"), [*flags, "--root", str(tmp_path)]) == 2
    details = ["--verbose --root", "predict: 2 of 2 cases in ", f"results: {tmp_path / 'results'} (--root)"]
    details += [f"written: {tmp_path / 'results' / 'run.json'}", "invalid literal for int()", "Traceback"]
    assert [detail in caplog.text for detail in details] == [bool(flags)] * len(details)


def test_loading_libraries_is_shown(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parallel, "PLAIN", (0.0, 0.0))
    monkeypatch.delitem(sys.modules, "this", raising=False)
    load_libraries("this")
    assert "this" in sys.modules
    assert "load PyTorch" in capsys.readouterr().err


@pytest.mark.parametrize("name", [module.name for module in iter_modules(autosam_net.commands.__path__)])
def test_what_computes_on_a_device_shows_that_it_loads_libraries(name: str) -> None:
    command = vars(import_module(f"autosam_net.commands.{name}"))
    assert name == "cli" or "load_libraries" in command or "device_of" not in command


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        new_parser("for tests").parse_args(["--version"])
    assert exit_.value.code == 0
    assert capsys.readouterr().out.startswith("autosam_net ")


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--workers", "0"], "--workers 0: give 1 or more"),
        (["--max-memory", "0"], "--max-memory 0: give a number above 0, in GiB"),
        (["--engine", "dask"], "--engine dask and --scheduler ADDRESS go together"),
        (["--scheduler", "tcp://here:1"], "--engine dask and --scheduler ADDRESS go together"),
        (["--num-parts", "2", "--part-id", "2"], "--part-id 2 of --num-parts 2: give 0 to 1"),
        (["--part-id", "-1"], "--part-id -1 of --num-parts 1: give 0 to 0"),
    ],
)
def test_resources_that_cannot_be_are_refused(words: list[str], reason: str, capsys) -> None:
    parser = new_parser("for tests")
    add_parts(parser)
    add_resources(parser)
    assert run(lambda arguments: print(part_of(arguments)), parser, words) == 2
    assert reason in capsys.readouterr().err
