"""Attention between a few tokens and the many pixels of an image, as cheap as the few tokens allow."""

from __future__ import annotations

import math

import torch
from segment_anything.modeling import TwoWayTransformer
from segment_anything.modeling.transformer import Attention, TwoWayAttentionBlock
from torch import Tensor, nn


class FoldedTransformer(nn.Module):
    """What SAM's `TwoWayTransformer` computes, with folded attention and each sum over all pixels taken once.

    The published one adds the positions to the pixels for each attention anew, five times instead of three.
    """

    def __init__(self, transformer: TwoWayTransformer) -> None:
        """Take over the layers of a transformer, and the names of its weights."""
        super().__init__()
        self.layers = nn.ModuleList(FoldedBlock(layer) for layer in transformer.layers)
        self.final_attn_token_to_image = FoldedAttention(transformer.final_attn_token_to_image)
        self.norm_final_attn = transformer.norm_final_attn

    def forward(self, image: Tensor, positions: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Return tokens (B, n, C) and pixels (B, h w, C) that have seen each other.

        Args:
            image: (B, C, h, w).
            positions: of its pixels, (B, C, h, w), or (1, C, h, w) where they are the same for all images.
            tokens: (B, n, C); they are their own positions.
        """
        pixels, places = (features.flatten(2).transpose(1, 2) for features in (image, positions))
        found = tokens
        for layer in self.layers:
            found, pixels = layer(found, pixels, tokens, places)
        found = found + self.final_attn_token_to_image(found + tokens, pixels + places, pixels)
        return self.norm_final_attn(found), pixels


class FoldedBlock(TwoWayAttentionBlock):  # type: ignore[misc]  # its package has no types
    """What SAM's `TwoWayAttentionBlock` computes: tokens see each other, then the pixels, and these the tokens."""

    def __init__(self, block: TwoWayAttentionBlock) -> None:
        """Take over the layers of a block, and the names of its weights."""
        nn.Module.__init__(self)  # its own would draw weights
        self.self_attn, self.norm1 = block.self_attn, block.norm1
        self.cross_attn_token_to_image = FoldedAttention(block.cross_attn_token_to_image)
        self.norm2 = block.norm2
        self.mlp, self.norm3 = block.mlp, block.norm3
        self.norm4 = block.norm4
        self.cross_attn_image_to_token = FoldedAttention(block.cross_attn_image_to_token)
        self.skip_first_layer_pe = block.skip_first_layer_pe

    def forward(self, tokens: Tensor, pixels: Tensor, token_places: Tensor, places: Tensor) -> tuple[Tensor, Tensor]:
        """Return tokens (B, n, C) and pixels (B, h w, C); both come with their positions."""
        if self.skip_first_layer_pe:  # tokens that are their own positions
            tokens = self.norm1(self.self_attn(tokens, tokens, tokens))
        else:
            placed = tokens + token_places
            tokens = self.norm1(tokens + self.self_attn(placed, placed, tokens))
        placed_pixels = pixels + places
        tokens = self.norm2(tokens + self.cross_attn_token_to_image(tokens + token_places, placed_pixels, pixels))
        tokens = self.norm3(tokens + self.mlp(tokens))
        seen = self.cross_attn_image_to_token(placed_pixels, tokens + token_places, tokens)
        return tokens, self.norm4(pixels + seen)


class FoldedAttention(Attention):  # type: ignore[misc]  # its package has no types
    """What SAM's `Attention` computes, its weights folded into the few tokens instead of applied to every pixel.

    A score is the product of a projected query and a projected key. With both projections on the side of n tokens and
    H heads, each pixel meets n H vectors, instead of the projection's D channels first: 32 against 128 for four classes
    and eight heads. The same holds for the values. Where n H >= D nothing is folded. The sums are the same in another
    order. Scores lie pixel beside pixel, so that the softmax over a few tokens takes many pixels at once.
    """

    def __init__(self, attention: Attention) -> None:
        """Take over the layers of an attention, and the names of its weights."""
        nn.Module.__init__(self)  # its own would draw weights
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
        found = found + self.out_proj.bias / self.num_heads  # a pixel's weights sum to one in each head
        return torch.softmax(scores, 2).flatten(1, 2).transpose(1, 2) @ found.flatten(1, 2)  # (B, pixels, C)

    @property
    def _temperature(self) -> float:
        return math.sqrt(self.internal_dim / self.num_heads)

    def _by_head(self, projected: Tensor) -> Tensor:
        return projected.unflatten(-1, (self.num_heads, -1))
