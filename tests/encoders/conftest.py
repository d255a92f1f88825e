"""Encoders small enough for quick tests, with checkpoints in the published layout."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from autosam_net.encoders.catalog import ENCODERS, EncoderEntry, WeightsSource


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return an empty folder that takes the place of the user's cache of weights."""
    folder = tmp_path / "cache"
    monkeypatch.setattr("autosam_net.encoders.weights.weights_folder", lambda: folder)
    return folder


@pytest.fixture
def register(monkeypatch: pytest.MonkeyPatch) -> Callable[[EncoderEntry], None]:
    """Return a function that registers an encoder until the end of the test."""

    def enter(entry: EncoderEntry) -> None:
        monkeypatch.setitem(ENCODERS._entries, entry.name, entry)

    return enter


@pytest.fixture
def toy(tmp_path: Path, register: Callable[[EncoderEntry], None]) -> EncoderEntry:
    """Return a registered encoder: a convolution with stride 8 and a batch norm."""

    def network() -> nn.Module:
        return nn.Sequential(nn.Conv2d(3, 256, 8, 8), nn.BatchNorm2d(256))

    def build(input_size: int, weights: dict[str, torch.Tensor]) -> nn.Module:
        toy = network()
        toy.load_state_dict(dict(weights))
        return toy

    torch.manual_seed(0)
    state = {f"image_encoder.{key}": value for key, value in network().state_dict().items()}
    state["mask_decoder.iou_token.weight"] = torch.ones(1, 256, dtype=torch.float64)
    state["prompt_encoder.not_a_point_embed.weight"] = torch.ones(1, 256)
    torch.save(state, tmp_path / "toy.pth")
    entry = EncoderEntry(
        name="toy",
        architecture="toy",
        build=build,
        input_size=64,
        multiple=16,
        stride=8,
        weights=WeightsSource("toy.pth", sha256=None, size=0),
        parameters=0.05,
        gflop=0.01,
        description="for tests",
        pixel_range=255.0,
        pixel_mean=(100.0, 110.0, 120.0),
        pixel_std=(50.0, 60.0, 70.0),
    )
    register(entry)
    return entry


@pytest.fixture
def toy_weights(toy: EncoderEntry, tmp_path: Path) -> Path:
    """Return the toy's checkpoint."""
    return tmp_path / "toy.pth"
