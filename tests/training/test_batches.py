"""Batches are drawn by the generator alone, and rare classes are not drowned."""

from __future__ import annotations

import numpy as np
import torch

from autosam_net.data.labels import LabelSet
from autosam_net.embedding.cache import CachedEmbedding
from autosam_net.training.batches import CachedBatches

LABELS = LabelSet({"background": 0, "common": 1, "rare": 2})


def entry(count: int, rare_row: int | None) -> CachedEmbedding:
    embedding = np.arange(count, dtype=np.float16)[:, None, None, None] * np.ones((1, 2, 3, 3), np.float16)
    labels = np.ones((count, 12, 12), np.uint8)
    if rare_row is not None:
        labels[rare_row, 0, 0] = 2
    present = tuple(tuple(np.unique(label_map).tolist()) for label_map in labels)
    return CachedEmbedding(None, embedding, labels, present)  # type: ignore[arg-type]


def test_shapes_and_types() -> None:
    embedding, labels = CachedBatches([entry(5, None), entry(4, None)], LABELS).draw(np.random.default_rng(0), 6)
    assert embedding.shape == (6, 2, 3, 3) and embedding.dtype == torch.float32
    assert labels.shape == (6, 12, 12)


def test_the_same_generator_draws_the_same_batch() -> None:
    batches = CachedBatches([entry(50, 7)], LABELS)
    first, second = (batches.draw(np.random.default_rng(3), 8)[0] for _ in range(2))
    assert torch.equal(first, second)
    assert not torch.equal(first, batches.draw(np.random.default_rng(4), 8)[0])


def test_a_class_in_one_of_a_hundred_slices_is_drawn_often() -> None:
    batches = CachedBatches([entry(100, 42)], LABELS)
    _, labels = batches.draw(np.random.default_rng(0), 300)
    share = (labels == 2).flatten(1).any(1).float().mean()
    assert 0.25 < share < 0.45
