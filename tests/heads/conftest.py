"""A mask decoder's weights in SAM's layout, random."""

from __future__ import annotations

import pytest
import torch
from segment_anything.modeling import MaskDecoder, TwoWayTransformer
from torch import Tensor


@pytest.fixture(scope="session")
def decoder() -> MaskDecoder:
    with torch.random.fork_rng():
        torch.manual_seed(7)
        transformer = TwoWayTransformer(depth=2, embedding_dim=256, mlp_dim=2048, num_heads=8)
        return MaskDecoder(transformer_dim=256, transformer=transformer).eval()


@pytest.fixture(scope="session")
def decoder_weights(decoder: MaskDecoder) -> dict[str, Tensor]:
    """Return what `Encoder.mask_decoder_weights` holds for one of SAM's checkpoints."""
    generator = torch.Generator().manual_seed(8)
    weights = {f"mask_decoder.{key}": value for key, value in decoder.state_dict().items()}
    matrix = torch.randn(2, 128, generator=generator)
    weights["prompt_encoder.pe_layer.positional_encoding_gaussian_matrix"] = matrix
    weights["prompt_encoder.no_mask_embed.weight"] = torch.randn(1, 256, generator=generator)
    return weights
