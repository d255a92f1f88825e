from __future__ import annotations

import json
import sys

import pytest

from autosam_net.training.manifest import peak_memory_mib, run_facts


def test_the_facts_of_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["/usr/bin/autosam_train", "27", "cnn", "0", "--root", "my data"])
    facts = json.loads(json.dumps(run_facts("cpu")))
    assert facts["command"] == "autosam_train 27 cnn 0 --root 'my data'"
    assert facts["machine"]["device"] == "cpu" and facts["machine"]["name"] and facts["machine"]["cores"] >= 1
    assert facts["peak_memory_mib"]["cpu"] > 10
    assert {"python", "torch", "numpy", "autosam_net"} <= set(facts["versions"])
    assert facts["finished"].endswith("+00:00")


def test_peak_memory_only_grows() -> None:
    before = peak_memory_mib("cpu")
    held = bytearray(32 * 2**20)
    assert peak_memory_mib("cpu") >= before
    del held
