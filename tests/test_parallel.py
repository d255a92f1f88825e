from __future__ import annotations

import fcntl
import logging
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Iterator
from multiprocessing import get_context
from pathlib import Path

import pytest

from autosam_net import parallel
from autosam_net.errors import AutosamError, DatasetError
from autosam_net.memory import free_memory_mib
from autosam_net.parallel import available_cores, each_case, map_cases, progress, working

# The functions are nested so that worker processes receive them by value: they cannot import this module.


@pytest.mark.parametrize("workers", [1, 2])
def test_results_come_in_order(workers: int) -> None:
    def square(number: int) -> int:
        return number**2

    assert map_cases(square, range(7), "squaring", workers) == [0, 1, 4, 9, 16, 25, 36]


def test_one_worker_is_this_process() -> None:
    assert map_cases(lambda _: os.getpid(), [1, 2], "asking", workers=1) == [os.getpid()] * 2
    assert map_cases(lambda _: os.getpid(), [1], "asking", workers=8) == [os.getpid()]


def test_workers_that_are_used_again_follow_into_another_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    map_cases(lambda _: os.getcwd(), [1, 2], "asking", workers=2)
    monkeypatch.chdir(tmp_path)
    assert map_cases(lambda _: os.getcwd(), [1, 2], "asking", workers=2) == [str(tmp_path)] * 2


def test_nothing_to_do() -> None:
    assert map_cases(str, [], "nothing") == []


@pytest.mark.parametrize("workers", [1, 2])
def test_an_error_arrives_as_it_was_raised(workers: int) -> None:
    def fail(name: str) -> None:
        if name == "b":
            raise DatasetError(f"{name}: label file is missing")

    with pytest.raises(DatasetError, match=r"^b: label file is missing$"):
        map_cases(fail, ["a", "b", "c"], "checking", workers)


def test_a_killed_worker_is_explained() -> None:
    def die(_: int) -> None:
        os._exit(9)

    with pytest.raises(AutosamError, match=r"reading: a worker process was killed.*--workers 1"):
        map_cases(die, [1, 2], "reading", workers=2)


def test_the_bar_names_the_item_in_hand(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parallel, "PLAIN", (0.0, 0.0))
    assert list(progress(["patient7", "patient8"], "predict", 2, name=str.upper)) == ["patient7", "patient8"]
    said = capsys.readouterr().err
    assert "PATIENT7" in said and "PATIENT8" in said


@pytest.mark.parametrize(("brief", "lines"), [(False, 3), (True, 2)])
def test_the_bar_goes_on_however_long_an_item_takes(
    brief: bool, lines: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parallel, "PLAIN", (0.06, 0.06))
    monkeypatch.setattr(parallel, "BEAT", 0.01)
    said = []
    for _ in progress(["slow"], "encode", 1, name=str, brief=brief):
        while len(said) < 2:
            said += capsys.readouterr().err.splitlines()
    said += capsys.readouterr().err.splitlines()
    assert all(re.match(r"encode: +0%.* 0/1 .*slow", line) for line in said[:2])
    assert len(said) >= lines and ("1/1" in said[-1]) != brief


def test_the_rate_is_that_of_the_work_however_often_the_bar_is_shown(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parallel, "PLAIN", (0.01, 0.0))
    monkeypatch.setattr(parallel, "BEAT", 0.1)
    for _ in progress([None] * 5, "encode", 5):
        time.sleep(0.25)
    rates = [float(rate) for rate in re.findall(r"([\d.]+)case/s", capsys.readouterr().err)]
    assert rates and max(rates) < 5  # 4, where the machine is idle


@pytest.mark.parametrize("size", [(0, 0), (24, 60)])
def test_a_terminal_shows_the_bar_at_once_and_what_is_in_hand(size: tuple[int, int]) -> None:
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("4H", *size, 0, 0))
    assert subprocess.run([sys.executable, "-c", ONE_SLOW_ITEM], stderr=slave, check=False).returncode == 0
    said = os.read(master, 10_000).decode()
    assert said.strip().startswith("predict:   0%|") and said.count("0/1") >= 2 and "patient7" in said
    os.close(master), os.close(slave)


