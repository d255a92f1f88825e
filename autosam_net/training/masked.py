"""Masked image modelling: an encoder learns to see what is hidden from it, without labels.

SimMIM (Xie et al., CVPR 2022): random squares of the input are replaced by a colour that is learnt, and a single layer
on the embedding draws the pixels; the loss is the mean absolute error of the hidden ones. Unlike MAE's, which leaves
hidden patches out of a transformer, this serves every encoder: TinyViT has convolutions and windows, SAM's ViTs have
windows, and both see the whole square. (Gu et al., arXiv 2404.09957, find that such training of SAM's encoder helps.)
"""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from autosam_net.data.configuration import Tuning
from autosam_net.encoders.encoder import IMAGE_ENCODER, Encoder, changed_checkpoint
from autosam_net.encoders.tuning import tune_encoder
from autosam_net.training.slices import UnlabelledSlices

CELLS = 8  # squares along each side of an input, of 32 px each at 256 px, as published
HIDDEN = 0.6  # part of them, as published
GREY = 0.5  # of hidden squares, before anything is learnt
RECOMPUTE = 50.0  # million parameters from which an encoder's blocks are computed twice, since memory is short


class MaskedModel(nn.Module):
    """An encoder and a decoder of one layer, from images with hidden squares to pixels (B, channels, S, S)."""

    def __init__(self, encoder: Encoder, channels: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.hidden = nn.Parameter(torch.full((1, 3, 1, 1), GREY))
        self.decoder = nn.Sequential(
            nn.Conv2d(encoder.channels, channels * encoder.stride**2, 1), nn.PixelShuffle(encoder.stride)
        )

    def forward(self, images: torch.Tensor, hidden: torch.Tensor) -> torch.Tensor:
        drawn: torch.Tensor = self.decoder(self.encoder(torch.where(hidden, self.hidden, images)))
        return drawn


def hidden_error(pixels: torch.Tensor, images: torch.Tensor, hidden: torch.Tensor) -> torch.Tensor:
    """Return the mean absolute error of the hidden pixels, a scalar.

    Args:
        pixels, images: `(B, C, S, S)`.
        hidden: `(B, 1, S, S)`, true where hidden.
    """
    return ((pixels.float() - images).abs() * hidden).sum() / (hidden.sum() * images.shape[1])


def let_all_learn(encoder: Encoder, checkpoint: dict[str, torch.Tensor], parameters: float) -> None:
    """Let all of an encoder's weights learn that its checkpoint can take back.

    Args:
        parameters: of the encoder, in millions.

    Raises:
        WeightsError: the network has weights that the checkpoint has not.
    """
    changed_checkpoint(encoder, checkpoint)
    tune_encoder(encoder, Tuning("encoder+head", "full", recompute=parameters >= RECOMPUTE))
    for name, parameter in encoder.network.named_parameters():
        published = checkpoint.get(IMAGE_ENCODER + name)
        parameter.requires_grad_(published is None or published.shape == parameter.shape)


def draw_masked(
    slices: UnlabelledSlices, stride: int, seed: int, size: int, iteration: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the images `(size, 3, S, S)` of an iteration and what is hidden of them, `(size, 1, S, S)`.

    Args:
        stride: of the encoder; squares are whole embedding cells.
    """
    rng = np.random.default_rng([seed, iteration])
    images = slices.draw(rng, size)
    return images, draw_hidden(rng, size, images.shape[-1], stride)


def draw_hidden(rng: np.random.Generator, count: int, size: int, stride: int) -> torch.Tensor:
    """Return what is hidden of `count` images of `size` pixels, `(count, 1, size, size)`: squares of whole cells."""
    side = stride * max(1, round(size / CELLS / stride))
    across = -(-size // side)
    order = rng.permuted(np.tile(np.arange(across**2), (count, 1)), axis=1)
    grid = (order < round(HIDDEN * across**2)).reshape(count, 1, across, across)
    pixels = grid.repeat(side, -2).repeat(side, -1)[..., :size, :size]
    return torch.from_numpy(np.ascontiguousarray(pixels))
