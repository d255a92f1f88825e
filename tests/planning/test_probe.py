from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from autosam_net.data.encoding import Encoding, RgbSource
from autosam_net.data.labels import LabelSet
from autosam_net.embedding.source import BATCH
from autosam_net.errors import WeightsError
from planning.probe import (
    PREDICTING_MIB,
    TRAINING_MIB,
    _probe_tuning,
    _time,
    _time_encoder,
    probe_machine,
    probe_speed,
)
from tests.support import TINY

LABELS = LabelSet({"background": 0, "organ": 1})


def encoding(weights: Path) -> Encoding:
    return Encoding(TINY, str(weights), 64, 0.25, (RgbSource(0),) * 3, maximum_views=1, slice_budget=1, rotation=180.0)


def test_the_machine_is_described(tmp_path: Path) -> None:
    machine = probe_machine("cpu", tmp_path / "not" / "there" / "yet")
    assert machine.cores >= 1
    assert machine.disk_mib > 0
    assert machine.gpu_memory_mib == 0
    assert not machine.has_gpu
    assert not (tmp_path / "not").exists()


def test_encoder_and_heads_are_timed(tmp_path: Path, tiny_weights: Path, caplog: pytest.LogCaptureFixture) -> None:
    state = torch.get_rng_state()
    probe = probe_speed(probe_machine("cpu", tmp_path), encoding(tiny_weights), LABELS)
    assert 0 < probe.seconds_per_input < 5
    assert {"cnn", "linear", "unet"} <= set(probe.recipes)
    assert (probe.recipes["cnn"].encoder, probe.recipes["unet"].encoder) == (None, "image")
    assert set(probe.recipes) == set(probe.seconds_per_iteration) == set(probe.memory_mib) - {"encode"}
    assert all(seconds > 0 for seconds in probe.seconds_per_iteration.values())
    assert torch.equal(torch.get_rng_state(), state)
    assert "vit" not in probe.recipes  # the tiny checkpoint has no mask decoder
    assert "no configuration for head vit" in caplog.text
    assert probe.tuned is None  # it has no blocks that could get updates


def test_the_memory_of_libraries_and_cases_comes_on_top(
    tmp_path: Path, tiny_weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("autosam_net.training.manifest.peak_memory_mib", lambda device: 1000.0)
    probe = probe_speed(probe_machine("cpu", tmp_path), encoding(tiny_weights), LABELS)
    predicting, *training = probe.memory_mib.values()
    assert predicting == 1000.0 + PREDICTING_MIB
    assert set(training) == {1000.0 + TRAINING_MIB}
    assert not probe.gpu_memory_mib
    with_gpu = replace(probe_machine("cpu", tmp_path), gpu_memory_mib=8e3)
    probe = probe_speed(with_gpu, encoding(tiny_weights), LABELS)
    assert probe.gpu_memory_mib == dict.fromkeys(probe.memory_mib, 1000.0)  # nothing comes on top of the GPU's
    assert probe.memory_mib["encode"] == 1000.0 + PREDICTING_MIB


def test_waiting_counts_on_a_gpu_and_not_on_a_cpu_which_other_programs_may_hold(tmp_path: Path) -> None:
    machine = probe_machine("cpu", tmp_path)
    assert _time(lambda: time.sleep(0.3), machine) < 0.1
    assert _time(lambda: time.sleep(0.3), replace(machine, device="mps")) >= 0.3

    def work() -> None:
        end = time.thread_time() + 0.1
        while time.thread_time() < end:
            pass

    assert 0.1 <= _time(work, machine) < 0.2


def test_an_encoder_is_timed_on_a_gpu_too_small_for_a_whole_batch(tmp_path: Path) -> None:
    sizes = []

    class Cramped(torch.nn.Module):
        input_size = 8

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            sizes.append(len(images))
            if len(images) > 1:
                raise torch.cuda.OutOfMemoryError
            return images

    assert _time_encoder(Cramped(), probe_machine("cpu", tmp_path)) > 0
    assert sizes[0] == BATCH["cpu"] and sizes.count(1) >= BATCH["cpu"]


def test_missing_weights_are_an_error_of_planning(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="no such file"):
        probe_speed(probe_machine("cpu", tmp_path), encoding(tmp_path / "none.pth"), LABELS)


def test_an_encoder_that_learns_is_timed_and_takes_more_memory(tmp_path: Path) -> None:
    plain = Encoding("lite_medsam", None, 64, 0.25, (RgbSource(0),) * 3, maximum_views=1, slice_budget=1, rotation=0.0)
    tuned = _probe_tuning(plain, probe_machine("cpu", tmp_path), base_mib=100.0)
    assert tuned is not None and tuned.seconds_per_input > 0
    full, lora, adapter = (tuned.memory_mib[f"encoder+head:{how}"] for how in ("full", "lora", "adapter"))
    assert full > lora > 100 and full > adapter > 100