ONE_SLOW_ITEM = """
import time
from autosam_net import parallel
parallel.log.setLevel("INFO")
parallel.BEAT = 0.1
for _ in parallel.progress(["patient7"], "predict", 1, name=str):
    time.sleep(0.5)
"""


def test_work_goes_on_where_nobody_reads_the_bar() -> None:
    program = ONE_SLOW_ITEM.replace("parallel.BEAT = 0.1", "parallel.BEAT, parallel.PLAIN = 0.1, (0.05, 0.0)")
    with subprocess.Popen([sys.executable, "-c", program], stderr=subprocess.PIPE) as process:
        assert process.stderr is not None
        process.stderr.close()
        assert process.wait(300) == 0


def test_work_that_cannot_be_counted_shows_its_time(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parallel, "PLAIN", (0.0, 0.0))
    with working("compare"):
        pass
    assert set(capsys.readouterr().err.splitlines()) == {"compare: 00:00"}


def test_short_work_needs_no_lines(capsys: pytest.CaptureFixture[str]) -> None:
    with working("compare"):
        pass
    assert list(progress([1, 2], "train", 2, brief=True)) == [1, 2]
    assert capsys.readouterr().err == ""


def test_the_bar_is_there_before_the_workers(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parallel, "PLAIN", (0.0, 0.0))
    results = each_case(str, [1, 2], "reading", workers=2)
    monkeypatch.setattr("joblib.Parallel.__call__", lambda *_: pytest.fail(capsys.readouterr().err))
    with pytest.raises(pytest.fail.Exception, match="reading"):
        next(results)


@pytest.mark.parametrize("workers", [1, 2])
def test_the_bar_of_many_cases_names_them(
    workers: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parallel, "PLAIN", (0.0, 0.0))
    assert map_cases(str, [7, 8], "reading", workers, name=lambda number: f"patient{number}") == ["7", "8"]
    said = capsys.readouterr().err
    assert "patient7" in said and "case/s" in said


def test_a_quiet_program_has_no_bar(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parallel, "PLAIN", (0.0, 0.0))
    monkeypatch.setattr(parallel.log, "level", logging.WARNING)
    assert list(progress([1, 2], "predict", 2)) == [1, 2]
    assert capsys.readouterr().err == ""


def test_there_is_a_core() -> None:
    assert available_cores() >= 1


def test_free_memory_is_known_or_zero() -> None:
    assert 0 <= free_memory_mib() < 1e8


def test_work_in_a_process_of_its_own() -> None:
    def fail(name: str) -> None:
        raise DatasetError(f"{name}: label file is missing")

    first, second = (parallel.in_own_process(lambda _: os.getpid(), None, "asking") for _ in range(2))
    assert len({os.getpid(), first, second}) == 3
    with pytest.raises(DatasetError, match=r"^b: label file is missing$"):
        parallel.in_own_process(fail, "b", "checking")
    with pytest.raises(AutosamError, match=r"checking: a worker process was killed, most often for want of memory"):
        parallel.in_own_process(lambda _: os._exit(9), "b", "checking")


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Ctrl-C interrupts, which it does not in what a script has started in the background."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_work_in_a_process_of_its_own_ends_with_this_one(tmp_path: Path) -> None:
    def work(place: Path) -> None:
        (place / "begun").touch()
        time.sleep(600)

    def interrupt() -> None:
        while not (tmp_path / "begun").exists():
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt, daemon=True)
    thread.start()
    begin = time.monotonic()
    other = get_context("spawn").Process(target=time.sleep, args=(600,), daemon=True)
    other.start()
    with pytest.raises(KeyboardInterrupt):
        parallel.in_own_process(work, tmp_path, "waiting")
    assert time.monotonic() - begin < 300
    assert other.is_alive(), "what else this process has started goes on"
    other.terminate()
