"""The cnn head: a few convolutions on the embedding and at twice its resolution."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from torch import Tensor, nn

from autosam_net.errors import PlanError
from autosam_net.heads.head import HEADS, HeadShape, Recipe, enlarge

GROUPS = 8  # of the norms after convolutions


@HEADS.register("cnn")
class CnnHead(nn.Module):
    """Two up-sampling stages to four times the embedding's resolution, then bilinear to the input's (0.1 M parameters).

    Convolutions of 3x3 stop at twice the embedding's resolution. The second stage is a transposed convolution to a
    quarter of the width and a 1x1: one more 3x3 there makes a training step on a CPU more than twice as long.

    Settings:
        width: channels, a multiple of 8.
        dropout: of whole channels of the embedding, the augmentation that a cached embedding allows.
    """

    recipe: ClassVar[Recipe] = Recipe(
        settings={"width": 64.0, "dropout": 0.1},
        batch_size=8,
        epochs=12,
        iterations=50,
        learning_rate=2e-3,
        weight_decay=1e-2,
    )

    def __init__(self, shape: HeadShape, settings: Mapping[str, float], decoder_weights: Mapping[str, Tensor]) -> None:
        super().__init__()
        width = int(settings["width"])
        if width <= 0 or width != settings["width"] or width % GROUPS:
            raise PlanError(f"head 'cnn': width is {settings['width']:g}, expected a multiple of {GROUPS}; correct it.")
        self.size = shape.input_size
        self.norm = nn.Sequential(nn.GroupNorm(32, shape.channels), nn.Dropout2d(settings["dropout"]))
        self.coarse = nn.Sequential(_block(shape.channels, width, kernel=1), _block(width, width))
        self.fine = _block(width, width)
        self.finest = nn.Sequential(nn.ConvTranspose2d(width, width // 4, 2, 2), nn.ReLU())
        self.classify = nn.Conv2d(width // 4, shape.outputs, 1)

    def forward(self, embedding: Tensor) -> Tensor:
        features = self.coarse(self.norm(embedding))  # (B, width, grid, grid)
        features = self.fine(enlarge(features, 2 * features.shape[-1]))
        logits = self.classify(self.finest(features))  # (B, outputs, 4 grid, 4 grid)
        return enlarge(logits, self.size)


def _block(inputs: int, outputs: int, kernel: int = 3) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False),
        nn.GroupNorm(GROUPS, outputs),
        nn.ReLU(),
    )
