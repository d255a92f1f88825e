"""The slice's own pixels, folded into channels behind its embedding's, for heads that draw boundaries with them.

So both are one array: they are cached, turned, cut and mixed together, and what knows only embeddings stays as it is.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

from autosam_net.data.encoding import CELL


def fold_pixels(images: Tensor, grid: int) -> Tensor:
    """Return images `(B, C, S, S)` as `(B, C * CELL**2, grid, grid)`; S is a multiple of `grid * CELL`."""
    return functional.pixel_unshuffle(functional.avg_pool2d(images, images.shape[-1] // (grid * CELL)), CELL)


def unfold_pixels(folded: Tensor) -> Tensor:
    """Return the images `(B, C, CELL * h, CELL * w)` in `(B, C * CELL**2, h, w)`."""
    return functional.pixel_shuffle(folded, CELL)
