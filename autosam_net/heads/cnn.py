"""The cnn head: a few convolutions on the embedding, at twice its resolution, and on the slice's own pixels."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision.models.convnext import LayerNorm2d

from autosam_net.errors import PlanError
from autosam_net.heads.head import HEADS, HeadShape, Recipe, enlarge, pixelwise
from autosam_net.heads.pixels import unfold_pixels

GREY, CONTRAST = 0.3, 4.0  # about the mean and the inverse standard deviation of pixels where there is tissue


@HEADS.register("cnn")
class CnnHead(nn.Module):
    """Convolutions at the embedding's resolution and at twice that, then on the slice's pixels (0.3 M parameters).

    An embedding knows what is where, but a pixel of it covers several of the slice's: these draw the boundary, in the
    detail path. Without it the logits are enlarged bilinearly.

    Norms are over the channels of each pixel, so that a pixel's logits depend on its surroundings alone: the head
    trains on parts of slices and predicts whole ones. (With group norms, whose statistics are of the whole, that cost
    0.02 of Dice.) No convolution ends in a plain ReLU: with foreground in 2 % of the pixels, a narrow last layer of
    ReLUs dies in the first steps, while all that is asked for is background.

    Settings:
        width: channels at the embedding's resolution, an even number; half of that at twice the resolution.
        depth: residual blocks at the embedding's resolution, where they cost least, behind the first convolution.
        detail: channels of the detail path at the resolution of the pixels; 0 leaves it out.
        context: 1 adds a path at a quarter of the embedding's resolution whose dilated convolutions see the whole
            input, for structures so large that their inside looks like any other tissue; 0 leaves it out.
        dropout: of whole channels of the embedding, the augmentation that a cached embedding allows.
    """

    recipe: ClassVar[Recipe] = Recipe(
        settings={"width": 64.0, "depth": 3.0, "detail": 16.0, "dropout": 0.1, "context": 0.0},
        batch_size=16,
        epochs=40,
        iterations=50,
        learning_rate=2e-3,
        weight_decay=1e-2,
        crop=0.5,
    )
    sees_pixels: ClassVar[bool] = True

    def __init__(self, shape: HeadShape, settings: Mapping[str, float], decoder_weights: Mapping[str, Tensor]) -> None:
        super().__init__()
        width, detail = (_even(name, settings[name]) for name in ("width", "detail"))
        self.channels, self.stride = shape.channels, shape.stride
        self.norm = nn.Sequential(LayerNorm2d(shape.channels), nn.Dropout2d(settings["dropout"]))
        deeper = (Residual(_block(width, width)) for _ in range(_count("depth", settings["depth"])))
        self.coarse = nn.Sequential(_block(shape.channels, width), *deeper)
        self.fine = nn.Sequential(_block(width, width // 2), _block(width // 2, width // 2))
        self.context = _context(shape.channels, width) if settings["context"] else None
        self.detail = DetailPath(shape.pixels, width // 2, detail) if shape.pixels and detail else None
        self.classify = nn.Conv2d(detail if self.detail else width // 2, shape.outputs, 1)

    def forward(self, embedding: Tensor) -> Tensor:
        embedding, folded = embedding[:, : self.channels], embedding[:, self.channels :]
        size = self.stride * embedding.shape[-1]
        embedding = self.norm(embedding.contiguous(memory_format=torch.channels_last))
        features = self.coarse(embedding)  # (B, width, grid, grid)
        if self.context is not None:
            features = features + enlarge(self.context(embedding), features.shape[-1])
        features = self.fine(enlarge(features, 2 * features.shape[-1]))  # (B, width / 2, 2 grid, 2 grid)
        if self.detail is not None:
            features = self.detail(features, unfold_pixels(folded))  # (B, detail, 4 grid, 4 grid)
        return enlarge(self.classify(features), size)


class DetailPath(nn.Module):
    """Features at half and at all of the pixels' resolution, from coarser ones and the pixels: a small U's way up.

    Args:
        pixels: channels of the images.
        coarse: channels of the features that come in, at half their resolution.
        width: channels that go out.
    """

    def __init__(self, pixels: int, coarse: int, width: int) -> None:
        super().__init__()
        # without a norm, which would lose the grey
        self.pixels = nn.Sequential(nn.Conv2d(pixels, width, 3, padding=1), PixelwiseGELU())
        self.pixels.to(memory_format=torch.channels_last)  # so are its features: images of one channel tell nothing
        mean_of_four = nn.Upsample(scale_factor=0.5, mode="bilinear")  # that of AvgPool2d(2), in half its time on a CPU
        self.halves = nn.Sequential(mean_of_four, _block(width, 2 * width))
        self.at_half = _joint_block(coarse + 2 * width, coarse)
        self.at_full = nn.Sequential(_joint_block(coarse + width, width), _block(width, width))

    def forward(self, features: Tensor, images: Tensor) -> Tensor:
        pixels = self.pixels(CONTRAST * (images - GREY))  # (B, width, S, S)
        features = self.at_half((features, self.halves(pixels)))
        return self.at_full((enlarge(features, pixels.shape[-1]), pixels))


class Residual(nn.Module):
    """What its layers add to features (B, C, H, W)."""

    def __init__(self, layers: nn.Module) -> None:
        super().__init__()
        self.layers = layers

    def forward(self, features: Tensor) -> Tensor:
        added: Tensor = self.layers(features)
        return features + added


class JointConv2d(nn.Module):
    """A 3 x 3 convolution of several inputs' channels together, as if concatenated, without the copy.

    A gradient that comes out of a concatenation is strided: what follows it takes some three times as long on a CPU.

    Args:
        inputs: channels of all inputs together.
        outputs: channels that go out.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Conv2d(inputs, outputs, 3, bias=False).weight

    def forward(self, inputs: Sequence[Tensor]) -> Tensor:
        """Return the features (B, outputs, S, S) of inputs (B, C, S, S)."""
        weights = self.weight.split([part.shape[1] for part in inputs], dim=1)
        parts = (functional.conv2d(part, own, padding=1) for part, own in zip(inputs, weights, strict=True))
        return functools.reduce(torch.add, parts)


