"""A mask decoder's weights in SAM's layout, random."""

from __future__ import annotations

import pytest
import torch
from segment_anything.modeling import MaskDecoder, PromptEncoder, TwoWayTransformer
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
    with torch.random.fork_rng():
        torch.manual_seed(8)
        prompts = PromptEncoder(256, (8, 8), (32, 32), 16)
    parts = {"mask_decoder": decoder, "prompt_encoder": prompts}
    return {f"{part}.{key}": value for part, module in parts.items() for key, value in module.state_dict().items()}
