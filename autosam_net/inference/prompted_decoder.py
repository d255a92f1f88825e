"""SAM's own prompt encoder and mask decoder (Kirillov et al., 2023), as the encoder's checkpoint has them."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from segment_anything.modeling import MaskDecoder, PromptEncoder, TwoWayTransformer
from torch import Tensor, nn

from autosam_net.encoders.encoder import Encoder
from autosam_net.errors import WeightsError
from autosam_net.heads.head import enlarge


class PromptedDecoder(nn.Module):
    """Masks of one encoder input for prompts, nothing adapted.

    Prompts are in pixels of the encoder input, (x, y) as SAM has them, and stand for the pixels' centres.
    """

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        size, channels = encoder.input_size, encoder.channels
        grid = size // encoder.stride
        self.size, self.precision = size, encoder.precision
        self.prompt_encoder = PromptEncoder(channels, (grid, grid), (size, size), mask_in_chans=16)
        transformer = TwoWayTransformer(depth=2, embedding_dim=channels, mlp_dim=2048, num_heads=8)
        self.mask_decoder = MaskDecoder(transformer_dim=channels, transformer=transformer)
        self._load(encoder.mask_decoder_weights, encoder.name)
        self.register_buffer("positions", self.prompt_encoder.get_dense_pe(), persistent=False)  # (1, C, h, w)
        self.requires_grad_(False)
        self.eval()

    def forward(self, embedding: Tensor, boxes: Tensor | None = None, points: Tensor | None = None) -> Tensor:
        """Return the logits (K, S, S) of the first of SAM's masks for each of K prompts; above 0 is inside.

        Args:
            embedding: (C, h, w) of the input.
            boxes: (K, 4), corners x, y, x, y of each prompt.
            points: (K, N, 2), points of the foreground of each prompt.
        """
        marked = None if points is None else (points, torch.ones(points.shape[:2], device=points.device))
        sparse, dense = self.prompt_encoder(points=marked, boxes=boxes, masks=None)
        with torch.autocast(embedding.device.type, torch.bfloat16, enabled=self.precision == "bfloat16"):
            logits, _ = self.mask_decoder(
                image_embeddings=embedding[None],
                image_pe=self.positions,
                sparse_prompt_embeddings=sparse,
                dense_prompt_embeddings=dense,
                multimask_output=False,
            )
        return enlarge(logits.float(), self.size)[:, 0]  # (K, 1, 4 h, 4 w) before

    def _load(self, weights: Mapping[str, Tensor], name: str) -> None:
        try:
            self.load_state_dict(dict(weights))
        except RuntimeError as error:
            reason = " ".join(str(error).split())[:200]
            raise WeightsError(
                f"{name}: its weights hold no prompt encoder and mask decoder of SAM's ({reason}). Choose an encoder "
                "whose checkpoint has them, such as lite_medsam or vit_b."
            ) from error
