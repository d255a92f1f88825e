"""The vit head: SAM's mask decoder without prompts, one token for each class, all classes in one pass.

The head of AutoSAM (Hu, Xu and Shi, arXiv 2306.13731), started from all that the checkpoint knows: transformer,
up-scaling, hyper-networks, mask tokens, SAM's positional encoding of the image and its embedding for "no mask given".
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from segment_anything.modeling import TwoWayTransformer
from segment_anything.modeling.common import LayerNorm2d
from segment_anything.modeling.mask_decoder import MLP
from segment_anything.modeling.prompt_encoder import PositionEmbeddingRandom
from torch import Tensor, nn

from autosam_net.errors import WeightsError
from autosam_net.heads.attention import FoldedTransformer
from autosam_net.heads.head import HEADS, HeadShape, Recipe, enlarge, pixelwise
from autosam_net.heads.positions import encode_grid, encode_places, pixel_centres

WIDTH = 256  # of SAM's decoder
MASK_TOKENS = "mask_decoder.mask_tokens.weight"
NO_MASK = "prompt_encoder.no_mask_embed.weight"


@HEADS.register("vit")
class VitHead(nn.Module):
    """Class tokens and image attend to each other twice; each token then makes the filter of its class.

    3.4 M parameters and 0.14 M an output.

    Settings:
        token_noise: standard deviation of the noise on the class tokens' start, which parts the classes that start from
            the same mask token.
        dropout: of whole channels of the embedding.
        position_jitter: in training, each image's positions are moved by up to this part of its side. Without it the
            head learns where in the image its few patients had their organs: on ACDC with one patient, mean Dice fell
            to 0.37.
    """

    recipe: ClassVar[Recipe] = Recipe(
        settings={"token_noise": 0.02, "dropout": 0.3, "position_jitter": 0.3},
        batch_size=4,
        epochs=40,
        iterations=50,
        learning_rate=7e-4,
        weight_decay=1e-2,
    )
    pretrained: ClassVar[tuple[str, ...]] = ("transformer.", "output_upscaling.", "no_mask")

    def __init__(self, shape: HeadShape, settings: Mapping[str, float], decoder_weights: Mapping[str, Tensor]) -> None:
        super().__init__()
        _check(shape, decoder_weights)
        self.logits_size = shape.input_size
        self.dropout = nn.Dropout2d(settings["dropout"])
        self.position_jitter = settings["position_jitter"]
        self.position = PositionEmbeddingRandom(WIDTH // 2)  # its matrix is a buffer: saved, not trained
        self.transformer = FoldedTransformer(TwoWayTransformer(depth=2, embedding_dim=WIDTH, mlp_dim=2048, num_heads=8))
        self.output_upscaling = nn.Sequential(
            nn.ConvTranspose2d(WIDTH, WIDTH // 4, 2, 2),
            LayerNorm2d(WIDTH // 4),
            nn.GELU(),
            nn.ConvTranspose2d(WIDTH // 4, WIDTH // 8, 2, 2),
            nn.GELU(),
        )
        self.filters = nn.ModuleList(MLP(WIDTH, WIDTH, WIDTH // 8, 3) for _ in range(shape.outputs))
        self.class_tokens = nn.Parameter(torch.zeros(shape.outputs, WIDTH))
        self.no_mask = nn.Parameter(torch.zeros(1, WIDTH))
        self._start_from(decoder_weights, settings["token_noise"])

    def forward(self, embedding: Tensor) -> Tensor:
        batch, channels, height, width = embedding.shape
        kind = self._type_between_layers(embedding)
        embedding = embedding.to(kind, memory_format=torch.channels_last)  # token by token, for the transformer
        image = self.dropout(embedding) + self.no_mask.view(1, channels, 1, 1).to(kind)
        tokens = self.class_tokens.expand(batch, -1, -1)  # (B, outputs, 256)
        tokens, image = self.transformer(image, self._positions(image), tokens)
        image = upscale(image.transpose(1, 2).view(batch, channels, height, width), self.output_upscaling)
        filters = torch.stack([layer(tokens[:, index]) for index, layer in enumerate(self.filters)], dim=2)
        return enlarge(filtered(image, filters), self.logits_size)

    def _type_between_layers(self, embedding: Tensor) -> torch.dtype:
        """Return the type of autocast for prediction, which halves the memory of all pixels' tokens."""
        device = embedding.device.type
        if self.training or not torch.is_autocast_enabled(device):
            return embedding.dtype
        return torch.get_autocast_dtype(device)

    def _positions(self, image: Tensor) -> Tensor:
        """Return the encoding of the pixels' centres, (1, C, h, w), in training (B, C, h, w): moved in each image."""
        matrix = self.position.positional_encoding_gaussian_matrix
        batch, _, height, width = image.shape
        if not self.training:
            return encode_grid(height, width, matrix, image.dtype)
        moves = (torch.rand(batch, 1, 1, 2, device=image.device) * 2 - 1) * self.position_jitter
        encoding = encode_places(pixel_centres(height, width, image.device) + moves, matrix)
        return encoding.permute(0, 3, 1, 2).to(image.dtype)

    def _start_from(self, weights: Mapping[str, Tensor], token_noise: float) -> None:
        """Take over the checkpoint's decoder; class i gets mask token and hyper-network i modulo their number."""
        tokens = weights[MASK_TOKENS]
        state = {"no_mask": weights[NO_MASK], "class_tokens": torch.empty_like(self.class_tokens)}
        for index in range(len(self.filters)):
            source = index % len(tokens)
            noise = torch.randn(WIDTH) * token_noise
            state["class_tokens"][index] = tokens[source] + noise
            state |= _part(weights, f"mask_decoder.output_hypernetworks_mlps.{source}.", f"filters.{index}.")
        for name in ("transformer.", "output_upscaling."):
            state |= _part(weights, f"mask_decoder.{name}", name)
        state |= _part(weights, "prompt_encoder.pe_layer.", "position.")
        try:
            self.load_state_dict(state)
        except RuntimeError as error:
            reason = " ".join(str(error).split())[:200]
            raise WeightsError(f"head 'vit': the checkpoint's mask decoder is not SAM's ({reason})") from error


