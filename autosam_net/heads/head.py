"""What every head has in common: its registry, its shape, its recipe and how it is built."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

import torch.nn.functional as F
from torch import Tensor, nn

from autosam_net.data.prompts import PromptOptions
from autosam_net.errors import PlanError
from autosam_net.registry import Registry, suggest


@dataclass(frozen=True)
class HeadShape:
    """What a head takes and gives.

    Attributes:
        outputs: logits a pixel: classes with background, or regions; at least 1.
        channels: of the embedding.
        stride: input pixels per embedding pixel.
        input_size: pixels of the square encoder input, and of the logits.
        pixels: channels of the input that go along with the embedding, folded behind its channels (`heads.pixels`).
    """

    outputs: int
    channels: int
    stride: int
    input_size: int
    pixels: int = 0

    @property
    def grid(self) -> int:
        """Return the side of the embedding in its own pixels."""
        return self.input_size // self.stride


@dataclass(frozen=True)
class Recipe:
    """Settings to start planning from.

    Attributes:
        settings: every setting of the head with its default.
        epochs: each of `iterations` batches of `batch_size` slices.
        learning_rate: highest value of the one-cycle schedule of AdamW.
        encoder: that the head works on whatever the plan's is; `image` for a network trained from scratch.
        crop: of each input in a batch a random part is shown, this share of its side; for heads that take any size.
        prompts: how they are drawn, for heads that need prompts beside the embedding.
    """

    settings: Mapping[str, float]
    batch_size: int
    epochs: int
    iterations: int
    learning_rate: float
    weight_decay: float
    encoder: str | None = None
    crop: float = 1.0
    prompts: PromptOptions | None = None


class HeadClass(Protocol):
    """The class of a torch module from embeddings (B, channels, grid, grid) to logits (B, outputs, size, size).

    In prediction, embeddings come in the type of autocast, and channels last: bfloat16 where heads compute in it.
    One whose recipe has a `crop` below 1 takes smaller grids too, and gives logits of `stride` times their side. One
    with the attribute `sees_pixels` gets the folded pixels as well, where `HeadShape.pixels` says that there are some.
    One that starts from the checkpoint's mask decoder may name what it has from there as `pretrained`, beginnings of
    names of parameters; tuning by LoRA or adapters freezes these. One whose recipe has `prompts` is called with tokens
    (B, classes, contours, tokens, 3) as well, of `preprocessing.prompts.stack_tokens`.
    """

    recipe: Recipe

    def __call__(
        self, shape: HeadShape, settings: Mapping[str, float], decoder_weights: Mapping[str, Tensor]
    ) -> nn.Module: ...


HEADS: Registry[HeadClass] = Registry("head")


def build_head(
    name: str, shape: HeadShape, settings: Mapping[str, float], decoder_weights: Mapping[str, Tensor]
) -> nn.Module:
    """Return a new head; random numbers come from torch's global generator, so seed it first.

    Args:
        settings: those that differ from the recipe's.
        decoder_weights: `Encoder.mask_decoder_weights`, for heads that start from the checkpoint's decoder.

    Raises:
        UsageError: no head of that name.
        PlanError: a setting that the head does not know.
        WeightsError: the head needs decoder weights that the encoder has not.
    """
    head = HEADS.get(name)
    defaults = head.recipe.settings
    for key in settings:
        if key not in defaults:
            raise PlanError(f"head {name!r}: unknown setting {key!r}; {suggest(key, defaults)}")
    module = head(shape, {**defaults, **settings}, decoder_weights)
    if shape.pixels and not getattr(head, "sees_pixels", False):
        module.register_forward_pre_hook(functools.partial(_without_pixels, shape.channels))
    return module


def _without_pixels(channels: int, head: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return inputs[0][:, :channels], *inputs[1:]


def takes_prompts(name: str) -> bool:
    """Return whether a head needs prompts beside the embedding.

    Raises:
        UsageError: no head of that name.
    """
    return HEADS.get(name).recipe.prompts is not None


def pixelwise(layer: Callable[[Tensor], Tensor], features: Tensor) -> Tensor:
    """Return what a layer makes of features (B, C, H, W) that it is given as (B, H, W, C), the order of channels last.

    Only of contiguous memory does torch let oneDNN compute GELU on a CPU, in half the time of its own loop; a norm over
    the last axis takes one pass.
    """
    return layer(features.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def enlarge(features: Tensor, size: int) -> Tensor:
    """Return `features` (B, C, h, w) bilinearly interpolated to `size` x `size`, or as they are if they have it."""
    if features.shape[-1] == size:
        return features
    return F.interpolate(features, (size, size), mode="bilinear")
