from __future__ import annotations

import pytest

from benchmarks.memory import peak_memory


def test_the_peak_is_that_of_the_command() -> None:
    small, large = (peak_memory("python", "-c", f"bytearray({size} * 2**20)") for size in (1, 200))
    assert small < 100
    assert 150 < large - small < 250


def test_a_command_that_fails_says_why() -> None:
    with pytest.raises(RuntimeError, match="No module named nothing_of_the_kind"):
        peak_memory("python", "-m", "nothing_of_the_kind")
