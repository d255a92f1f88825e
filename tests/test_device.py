"""The device is what torch can compute on."""

from __future__ import annotations

import pytest
import torch

from autosam_net.device import choose_device, drawing_processes
from autosam_net.errors import UsageError


@pytest.mark.parametrize(("there", "expected"), [(True, "cuda"), (False, "cpu")])
def test_a_gpu_is_taken_where_there_is_one(there: bool, expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: there)
    assert choose_device() == expected
    assert choose_device("cpu") == "cpu"


def test_what_torch_does_not_know() -> None:
    with pytest.raises(UsageError, match=r"device cudda: cannot be used \(.*\)\. Use cpu, or mend the driver\."):
        choose_device("cudda")


@pytest.mark.parametrize(
    ("name", "sharing", "processes"), [("cpu", 1, 0), ("cpu:0", 1, 0), ("cuda:1", 1, 7), ("cuda", 2, 3), ("cuda", 9, 1)]
)
def test_cores_draw_inputs_where_the_network_leaves_them_idle(
    name: str, sharing: int, processes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("autosam_net.device.available_cores", lambda: 7)
    assert drawing_processes(name, sharing) == processes
