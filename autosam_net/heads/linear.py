"""The linear head: one linear classifier for all pixels of the embedding."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from torch import Tensor, nn

from autosam_net.heads.head import HEADS, HeadShape, Recipe, enlarge


@HEADS.register("linear")
class LinearHead(nn.Module):
    """Group norm, 1x1 convolution, bilinear up: about 500 parameters and 260 an output."""

    recipe: ClassVar[Recipe] = Recipe(
        settings={"dropout": 0.0},
        batch_size=8,
        epochs=8,
        iterations=50,
        learning_rate=5e-3,
        weight_decay=1e-2,
    )

    def __init__(self, shape: HeadShape, settings: Mapping[str, float], decoder_weights: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.logits_size = shape.input_size
        self.norm = nn.GroupNorm(32, shape.channels)
        self.dropout = nn.Dropout2d(settings["dropout"])
        self.classify = nn.Conv2d(shape.channels, shape.outputs, 1)

    def forward(self, embedding: Tensor) -> Tensor:
        logits = self.classify(self.dropout(self.norm(embedding)))  # (B, outputs, grid, grid)
        return enlarge(logits.float(), self.logits_size)  # half the time of bfloat16 on a CPU
