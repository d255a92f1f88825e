from __future__ import annotations

import pytest
import torch

import autosam_net.heads  # noqa: F401  (registers the built-in heads)
from autosam_net.errors import PlanError
from autosam_net.heads.head import HEADS, HeadShape, build_head

SLICES = HeadShape(outputs=4, channels=3, stride=1, input_size=64)


def test_it_is_of_a_common_size_and_works_on_slices() -> None:
    head = build_head("unet", SLICES, {}, {})
    assert sum(parameter.numel() for parameter in head.parameters()) == pytest.approx(1.94e6, rel=0.01)
    assert HEADS.get("unet").recipe.encoder == "image"


def test_brightness_and_contrast_of_a_whole_slice_hardly_matter() -> None:
    torch.manual_seed(0)
    head = build_head("unet", SLICES, {"width": 4.0}, {}).eval()
    images = torch.rand(1, 3, 64, 64)
    plain, darker = head(images), head(images * 0.5)
    assert (plain - darker).norm() / plain.norm() < 0.1


def test_embeddings_and_odd_widths_are_refused() -> None:
    with pytest.raises(PlanError, match=r"takes slices, not embeddings of stride 4; .*plan.json to \"image\""):
        build_head("unet", HeadShape(4, 256, 4, 64), {}, {})
    with pytest.raises(PlanError, match=r"width is 2\.5, expected a whole number above 0"):
        build_head("unet", SLICES, {"width": 2.5}, {})
