"""A request to stop is noted, and nothing of it stays behind."""

from __future__ import annotations

import os
import signal
import threading

import pytest

from autosam_net.training.signals import StopRequest


@pytest.mark.parametrize(("number", "error"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, SystemExit)])
def test_a_signal_is_noted_and_raised_when_asked(number: int, error: type[BaseException]) -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with StopRequest() as stop:
        stop.raise_if_requested()
        os.kill(os.getpid(), number)
        assert stop.signal_number == number
        with pytest.raises(error):
            stop.raise_if_requested()
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


def test_a_second_ctrl_c_stops_at_once() -> None:
    with pytest.raises(KeyboardInterrupt), StopRequest():
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)


def test_in_another_thread_signals_are_left_alone() -> None:
    seen: list[object] = []

    def enter() -> None:
        with StopRequest() as stop:
            seen.extend([stop.signal_number, signal.getsignal(signal.SIGINT)])

    before = signal.getsignal(signal.SIGINT)
    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert seen == [None, before]
