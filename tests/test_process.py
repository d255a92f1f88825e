from __future__ import annotations

import os
import platform
import re
import subprocess
import sys

import pytest

from autosam_net.process import SPINS

FAULTS = """
import resource, numpy
from autosam_net.process import keep_freed_memory
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
    from autosam_net import process

    monkeypatch.setattr(process.platform, "libc_ver", lambda: ("", ""))
    monkeypatch.setattr(process.ctypes, "CDLL", lambda name: pytest.fail("there is no glibc"))
    process.keep_freed_memory()


def spin_count(**environment: str) -> str | None:
    """Return how often a waiting thread of torch in a new process looks, as OpenMP tells it; None where it does not."""
    code = "from autosam_net.process import prepare_process; prepare_process(); import torch"
    own = {name: value for name, value in os.environ.items() if name not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")}
    environment = own | environment | {"OMP_DISPLAY_ENV": "VERBOSE"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    told = re.search(r"GOMP_SPINCOUNT = '(\w+)'", done.stderr)
    return told and told[1]


def test_threads_that_wait_soon_sleep_unless_the_user_says_otherwise() -> None:
    if (count := spin_count()) is None:
        pytest.skip("torch has another OpenMP than libgomp here, which does not tell")
    assert count == SPINS
    assert spin_count(GOMP_SPINCOUNT="77") == "77"
    assert spin_count(OMP_WAIT_POLICY="ACTIVE") not in (SPINS, None)
