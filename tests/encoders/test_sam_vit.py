from __future__ import annotations

from pathlib import Path

import pytest
import torch
from segment_anything import sam_model_registry
from segment_anything.build_sam import _build_sam
from segment_anything.modeling import Sam
from segment_anything.modeling.image_encoder import get_rel_pos

from autosam_net.encoders.encoder import load_encoder
from autosam_net.encoders.sam_vit import resize_absolute, resize_relative
from autosam_net.errors import WeightsError


def build_small(checkpoint: None = None) -> Sam:
    """Return SAM with a ViT of 2 blocks (windows, then global) of 32 channels; every name as in the published files."""
    return _build_sam(32, encoder_depth=2, encoder_num_heads=2, encoder_global_attn_indexes=[1], checkpoint=checkpoint)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> Sam:
    monkeypatch.setitem(sam_model_registry, "vit_b", build_small)
    torch.manual_seed(0)
    sam = build_small()
    with torch.no_grad():
        sam.image_encoder.pos_embed.normal_()
        for block in sam.image_encoder.blocks:
            block.attn.rel_pos_h.normal_()
            block.attn.rel_pos_w.normal_()
    return sam


@pytest.fixture
def checkpoint(small: Sam, tmp_path: Path) -> Path:
    torch.save(small.state_dict(), tmp_path / "sam.pth")
    return tmp_path / "sam.pth"


def test_at_full_size_the_output_is_sams(small: Sam, checkpoint: Path) -> None:
    image = torch.rand(1, 3, 1024, 1024)
    encoder = load_encoder("vit_b", weights=checkpoint, precision="float32")
    with torch.no_grad():
        expected = small.image_encoder(small.preprocess(image * 255))
    assert torch.allclose(encoder(image), expected, atol=1e-4)


def test_medsam_takes_images_as_they_are(checkpoint: Path) -> None:
    image = torch.rand(1, 3, 64, 64)
    network = load_encoder("vit_b", 64, checkpoint, precision="float32").network
    assert torch.allclose(load_encoder("medsam", 64, checkpoint, precision="float32")(image), network(image), atol=1e-5)


@pytest.mark.parametrize("size", [64, 224, 448])
def test_smaller_inputs(small: Sam, checkpoint: Path, size: int) -> None:
    image = torch.rand(2, 3, size, size)
    encoder = load_encoder("vit_b", size, checkpoint, precision="float32")
    found = encoder(image)
    assert found.shape == (2, 256, size // 16, size // 16)
    # SAM's own blocks interpolate the relative positions at every pass; only the absolute ones are ours to fit
    with torch.no_grad():
        small.image_encoder.pos_embed.set_(resize_absolute(small.image_encoder.pos_embed.detach(), size // 16))
        pixels = (image * 255 - small.pixel_mean) / small.pixel_std
        assert torch.allclose(found, small.image_encoder(pixels), atol=1e-4)


def test_positions_are_unchanged_at_their_own_size() -> None:
    absolute, relative = torch.rand(1, 64, 64, 8), torch.rand(127, 8)
    assert resize_absolute(absolute, 64) is absolute
    assert resize_relative(relative, 64) is relative


@pytest.mark.parametrize("grid", [14, 28, 32])
def test_resized_positions_keep_their_meaning(grid: int) -> None:
    ramp = torch.linspace(0, 1, 64).view(1, 64, 1, 1).expand(1, 64, 64, 2).contiguous()
    resized = resize_absolute(ramp, grid)
    assert resized.shape == (1, grid, grid, 2)
    centres = (torch.arange(grid) + 0.5) / grid * 64 / 63 - 0.5 / 63
    assert torch.allclose(resized[0, 2:-2, 0, 0], centres[2:-2], atol=0.01)
    relative = torch.rand(127, 8)
    resized = resize_relative(relative, grid)
    distance = torch.arange(grid)[:, None] - torch.arange(grid)[None] + grid - 1
    assert torch.allclose(resized[distance], get_rel_pos(grid, grid, relative), atol=1e-6)


def test_a_checkpoint_with_a_missing_or_an_extra_name_is_refused(small: Sam, tmp_path: Path) -> None:
    for change in ("missing", "extra"):
        state = small.state_dict()
        if change == "missing":
            del state["image_encoder.blocks.1.attn.rel_pos_h"]
        else:
            state["image_encoder.blocks.2.norm1.weight"] = torch.zeros(32)
        torch.save(state, tmp_path / "sam.pth")
        with pytest.raises(WeightsError, match="not weights of vit_b"):
            load_encoder("vit_b", weights=tmp_path / "sam.pth")


def test_the_decoder_is_handed_on(checkpoint: Path, small: Sam) -> None:
    weights = load_encoder("vit_b", 64, checkpoint).mask_decoder_weights
    tokens = weights["mask_decoder.mask_tokens.weight"]
    assert torch.equal(tokens, small.mask_decoder.mask_tokens.weight)
    assert "prompt_encoder.pe_layer.positional_encoding_gaussian_matrix" in weights
    assert "prompt_encoder.no_mask_embed.weight" in weights
    assert not any(key.startswith("image_encoder.") for key in weights)
