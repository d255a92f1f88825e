"""SAM's own decoder as a head: before training the masks are SAM's."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from segment_anything.modeling import MaskDecoder, PromptEncoder, Sam, TwoWayTransformer
from torch import Tensor, nn

from autosam_net.data.labels import LabelSet
from autosam_net.data.prompts import NO_TOKEN, Outline
from autosam_net.encoders.catalog import ENCODERS
from autosam_net.encoders.encoder import Encoder, load_encoder
from autosam_net.errors import WeightsError
from autosam_net.heads.head import HeadShape, build_head
from autosam_net.heads.prompted import ABSENT
from autosam_net.preprocessing.prompts import stack_tokens

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


def tokens(*outlines: Outline) -> Tensor:
    """Return the prompts (1, classes, 1, tokens, 3) of one input, an outline for each class."""
    labels = LabelSet({"background": 0, **{f"class {index}": index + 1 for index in range(len(outlines))}})
    named = {name: (outline,) for name, outline in zip(labels.targets, outlines, strict=True)}
    return torch.from_numpy(stack_tokens([named], labels))


def head_of(encoder: Encoder, classes: int = 2, **settings: float) -> nn.Module:
    shape = HeadShape(classes + 1, encoder.channels, encoder.stride, encoder.input_size)
    return build_head("prompted", shape, settings, encoder.mask_decoder_weights).eval()


def encoder_of(checkpoint: Path) -> Encoder:
    return load_encoder("patches", weights=checkpoint, precision="float32")


BOXES = torch.tensor([[10.0, 20.0, 60.0, 90.0], [5.0, 5.0, 30.0, 31.0]])
POINTS = torch.tensor([[[40.0, 50.0], [41.0, 52.0]], [[9.0, 8.0], [100.0, 90.0]]])
MARKS = torch.tensor([[1, 0], [1, 0]])


def outlines(box: bool, points: bool) -> list[Outline]:
    return [
        Outline(
            box=tuple(corners.tolist()) if box else None,
            foreground=(tuple(pair[0].tolist()),) if points else (),
            background=(tuple(pair[1].tolist()),) if points else (),
        )
        for corners, pair in zip(BOXES, POINTS, strict=True)
    ]


@pytest.mark.parametrize(("box", "points"), [(True, False), (False, True), (True, True)])
def test_masks_are_those_of_sams_own_forward(sam: Sam, checkpoint: Path, box: bool, points: bool) -> None:
    encoder = encoder_of(checkpoint)
    image = torch.rand(3, SIZE, SIZE, generator=torch.Generator().manual_seed(1))
    asked = {"boxes": BOXES} if box else {}
    asked |= {"point_coords": POINTS, "point_labels": MARKS} if points else {}
    (expected,) = sam([{"image": image, "original_size": (SIZE, SIZE), **asked}], multimask_output=False)
    with torch.no_grad():
        logits = head_of(encoder)(encoder(image[None]), tokens(*outlines(box, points)))
    assert logits.shape == (1, 3, SIZE, SIZE)
    assert not logits[:, 0].any(), "the background's logit is 0"
    assert ((logits[0, 1:] > 0) == expected["masks"][:, 0]).float().mean() > 0.999  # rounded in another order
    assert 0 < (logits[0, 1:] > 0).float().mean() < 1


def test_a_class_without_a_prompt_is_nowhere(checkpoint: Path) -> None:
    encoder = encoder_of(checkpoint)
    prompts = tokens(*outlines(box=True, points=False))
    prompts[:, 1, ..., 2] = NO_TOKEN
    embedding = torch.randn(1, 256, 16, 16)
    logits = head_of(encoder)(embedding, prompts)
    assert (logits[:, 2] == ABSENT).all() and (logits[:, 1] != ABSENT).any()
    prompts[..., 2] = NO_TOKEN
    nothing = head_of(encoder).train()(embedding, prompts)
    assert (nothing[:, 1:] == ABSENT).all()
    nothing.sum().backward()  # a batch without any class stops no training


def test_a_hole_is_cut_out(checkpoint: Path) -> None:
    encoder, (ring, hole) = encoder_of(checkpoint), outlines(box=True, points=False)
    labels, embedding = LabelSet({"background": 0, "wall": 1}), torch.randn(1, 256, 16, 16)
    both = torch.from_numpy(stack_tokens([{"wall": (ring, hole)}], labels))
    head = head_of(encoder, classes=1)
    outer, inner = (head(embedding, tokens(outline))[:, 1] for outline in (ring, hole))
    assert torch.allclose(head(embedding, both)[:, 1], torch.minimum(outer, -inner), atol=1e-3)


def test_the_decoder_learns_and_the_prompt_encoder_does_not(checkpoint: Path) -> None:
    head = head_of(encoder_of(checkpoint))
    learning = {name for name, parameter in head.named_parameters() if parameter.requires_grad}
    assert {"classes", "mask_decoder.mask_tokens.weight"} <= learning
    assert not any(name.startswith("prompt_encoder.") for name in learning)
    assert sum(head.get_parameter(name).numel() for name in learning) == 3_506_304 + 256 * 3


@pytest.mark.parametrize("lacking", ["prompt_encoder.point_embeddings.2.weight", "mask_decoder.iou_token.weight"])
def test_a_checkpoint_without_all_of_it_is_refused(checkpoint: Path, lacking: str) -> None:
    state = torch.load(checkpoint, weights_only=True)
    del state[lacking]
    torch.save(state, checkpoint)
    with pytest.raises(WeightsError, match=r"hold no prompt encoder and mask decoder .* Choose an encoder"):
        head_of(encoder_of(checkpoint))


def test_the_default_weights_find_a_disc_in_a_box() -> None:
    encoder = load_encoder("lite_medsam")
    y, x = np.mgrid[:256, :256]
    disc = (y - 120) ** 2 + (x - 140) ** 2 < 30**2
    image = 0.2 + 0.5 * disc + 0.05 * np.random.default_rng(0).standard_normal(disc.shape)
    images = torch.from_numpy(np.clip(image, 0, 1)).float().expand(1, 3, -1, -1)
    with torch.no_grad():
        logits = head_of(encoder, classes=1)(encoder(images), tokens(Outline(box=(110.0, 90.0, 170.0, 150.0))))
    mask = logits[0, 1].numpy() > 0
    assert 2 * (mask & disc).sum() / (mask.sum() + disc.sum()) > 0.7
