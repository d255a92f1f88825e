"""Random batches of embeddings and label maps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from autosam_net.data.labels import LabelSet
from autosam_net.embedding.cache import CachedEmbedding
from autosam_net.parallel import WHOLE, Part

Array = NDArray[Any]

SEEDS = 2**32
MARGIN = 8  # a wanted pixel is not in the outer eighth of a part
FOREGROUND_SHARE = 0.67
"""Share of a batch drawn for a class, each class alike, so that a class in few slices is not drowned."""


class BatchSource(Protocol):
    """Where training takes its batches from; embeddings from the cache, or one day slices encoded on the fly."""

    def draw(self, rng: np.random.Generator, size: int, share: Part = WHOLE) -> tuple[torch.Tensor, torch.Tensor]:
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
        present = [self.entries[entry].present[row] for entry, row in self.rows]
        by_target = [
            [index for index, values in enumerate(present) if set(values) & set(wanted)]
            for wanted in labels.targets.values()
        ]
        self.targets = [values for values, rows in zip(labels.targets.values(), by_target, strict=True) if rows]
        self.rows_of_target = [np.array(rows) for rows in by_target if rows]

    def draw(self, rng: np.random.Generator, size: int, share: Part = WHOLE) -> tuple[torch.Tensor, torch.Tensor]:
        """Return a random batch; see `BatchSource`."""
        drawn = share.of([(*self._draw_row(rng), int(rng.integers(SEEDS))) for _ in range(size)])
        parts = [self._part(row, target, np.random.default_rng(seed)) for row, target, seed in drawn]
        embeddings, labels = (np.stack(arrays) for arrays in zip(*parts, strict=True))
        if labels.dtype != np.uint8:
            labels = labels.astype(np.int32)  # torch hardly knows uint16
        return torch.from_numpy(embeddings).float(), torch.from_numpy(labels)

    def _draw_row(self, rng: np.random.Generator) -> tuple[int, int | None]:
        """Return a row and the target that it was drawn for, if any."""
        if self.rows_of_target and rng.random() < FOREGROUND_SHARE:
            target = int(rng.integers(len(self.rows_of_target)))
            return int(rng.choice(self.rows_of_target[target])), target
        return int(rng.integers(len(self.rows))), None

    def _part(self, index: int, target: int | None, rng: np.random.Generator) -> tuple[Array, Array]:
        entry, row = self.rows[index]
        embedding, labels = (array.row(row) for array in (self.entries[entry].embedding, self.entries[entry].labels))
        wanted = None if target is None else np.isin(labels, self.targets[target])
        return cut(rng, self.crop, embedding, labels, wanted)


def cut(
    rng: np.random.Generator, share: float, embedding: Array, labels: Array, wanted: NDArray[np.bool_] | None = None
) -> tuple[Array, Array]:
    """Return a random part of an embedding `(C, h, w)` and of its label map `(S, S)`, `share` of their sides.

    Args:
        wanted: `(S, S)`, pixels of which a random one lies in the part, not too close to its edge.
    """
    grid = embedding.shape[-1]
    side = max(1, round(share * grid))
    if side == grid:
        return embedding, labels
    step = labels.shape[-1] // grid
    spots = np.zeros((0, 2), int) if wanted is None else np.argwhere(wanted) // step
    spot = spots[rng.integers(len(spots))] if len(spots) else rng.integers(grid, size=2)
    margin = side // MARGIN
    y, x = np.clip(spot - rng.integers(margin, side - margin, size=2), 0, grid - side)
    return (
        embedding[:, y : y + side, x : x + side],
        labels[step * y : step * (y + side), step * x : step * (x + side)],
    )