def upscale(image: Tensor, layers: nn.Sequential) -> Tensor:
    """Return what the up-scaling layers of SAM's decoder make of an image (B, C, h, w), as (B, C / 8, 4 h, 4 w).

    The norm's own code takes several passes.
    """
    norm: Any = layers[1]

    def activated(pixels: Tensor) -> Tensor:
        normed = F.layer_norm(pixels, norm.weight.shape, norm.weight, norm.bias, norm.eps)
        result: Tensor = layers[2](normed)
        return result

    return pixelwise(layers[4], layers[3](pixelwise(activated, layers[0](image))))


def filtered(image: Tensor, filters: Tensor) -> Tensor:
    """Return what each of the filters (B, C, outputs) makes of its image (B, C, H, W), as (B, outputs, H, W)."""
    pixels = image.permute(0, 2, 3, 1).flatten(1, 2)  # in the order of the memory, so that no copy is made
    return (filters.transpose(1, 2) @ pixels.transpose(1, 2)).unflatten(2, image.shape[2:])


def _part(weights: Mapping[str, Tensor], prefix: str, name: str) -> dict[str, Tensor]:
    """Return the weights under `prefix`, renamed to lie under `name`."""
    return {name + key.removeprefix(prefix): value for key, value in weights.items() if key.startswith(prefix)}


def _check(shape: HeadShape, weights: Mapping[str, Tensor]) -> None:
    missing = [key for key in (MASK_TOKENS, NO_MASK) if key not in weights]
    if missing or shape.channels != WIDTH:
        found = f"no {missing[0]}" if missing else f"{shape.channels} channels"
        raise WeightsError(
            f"head 'vit' needs an encoder of {WIDTH} channels with SAM's mask decoder in its weights, found {found}. "
            "Choose the head cnn or linear."
        )
