"""The two parts of an encoder: together they are what it was, and what passes between them has the embedding's grid."""

from __future__ import annotations

import pytest
import torch
from segment_anything.build_sam import _build_sam
from torch import Tensor, nn

from autosam_net.data.configuration import Tuning
from autosam_net.encoders.catalog import ENCODERS, EncoderEntry
from autosam_net.encoders.encoder import Encoder, load_encoder
from autosam_net.encoders.sam_vit import fit_input_size
from autosam_net.encoders.split import keep_lower, keep_upper
from autosam_net.encoders.tuning import settle_encoder, tune_encoder
from autosam_net.errors import PlanError


def small_vit() -> Encoder:
    """Return a ViT of three blocks, 64 px, with weights that are always the same."""
    torch.manual_seed(0)
    network = _build_sam(32, 3, encoder_num_heads=2, encoder_global_attn_indexes=[2], checkpoint=None).image_encoder
    fit_input_size(network, 64)
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.05)
    return Encoder(ENCODERS.get("vit_b"), network.eval(), 64, "float32", "none", {})


def lite_medsam() -> Encoder:
    return load_encoder("lite_medsam", 64, precision="float32")


@pytest.fixture
def images() -> Tensor:
    return torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("build", "number", "channels"),
    [
        (lite_medsam, -2, 320),
        (lite_medsam, -3, 160),
        (lite_medsam, 1, 4 * 128),
        (small_vit, -1, 32),
        (small_vit, 0, 32),
    ],
)
def test_both_parts_together_are_the_encoder(build, number: int, channels: int, images: Tensor) -> None:  # type: ignore[no-untyped-def]
    lower, upper, whole = build(), build(), build()
    keep_lower(lower, number)
    keep_upper(upper, number)
    features, expected = lower(images), whole(images)
    assert features.shape == (1, channels, *expected.shape[2:]) and lower.channels == channels
    assert torch.allclose(upper(features), expected, rtol=1e-4, atol=1e-5)
    count = [sum(parameter.numel() for parameter in part.parameters()) for part in (lower, upper, whole)]
    assert count[0] + count[1] == count[2]


@pytest.mark.parametrize("method", ["lora", "adapter"])
@pytest.mark.parametrize("build", [lite_medsam, small_vit])
def test_what_learns_lies_in_the_upper_part(build, method: str, images: Tensor) -> None:  # type: ignore[no-untyped-def]
    lower, upper, whole = build(), build(), build()
    tuning = Tuning("encoder+head", method, blocks=(-2, -1), cached=True, recompute=True)  # type: ignore[arg-type]
    learning = []
    for encoder in (upper, whole):
        torch.manual_seed(1)
        tune_encoder(encoder, tuning)
        learning.append(parameters := [p for p in encoder.parameters() if p.requires_grad])
        for parameter in parameters:
            parameter.data += 0.02 * torch.randn_like(parameter)
    keep_lower(lower, -2)
    keep_upper(upper, -2)
    assert [p.shape for p in upper.parameters() if p.requires_grad] == [p.shape for p in learning[1]]
    for encoder, inputs in ((upper, lower(images)), (whole, images)):
        encoder(inputs).square().mean().backward()
    assert all(torch.allclose(a.grad, b.grad, rtol=1e-3, atol=1e-7) for a, b in zip(*learning, strict=True))
    settle_encoder(upper, "float32")
    settle_encoder(whole, "float32")
    assert torch.allclose(upper(lower(images)), whole(images), rtol=1e-4, atol=1e-5)


def test_what_cannot_be_cut_is_refused(toy: EncoderEntry, toy_weights) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(PlanError, match=r"toy: cannot be cut below a block, so .* Set cached to false"):
        keep_lower(load_encoder("toy", weights=toy_weights, precision="float32"), -1)
    with pytest.raises(PlanError, match="blocks: lite_medsam has 10 attention blocks, none is -11"):
        keep_lower(lite_medsam(), -11)
