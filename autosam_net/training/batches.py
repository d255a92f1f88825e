"""Random batches of embeddings and label maps, with prompts for heads that need them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from autosam_net.data.labels import LabelSet
from autosam_net.data.prompts import PromptOptions
from autosam_net.embedding.cache import CachedEmbedding
from autosam_net.parallel import WHOLE, Part
from autosam_net.preprocessing.prompts import draw_outlines, stack_tokens
from autosam_net.training.sampling import SEEDS, BalancedDraw, Drawn

Array = NDArray[Any]
Map = TypeVar("Map", Array, torch.Tensor)
Batch = tuple[torch.Tensor, ...]
"""What a head takes (embeddings, or images to be encoded, and perhaps prompts), then label values."""

MARGIN = 8  # a wanted pixel is not in the outer eighth of a part


class BatchSource(Protocol):
    """Where training takes its batches from; embeddings from the cache, or slices encoded on the fly."""

    def draw(self, rng: np.random.Generator, size: int, share: Part = WHOLE) -> Batch:
        """Return embeddings `(B, C, h, w)` float32 and label values `(B, S, S)` uint8 or int32, or parts of both.

        Args:
            size: of the whole batch, which the same generator draws alike in every process.
            share: what is read and returned of it.
        """


class CachedBatches:
    """Batches from cached embeddings; only the drawn rows are read from disk.

    Args:
        crop: share of the inputs' side that is shown of each, somewhere, and of one drawn for a class around that.
    """

    def __init__(self, entries: Sequence[CachedEmbedding], labels: LabelSet, crop: float = 1.0) -> None:
        self.entries, self.crop = list(entries), crop
        self.rows = [(entry, row) for entry, view in enumerate(self.entries) for row in range(len(view.present))]
        self.balanced = BalancedDraw([self.entries[entry].present[row] for entry, row in self.rows], labels)

    def draw(self, rng: np.random.Generator, size: int, share: Part = WHOLE) -> Batch:
        """Return a random batch; see `BatchSource`."""
        parts = [self._part(one) for one in share.of(self.balanced.draw(rng, size))]
        embeddings, labels = (np.stack(arrays) for arrays in zip(*parts, strict=True))
        return torch.from_numpy(embeddings).float(), label_tensor(labels)

    def _part(self, drawn: Drawn) -> tuple[Array, Array]:
        entry, row = self.rows[drawn.number]
        embedding, labels = (array.row(row) for array in (self.entries[entry].embedding, self.entries[entry].labels))
        return cut(np.random.default_rng(drawn.seed), self.crop, embedding, labels, drawn.wanted)


class PromptedBatches:
    """Batches of another source with prompts `(B, classes, contours, tokens, 3)` drawn from their label maps."""

    def __init__(self, source: BatchSource, labels: LabelSet, options: PromptOptions) -> None:
        self.source, self.labels, self.options = source, labels, options.in_training

    def draw(self, rng: np.random.Generator, size: int, share: Part = WHOLE) -> Batch:
        """Return a random batch; see `BatchSource`."""
        *inputs, labels = self.source.draw(rng, size, share)
        seeds = share.of(rng.integers(SEEDS, size=size).tolist())
        outlines = [
            draw_outlines(one, self.labels, self.options, np.random.default_rng([self.options.seed, seed]))
            for one, seed in zip(labels.numpy(), seeds, strict=True)
        ]
        return (*inputs, torch.from_numpy(stack_tokens(outlines, self.labels)), labels)


def label_tensor(labels: NDArray[np.integer]) -> torch.Tensor:
    """Return label values as a tensor, uint8 or int32: torch hardly knows uint16."""
    return torch.from_numpy(labels if labels.dtype == np.uint8 else labels.astype(np.int32))


def cut(
    rng: np.random.Generator, share: float, embedding: Map, labels: Map, wanted: Sequence[int] = ()
) -> tuple[Map, Map]:
    """Return a random part of an embedding `(C, h, w)` and of its label map `(S, S)`, `share` of their sides.

    Args:
        labels: on the CPU, if a tensor.
        wanted: label values; of the pixels that have one a random one lies in the part, not too close to its edge.
    """
    grid = embedding.shape[-1]
    side = max(1, round(share * grid))
    if side == grid:
        return embedding, labels
    step = labels.shape[-1] // grid
    spots = np.argwhere(np.isin(labels, wanted)) // step
    spot = spots[rng.integers(len(spots))] if len(spots) else rng.integers(grid, size=2)
    margin = side // MARGIN
    y, x = np.clip(spot - rng.integers(margin, side - margin, size=2), 0, grid - side).tolist()
    return (
        embedding[:, y : y + side, x : x + side],
        labels[step * y : step * (y + side), step * x : step * (x + side)],
    )
