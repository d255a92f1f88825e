"""SAM's vision transformers (Kirillov et al., 2023) at input sizes other than 1024 pixels."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from segment_anything import sam_model_registry
from segment_anything.modeling import ImageEncoderViT
from torch import Tensor, nn

PATCH = 16


def build_sam_vit(variant: str, input_size: int, weights: Mapping[str, Tensor]) -> nn.Module:
    """Return the image encoder of segment_anything's `variant` with `weights`, fitted to the input size, in eval mode.

    Args:
        variant: a name in `sam_model_registry`: vit_b, vit_l or vit_h.
        input_size: pixels, a multiple of 16.

    Raises:
        RuntimeError: the weights do not fit.
    """
    with torch.device("meta"):  # the weights take the place of parameters that were never filled
        encoder = sam_model_registry[variant]().image_encoder
    encoder.load_state_dict(dict(weights), assign=True)
    fit_input_size(encoder, input_size)
    return encoder.eval()


def fit_input_size(encoder: ImageEncoderViT, input_size: int) -> None:
    """Interpolate the positions of an `ImageEncoderViT` to `input_size` pixels, as if it saw the image more coarsely.

    The absolute embedding (1, h, w, C) and the relative ones (2 h - 1, C) of the blocks with global attention change;
    blocks with windows see the same 14 x 14 tokens at every size.
    """
    grid = input_size // PATCH
    encoder.img_size = input_size
    encoder.pos_embed = _frozen(resize_absolute(encoder.pos_embed, grid))
    for block in encoder.blocks:
        if block.window_size == 0:
            block.attn.rel_pos_h = _frozen(resize_relative(block.attn.rel_pos_h, grid))
            block.attn.rel_pos_w = _frozen(resize_relative(block.attn.rel_pos_w, grid))


class Patches(nn.Module):
    """The first step of an `ImageEncoderViT`: patches with their positions, (B, C, h, w)."""

    def __init__(self, encoder: ImageEncoderViT) -> None:
        super().__init__()
        self.patch_embed, self.pos_embed = encoder.patch_embed, encoder.pos_embed

    def forward(self, images: Tensor) -> Tensor:
        tokens: Tensor = self.patch_embed(images) + self.pos_embed
        return tokens.permute(0, 3, 1, 2)


class ChannelsFirst(nn.Module):
    """A block of tokens (B, h, w, C) for maps (B, C, h, w)."""

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.block = block

    def forward(self, features: Tensor) -> Tensor:
        tokens: Tensor = self.block(features.permute(0, 2, 3, 1))
        return tokens.permute(0, 3, 1, 2)


def sam_steps(encoder: ImageEncoderViT) -> list[nn.Module]:
    """Return the modules through which maps (B, C, H, W) go one after the other; they share the encoder's weights."""
    return [Patches(encoder), *map(ChannelsFirst, encoder.blocks), encoder.neck]


def resize_absolute(embedding: Tensor, grid: int) -> Tensor:
    """Return position embeddings (1, h, w, C) for `grid` x `grid` tokens; the same ones where the grid is theirs."""
    if embedding.shape[1:3] == (grid, grid):
        return embedding
    resized = F.interpolate(embedding.permute(0, 3, 1, 2), (grid, grid), mode="bicubic", antialias=True)
    return resized.permute(0, 2, 3, 1).contiguous()


def resize_relative(embedding: Tensor, grid: int) -> Tensor:
    """Return embeddings (2 n - 1, C) of distances between tokens for `grid` tokens a side.

    The interpolation is the one SAM's `get_rel_pos` would make at every pass, made once and in full precision.
    """
    length = 2 * grid - 1
    if len(embedding) == length:
        return embedding
    return F.interpolate(embedding.T[None], length, mode="linear")[0].T.contiguous()


def _frozen(values: Tensor) -> nn.Parameter:
    return nn.Parameter(values.detach(), requires_grad=False)
