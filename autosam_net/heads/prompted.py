"""The prompted head: SAM's prompt encoder and mask decoder, one pass for each class over one embedding.

Before training it is the checkpoint's own (Kirillov et al., 2023), so that an untrained one is SAM as it is. Trained,
it goes the way of MedSAM (Ma et al., Nature Communications 15, 654, 2024): the decoder learns, the prompt encoder does
not. Unlike there, it is told which class a prompt stands for.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from segment_anything.modeling import MaskDecoder, PromptEncoder, TwoWayTransformer
from torch import Tensor, nn

from autosam_net.data.prompts import NO_POINT, NO_TOKEN, PromptOptions
from autosam_net.errors import WeightsError
from autosam_net.heads.attention import FoldedTransformer
from autosam_net.heads.head import HEADS, HeadShape, Recipe, enlarge
from autosam_net.heads.positions import encode_grid
from autosam_net.heads.vit import filtered, upscale

ABSENT = -20.0  # logit of a class without a prompt; a probability of 2e-9, and finite, for the loss
AT_ONCE = 16  # masks in one pass of the decoder
UNUSED = ("iou_prediction_head.", *(f"output_hypernetworks_mlps.{index}." for index in (1, 2, 3)))
"""Of the decoder: what rates its masks, and makes others for prompts that can mean several."""


@HEADS.register("prompted")
class PromptedHead(nn.Module):
    """For each class a mask inside its prompt; a class or region without a prompt is nowhere.

    Background, where there is one, has the logit 0. The 3.5 M parameters of the decoder learn, and 256 an output,
    which begin at zero and are added to the tokens of the class's prompts.

    Settings:
        dropout: of whole channels of the embedding.
    """

    recipe: ClassVar[Recipe] = Recipe(
        settings={"dropout": 0.1},
        batch_size=4,
        epochs=6,
        iterations=50,
        learning_rate=2e-4,
        weight_decay=1e-2,
        prompts=PromptOptions("box"),
    )
    pretrained: ClassVar[tuple[str, ...]] = ("prompt_encoder.", "mask_decoder.")

    def __init__(self, shape: HeadShape, settings: Mapping[str, float], decoder_weights: Mapping[str, Tensor]) -> None:
        super().__init__()
        channels, size = shape.channels, shape.input_size
        self.size, self.dropout = size, nn.Dropout2d(settings["dropout"])
        self.prompt_encoder = PromptEncoder(channels, (shape.grid, shape.grid), (size, size), mask_in_chans=16)
        transformer = FoldedTransformer(TwoWayTransformer(depth=2, embedding_dim=channels, mlp_dim=2048, num_heads=8))
        self.mask_decoder = MaskDecoder(transformer_dim=channels, transformer=transformer)
        self._load(decoder_weights)
        self.classes = nn.Parameter(torch.zeros(shape.outputs, channels))  # that of a background is not used
        self.prompt_encoder.requires_grad_(False)
        for name, parameter in self.mask_decoder.named_parameters():
            parameter.requires_grad_(not name.startswith(UNUSED))

    def forward(self, embedding: Tensor, prompts: Tensor) -> Tensor:
        """Return logits (B, outputs, S, S).

        Args:
            embedding: (B, C, h, w).
            prompts: tokens (B, classes, contours, tokens, 3) of `preprocessing.prompts.stack_tokens`, in pixels of the
                input; a second contour is that of a hole.
        """
        embedding = embedding.contiguous(memory_format=torch.channels_last)  # token by token, for the transformer
        without_mask = self.prompt_encoder.no_mask_embed.weight.view(1, -1, 1, 1)
        masks = self._masks(self.dropout(embedding) + without_mask, prompts)
        outer = masks[:, :, 0]
        logits = torch.minimum(outer, -masks[:, :, 1]) if masks.shape[2] > 1 else outer  # (B, classes, S, S)
        if len(self.classes) == logits.shape[1]:
            return logits
        return torch.cat([torch.zeros_like(logits[:, :1]), logits], dim=1)

    def _masks(self, embedding: Tensor, prompts: Tensor) -> Tensor:
        """Return the logits (B, classes, contours, S, S) of every mask that is prompted for, else `ABSENT`."""
        counts = (prompts[..., 2] > NO_TOKEN).sum(-1)  # (B, classes, contours)
        masks = embedding.new_full((*counts.shape, self.size, self.size), ABSENT, dtype=torch.float)
        if not counts.any():  # one mask for nothing, so that gradients are zeros in a batch without any class
            return masks + 0 * self._decode(embedding[:1], prompts[:1, 0, 0, :1], counts.new_zeros(1)).mean()
        first = len(self.classes) - counts.shape[1]
        for count in counts[counts > 0].unique().tolist():
            for places in (counts == count).nonzero().split(AT_ONCE):
                rows, classes, contours = places.T
                tokens = prompts[rows, classes, contours, :count]
                masks[rows, classes, contours] = self._decode(embedding[rows], tokens, first + classes)
        return masks

    def _decode(self, embedding: Tensor, prompts: Tensor, outputs: Tensor) -> Tensor:
        """Return the logits (N, S, S) of one mask for each of N prompts (N, tokens, 3), of these outputs (N)."""
        decoder, count = self.mask_decoder, len(prompts)
        tokens = self._embedded(prompts) + self.classes[outputs][:, None]
        own = torch.cat([decoder.iou_token.weight, decoder.mask_tokens.weight]).expand(count, -1, -1)
        matrix = self.prompt_encoder.pe_layer.positional_encoding_gaussian_matrix
        positions = encode_grid(embedding.shape[2], embedding.shape[3], matrix, embedding.dtype)
        tokens, image = decoder.transformer(embedding, positions, torch.cat([own, tokens], dim=1))
        image = upscale(image.transpose(1, 2).view(embedding.shape), decoder.output_upscaling)
        filters = decoder.output_hypernetworks_mlps[0](tokens[:, 1])  # (N, C / 8)
        return enlarge(filtered(image, filters[..., None]), self.size)[:, 0].float()

    def _embedded(self, prompts: Tensor) -> Tensor:
        """Return what SAM's prompt encoder makes of tokens (N, tokens, 3), as (N, tokens, C)."""
        encoder, marks = self.prompt_encoder, prompts[..., 2].long()
        kinds = torch.cat([encoder.not_a_point_embed.weight, *(one.weight for one in encoder.point_embeddings)])
        with torch.autocast(prompts.device.type, enabled=False):
            places = encoder.pe_layer.forward_with_coords(prompts[..., :2] + 0.5, (self.size, self.size))
        return places * (marks != NO_POINT)[..., None] + kinds[marks - NO_POINT]

    def _load(self, weights: Mapping[str, Tensor]) -> None:
        try:
            self.load_state_dict(dict(weights))
        except RuntimeError as error:
            reason = " ".join(str(error).split())[:200]
            raise WeightsError(
                f"head 'prompted': the encoder's weights hold no prompt encoder and mask decoder of SAM's ({reason}). "
                "Choose an encoder whose checkpoint has them, such as lite_medsam or vit_b."
            ) from error
