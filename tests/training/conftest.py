"""Checkpoints of every encoder in its published layout."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from segment_anything import sam_model_registry
from segment_anything.build_sam import _build_sam
from torch import nn

from autosam_net.encoders.tiny_vit import TinyViT
from tests.support import VITS


def small_sam(depth: int, width: int) -> nn.Module:
    sam = _build_sam(width, depth, encoder_num_heads=2, encoder_global_attn_indexes=[depth - 1], checkpoint=None)
    for parameter in sam.parameters():
        nn.init.normal_(parameter, std=0.05)  # positions start at zero
    return sam


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Path | None]]:
    """Return encoder -> a checkpoint in its published layout, the ViTs at reduced depth; None for LiteMedSAM's own.

    While a module's tests run, segment-anything builds ViTs of that depth.
    """
    folder = tmp_path_factory.mktemp("checkpoints")
    files: dict[str, Path | None] = {"lite_medsam": None}
    with pytest.MonkeyPatch.context() as patch:
        for name, (depth, width) in VITS.items():
            torch.manual_seed(depth)
            sam = small_sam(depth, width)
            torch.save(sam.state_dict(), folder / f"{name}.pth")
            files[name] = folder / f"{name}.pth"
            if name in sam_model_registry:
                patch.setitem(sam_model_registry, name, lambda depth=depth, width=width: small_sam(depth, width))
        state = {key: value for key, value in sam.state_dict().items() if not key.startswith("image_encoder.")}
        state |= {f"image_encoder.{key}": value for key, value in TinyViT(stem_stride=4).state_dict().items()}
        torch.save(state, folder / "mobile_sam.pt")
        yield files | {"mobile_sam": folder / "mobile_sam.pt"}
