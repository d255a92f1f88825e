"""Attention between a few tokens and the many pixels of an image, as cheap as the few tokens allow."""

from __future__ import annotations

import math

import torch
from segment_anything.modeling import TwoWayTransformer
from segment_anything.modeling.transformer import Attention
from torch import Tensor, nn


def fold_attention(transformer: TwoWayTransformer) -> TwoWayTransformer:
    """Return SAM's transformer of a mask decoder with folded attention between tokens and image, changed in place."""
    for layer in transformer.layers:
        layer.cross_attn_token_to_image = FoldedAttention(layer.cross_attn_token_to_image)
        layer.cross_attn_image_to_token = FoldedAttention(layer.cross_attn_image_to_token)
    transformer.final_attn_token_to_image = FoldedAttention(transformer.final_attn_token_to_image)
    return transformer


class FoldedAttention(Attention):  # type: ignore[misc]  # its package has no types
    """What SAM's `Attention` computes, its weights folded into the few tokens instead of applied to every pixel.

    A score is the product of a projected query and a projected key. With both projections on the side of n tokens and
    H heads, each pixel meets n H vectors, instead of the projection's D channels first: 32 against 128 for four classes
    and eight heads. The same holds for the values. Where n H >= D nothing is folded. The sums are the same in another
    order. Scores lie pixel beside pixel, so that the softmax over a few tokens takes many pixels at once.
    """

    def __init__(self, attention: Attention) -> None:
        """Take over the layers of an attention, and the names of its weights."""
        nn.Module.__init__(self)  # Attention's own would draw weights
        self.embedding_dim, self.internal_dim = attention.embedding_dim, attention.internal_dim
        self.num_heads = attention.num_heads
        self.q_proj, self.k_proj = attention.q_proj, attention.k_proj
        self.v_proj, self.out_proj = attention.v_proj, attention.out_proj

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Return what the queries (B, queries, C) find in the values (B, keys, C), as (B, queries, C)."""
        if min(q.shape[1], k.shape[1]) * self.num_heads >= self.internal_dim:
            attended: Tensor = super().forward(q, k, v)
            return attended
        return self._from_tokens(q, k, v) if q.shape[1] < k.shape[1] else self._from_pixels(q, k, v)

    def _from_tokens(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        queries = self._by_head(self.q_proj(q)) / self._temperature  # (B, n, H, d)
        folded = torch.einsum("bnhd,hdc->bnhc", queries, self._by_head(self.k_proj.weight.T).permute(1, 2, 0))
        offset = torch.einsum("bnhd,hd->bnh", queries, self._by_head(self.k_proj.bias))
        scores = folded.flatten(1, 2) @ k.transpose(1, 2) + offset.flatten(1)[..., None]  # (B, n H, pixels)
        mixed = (torch.softmax(scores, -1) @ v).unflatten(1, (-1, self.num_heads))  # (B, n, H, C)
        values = torch.einsum("bnhc,chd->bnhd", mixed, self._by_head(self.v_proj.weight.T))
        return self.out_proj(values.flatten(2) + self.v_proj.bias)

    def _from_pixels(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        keys = self._by_head(self.k_proj(k)) / self._temperature  # (B, n, H, d)
        values = self._by_head(self.v_proj(v))
        folded = torch.einsum("bnhd,chd->bhnc", keys, self._by_head(self.q_proj.weight.T))  # (B, H, n, C)
        offset = torch.einsum("bnhd,hd->bhn", keys, self._by_head(self.q_proj.bias))
        scores = (folded.flatten(1, 2) @ q.transpose(1, 2)).unflatten(1, offset.shape[1:]) + offset[..., None]
        found = torch.einsum("bnhd,chd->bhnc", values, self._by_head(self.out_proj.weight))  # (B, H, n, C)
        attended = torch.softmax(scores, 2).flatten(1, 2).transpose(1, 2) @ found.flatten(1, 2)  # (B, pixels, C)
        return attended + self.out_proj.bias.to(attended.dtype)  # no copy in a larger type under autocast

    @property
    def _temperature(self) -> float:
        return math.sqrt(self.internal_dim / self.num_heads)

    def _by_head(self, projected: Tensor) -> Tensor:
        return projected.unflatten(-1, (self.num_heads, -1))
