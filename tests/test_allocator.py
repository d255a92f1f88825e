from __future__ import annotations

import platform
import subprocess
import sys

import pytest

FAULTS = """
import resource, numpy
from autosam_net.allocator import keep_freed_memory
keep_freed_memory()
faults = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for turn in range(3):
    before = faults()
    for _ in range(10):
        numpy.ones(2**21)  # 16 MiB
    small = [numpy.ones(2**20) for _ in range(10)]
    del small
print(faults() - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc's malloc can be told")
def test_freed_memory_is_used_again() -> None:
    done = subprocess.run([sys.executable, "-c", FAULTS], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 100  # of the 240 MiB of a turn, 61 440 pages


def test_without_glibc_nothing_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    from autosam_net import allocator

    monkeypatch.setattr(allocator.platform, "libc_ver", lambda: ("", ""))
    monkeypatch.setattr(allocator.ctypes, "CDLL", lambda name: pytest.fail("there is no glibc"))
    allocator.keep_freed_memory()
