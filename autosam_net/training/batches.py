"""Random batches of embeddings and label maps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch

from autosam_net.data.labels import LabelSet
from autosam_net.embedding.cache import CachedEmbedding
from autosam_net.parallel import WHOLE, Part

FOREGROUND_SHARE = 0.67
"""Share of a batch drawn for a class, each class alike, so that a class in few slices is not drowned."""


class BatchSource(Protocol):
    """Where training takes its batches from; embeddings from the cache, or one day slices encoded on the fly."""

    def draw(self, rng: np.random.Generator, size: int, share: Part = WHOLE) -> tuple[torch.Tensor, torch.Tensor]:
        """Return embeddings `(B, C, h, w)` float32 and label values `(B, S, S)` uint8 or int32.

        Args:
            size: of the whole batch, which the same generator draws alike in every process.
            share: what is read and returned of it.
        """


class CachedBatches:
    """Batches from cached embeddings; only the drawn rows are read from disk."""

    def __init__(self, entries: Sequence[CachedEmbedding], labels: LabelSet) -> None:
        self.entries = list(entries)
        self.rows = [(entry, row) for entry, view in enumerate(self.entries) for row in range(len(view.present))]
        present = [self.entries[entry].present[row] for entry, row in self.rows]
        by_target = [
            [index for index, values in enumerate(present) if set(values) & set(wanted)]
            for wanted in labels.targets.values()
        ]
        self.rows_of_target = [np.array(rows) for rows in by_target if rows]

    def draw(self, rng: np.random.Generator, size: int, share: Part = WHOLE) -> tuple[torch.Tensor, torch.Tensor]:
        """Return a random batch; see `BatchSource`."""
        drawn = share.of([self.rows[self._draw_row(rng)] for _ in range(size)])
        embeddings = np.stack([self.entries[entry].embedding.row(row) for entry, row in drawn])
        labels = np.stack([self.entries[entry].labels.row(row) for entry, row in drawn])
        if labels.dtype != np.uint8:
            labels = labels.astype(np.int32)  # torch hardly knows uint16
        return torch.from_numpy(embeddings).float(), torch.from_numpy(labels)

    def _draw_row(self, rng: np.random.Generator) -> int:
        if self.rows_of_target and rng.random() < FOREGROUND_SHARE:
            return int(rng.choice(self.rows_of_target[rng.integers(len(self.rows_of_target))]))
        return int(rng.integers(len(self.rows)))
