"""Random batches of embeddings and label maps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from autosam_net.data.labels import LabelSet
from autosam_net.embedding.cache import CachedEmbedding
from autosam_net.parallel import WHOLE, Part
from autosam_net.training.sampling import BalancedDraw

Batch = tuple[torch.Tensor, torch.Tensor]
"""Embeddings, or images to be encoded, and label values."""


class BatchSource(Protocol):
    """Where training takes its batches from; embeddings from the cache, or slices encoded on the fly."""

    def draw(self, rng: np.random.Generator, size: int, share: Part = WHOLE) -> Batch:
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
        self.balanced = BalancedDraw([self.entries[entry].present[row] for entry, row in self.rows], labels)

    def draw(self, rng: np.random.Generator, size: int, share: Part = WHOLE) -> Batch:
        """Return a random batch; see `BatchSource`."""
        drawn = share.of([self.rows[number] for number in self.balanced.draw(rng, size)])
        embeddings = np.stack([self.entries[entry].embedding.row(row) for entry, row in drawn])
        labels = np.stack([self.entries[entry].labels.row(row) for entry, row in drawn])
        return torch.from_numpy(embeddings).float(), label_tensor(labels)


def label_tensor(labels: NDArray[np.integer]) -> torch.Tensor:
    """Return label values as a tensor, uint8 or int32."""
    return torch.from_numpy(
        labels if labels.dtype == np.uint8 else labels.astype(np.int32)
    )  # torch hardly knows uint16
