"""The device is what torch can compute on."""

from __future__ import annotations

import pytest
import torch

from autosam_net.device import choose_device
from autosam_net.errors import UsageError


@pytest.mark.parametrize(("there", "expected"), [(True, "cuda"), (False, "cpu")])
def test_a_gpu_is_taken_where_there_is_one(there: bool, expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: there)
    assert choose_device() == expected
    assert choose_device("cpu") == "cpu"


def test_what_torch_does_not_know() -> None:
    with pytest.raises(UsageError, match=r"device cudda: cannot be used \(.*\)\. Use cpu, or mend the driver\."):
        choose_device("cudda")
