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
    """Convolutions at the embedding's resolution and at twice that, then bilinear to the input's (0.18 M parameters).

    Every convolution is normalised and none ends in a plain ReLU: with foreground in 2 % of the pixels, a narrow last
    layer of ReLUs dies in the first steps, while all that is asked for is background.

    Settings:
        width: channels at the embedding's resolution, a multiple of 16; half of that at twice the resolution.
        context: 1 adds a path at a quarter of the embedding's resolution whose dilated convolutions see the whole
            input, for structures so large that their inside looks like any other tissue; 0 leaves it out.
        dropout: of whole channels of the embedding, the augmentation that a cached embedding allows.
    """

    recipe: ClassVar[Recipe] = Recipe(
        settings={"width": 64.0, "dropout": 0.3, "context": 0.0},
        batch_size=8,
        epochs=20,
        iterations=50,
        learning_rate=2e-3,
        weight_decay=1e-2,
    )

    def __init__(self, shape: HeadShape, settings: Mapping[str, float], decoder_weights: Mapping[str, Tensor]) -> None:
        super().__init__()
        width = int(settings["width"])
        if width <= 0 or width != settings["width"] or width % (2 * GROUPS):
            raise PlanError(
                f"head 'cnn': width is {settings['width']:g}, expected a multiple of {2 * GROUPS}; correct it."
            )
        self.logits_size = shape.input_size
        self.norm = nn.Sequential(nn.GroupNorm(32, shape.channels), nn.Dropout2d(settings["dropout"]))
        self.coarse = _block(shape.channels, width)
        self.fine = nn.Sequential(_block(width, width // 2), _block(width // 2, width // 2))
        self.classify = nn.Conv2d(width // 2, shape.outputs, 1)
        self.context = _context(shape.channels, width) if settings["context"] else None

    def forward(self, embedding: Tensor) -> Tensor:
        embedding = self.norm(embedding)
        features = self.coarse(embedding)  # (B, width, grid, grid)
        if self.context is not None:
            features = features + enlarge(self.context(embedding), features.shape[-1])
        features = self.fine(enlarge(features, 2 * features.shape[-1]))  # (B, width / 2, 2 grid, 2 grid)
        return enlarge(self.classify(features), self.logits_size)


def _context(inputs: int, width: int) -> nn.Sequential:
    """Return the path that sees 1 + 2 (1 + 1 + 2 + 4) = 17 cells of 4 embedding pixels: the whole of 256 px."""
    dilated = [_block(width, width, dilation) for dilation in (1, 2, 4)]
    return nn.Sequential(nn.AvgPool2d(4), _block(inputs, width), *dilated)


def _block(inputs: int, outputs: int, dilation: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, padding=dilation, dilation=dilation, bias=False),
        nn.GroupNorm(GROUPS, outputs),
        nn.GELU(),
    )
