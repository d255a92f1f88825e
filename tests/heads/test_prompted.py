"""SAM's own decoder, built from a checkpoint: the masks are SAM's."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from segment_anything.modeling import MaskDecoder, PromptEncoder, Sam, TwoWayTransformer
from torch import Tensor, nn

from autosam_net.encoders.catalog import ENCODERS
from autosam_net.encoders.encoder import load_encoder
from autosam_net.errors import WeightsError
from autosam_net.inference.prompted_decoder import PromptedDecoder

SIZE, STRIDE = 128, 8


class Patches(nn.Module):
    """(B, 3, 128, 128) -> (B, 256, 16, 16)."""

    def __init__(self) -> None:
        super().__init__()
        self.img_size = SIZE
        self.project = nn.Conv2d(3, 256, STRIDE, STRIDE)

    def forward(self, images: Tensor) -> Tensor:
        return self.project(images)


def build(input_size: int, weights: dict[str, Tensor]) -> nn.Module:
    network = Patches()
    network.load_state_dict(dict(weights))
    return network


@pytest.fixture(scope="module")
def sam() -> Iterator[Sam]:
    """Return a SAM with random weights whose image encoder is one convolution."""
    with torch.random.fork_rng():
        torch.manual_seed(3)
        prompts = PromptEncoder(256, (16, 16), (SIZE, SIZE), 16)
        decoder = MaskDecoder(transformer_dim=256, transformer=TwoWayTransformer(2, 256, 8, 2048))
        yield Sam(Patches(), prompts, decoder, pixel_mean=[0.0] * 3, pixel_std=[1.0] * 3).eval()


@pytest.fixture
def checkpoint(sam: Sam, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the checkpoint of `sam`, whose encoder is registered as `patches` until the end of the test."""
    torch.save(sam.state_dict(), tmp_path / "sam.pth")
    entry = replace(
        ENCODERS.get("lite_medsam"), name="patches", build=build, input_size=SIZE, multiple=STRIDE, stride=STRIDE
    )
    monkeypatch.setitem(ENCODERS._entries, "patches", entry)
    return tmp_path / "sam.pth"


def decoder_of(checkpoint: Path) -> tuple[PromptedDecoder, nn.Module]:
    encoder = load_encoder("patches", weights=checkpoint, precision="float32")
    return PromptedDecoder(encoder), encoder


def test_masks_are_those_of_sams_own_forward(sam: Sam, checkpoint: Path) -> None:
    decoder, encoder = decoder_of(checkpoint)
    image = torch.rand(3, SIZE, SIZE, generator=torch.Generator().manual_seed(1))
    boxes = torch.tensor([[10.0, 20.0, 60.0, 90.0], [5.0, 5.0, 30.0, 31.0]])
    points = torch.tensor([[[40.0, 50.0], [41.0, 52.0]], [[9.0, 8.0], [100.0, 90.0]]])
    ones = torch.ones(points.shape[:2])
    asked = [
        {"boxes": boxes},
        {"point_coords": points, "point_labels": ones},
    ]
    embedding = encoder(image[None])[0]
    for own, theirs in zip(({"boxes": boxes}, {"points": points}), asked, strict=True):
        (expected,) = sam([{"image": image, "original_size": (SIZE, SIZE), **theirs}], multimask_output=False)
        logits = decoder(embedding, **own)
        assert logits.shape == (2, SIZE, SIZE)
        assert torch.equal(logits > 0, expected["masks"][:, 0])
        assert 0 < (logits > 0).float().mean() < 1


def test_nothing_of_it_is_trained(checkpoint: Path) -> None:
    decoder, _ = decoder_of(checkpoint)
    assert not any(parameter.requires_grad for parameter in decoder.parameters())
    assert not any(module.training for module in decoder.modules())


@pytest.mark.parametrize("lacking", ["prompt_encoder.point_embeddings.2.weight", "mask_decoder.iou_token.weight"])
def test_a_checkpoint_without_all_of_it_is_refused(checkpoint: Path, lacking: str) -> None:
    state = torch.load(checkpoint, weights_only=True)
    del state[lacking]
    torch.save(state, checkpoint)
    with pytest.raises(WeightsError, match=r"patches: its weights hold no prompt encoder .* Choose an encoder"):
        decoder_of(checkpoint)


def test_the_default_weights_find_a_disc_in_a_box() -> None:
    encoder = load_encoder("lite_medsam")
    y, x = np.mgrid[:256, :256]
    disc = (y - 120) ** 2 + (x - 140) ** 2 < 30**2
    image = 0.2 + 0.5 * disc + 0.05 * np.random.default_rng(0).standard_normal(disc.shape)
    inputs = torch.from_numpy(np.clip(image, 0, 1)).float().expand(1, 3, -1, -1)
    with torch.no_grad():
        logits = PromptedDecoder(encoder)(encoder(inputs)[0], boxes=torch.tensor([[110.0, 90.0, 170.0, 150.0]]))
    mask = logits[0].numpy() > 0
    assert 2 * (mask & disc).sum() / (mask.sum() + disc.sum()) > 0.7