class PixelwiseGELU(nn.GELU):
    """GELU of (B, C, H, W) in the order of channels-last memory."""

    def forward(self, features: Tensor) -> Tensor:
        return pixelwise(super().forward, features)


def _even(name: str, value: float) -> int:
    if value < 0 or value % 2 or (name == "width" and value == 0):
        raise PlanError(f"head 'cnn': {name} is {value:g}, expected an even number of channels; correct it.")
    return int(value)


def _count(name: str, value: float) -> int:
    if value < 0 or value % 1:
        raise PlanError(f"head 'cnn': {name} is {value:g}, expected a whole number of blocks; correct it.")
    return int(value)


def _context(inputs: int, width: int) -> nn.Sequential:
    """Return the path that sees 1 + 2 (1 + 1 + 2 + 4) = 17 cells of 4 embedding pixels: the whole of 256 px."""
    dilated = [_block(width, width, dilation) for dilation in (1, 2, 4)]
    return nn.Sequential(nn.AvgPool2d(4), _block(inputs, width), *dilated)


def _block(inputs: int, outputs: int, dilation: int = 1) -> nn.Sequential:
    return _activated(nn.Conv2d(inputs, outputs, 3, padding=dilation, dilation=dilation, bias=False), outputs)


def _joint_block(inputs: int, outputs: int) -> nn.Sequential:
    return _activated(JointConv2d(inputs, outputs), outputs)


def _activated(convolution: nn.Module, channels: int) -> nn.Sequential:
    return nn.Sequential(convolution, LayerNorm2d(channels), PixelwiseGELU())
