"""An encoder in two: a lower part that stays frozen and runs once, and an upper part that learns.

The cut lies in front of an attention block. What passes it is one map of features for each input, folded to the grid
of the embedding where it is finer, so that it is cached, turned and read as embeddings are.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from segment_anything.modeling import ImageEncoderViT
from torch import Tensor, nn
from torch.nn import functional

from autosam_net.encoders.encoder import Encoder
from autosam_net.encoders.sam_vit import sam_steps
from autosam_net.encoders.tiny_vit import TinyViT
from autosam_net.errors import PlanError


class LowerPart(nn.Sequential):
    """From pixels (B, 3, S, S) to features (B, channels, S / stride, S / stride).

    Attributes:
        finer: how often the embedding's grid goes into that of the features, along each side.
        channels: of the features, folded.
    """

    def __init__(self, steps: Sequence[nn.Module], finer: int, width: int) -> None:
        super().__init__(*steps)
        self.finer, self.channels = finer, width * finer**2

    def forward(self, pixels: Tensor) -> Tensor:
        features = pixels
        for step in self:
            features = step(features)
        return functional.pixel_unshuffle(features, self.finer)


class UpperPart(nn.Sequential):
    """From the features of a `LowerPart` to embeddings."""

    def __init__(self, steps: Sequence[nn.Module], finer: int) -> None:
        super().__init__(*steps)
        self.finer = finer

    def forward(self, features: Tensor) -> Tensor:
        embedding = functional.pixel_shuffle(features, self.finer)
        for step in self:
            embedding = step(embedding)
        return embedding


def keep_lower(encoder: Encoder, number: int) -> None:
    """Leave of an encoder what lies below an attention block; its embeddings are the features there.

    Args:
        number: of the attention block, negative ones counted from the end.

    Raises:
        PlanError: there is no such block, or the network cannot be cut.
    """
    lower, _ = split_network(encoder, number)
    encoder.network, encoder.channels = lower, lower.channels


def keep_upper(encoder: Encoder, number: int) -> None:
    """Leave of an encoder an attention block and what follows; it takes the features of the lower part.

    Raises:
        PlanError: as `keep_lower`.
    """
    _, encoder.network = split_network(encoder, number)
    encoder.takes_features = True


def split_network(encoder: Encoder, number: int) -> tuple[LowerPart, UpperPart]:
    """Return both parts of an encoder's network; together they are what it was.

    Raises:
        PlanError: there is no such block, or the network cannot be cut.
    """
    steps = _steps_of(encoder)
    found = [place for place, step in enumerate(steps) if fused(getattr(step, "block", step)) is not None]
    place = found[block_number(encoder.name, number, len(found))]
    upper = steps[place:]
    width = fused(getattr(upper[0], "block", upper[0])).in_features
    finer = math.prod(getattr(step, "stride", 1) for step in upper)
    return LowerPart(steps[:place], finer, width), UpperPart(upper, finer)


def block_number(name: str, number: int, count: int) -> int:
    """Return the number of one of an encoder's `count` attention blocks, counted from the image on.

    Raises:
        PlanError: there is no such block.
    """
    if not -count <= number < count:
        raise PlanError(f"tuning: blocks: {name} has {count} attention blocks, none is {number}.")
    return number % count


def fused(block: Any) -> Any:
    """Return the linear layer of queries, keys and values of an attention block; None of any other module."""
    linear = getattr(getattr(block, "attn", None), "qkv", None)
    return linear if isinstance(linear, nn.Linear) else None


def _steps_of(encoder: Encoder) -> list[nn.Module]:
    """Return the modules through which maps (B, C, H, W) go one after the other."""
    network = encoder.network
    if isinstance(network, ImageEncoderViT):
        return sam_steps(network)
    if isinstance(network, TinyViT):
        return network.steps()
    raise PlanError(
        f"{encoder.name}: cannot be cut below a block, so that nothing of it can be cached. Set cached to false."
    )
